package jwtauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

var (
	errUnknownKey     = refuse("the key that its header names is not known")
	errOtherAlgorithm = refuse("its algorithm is not one of its key")
)

// verify returns the claims of a token, if it is good. The header is held
// against what is configured before anything else is done, and claims are
// looked at only after the signature was found to be right.
func (a *Authenticator) verify(ctx context.Context, text string) (payload, error) {
	h, err := a.header(text)
	if err != nil {
		return nil, err
	}
	var p payload
	_, err = a.parser.ParseWithClaims(text, &p, func(*jwt.Token) (any, error) {
		found, err := a.find(ctx, h.kid, h.alg)
		if err != nil {
			return nil, err
		}
		set := jwt.VerificationKeySet{Keys: make([]jwt.VerificationKey, len(found))}
		for i, k := range found {
			set.Keys[i] = k
		}
		return set, nil
	})
	if err != nil {
		return nil, explain(err)
	}
	return p, nil
}

// explain says by one of this package's errors what golang-jwt found. The text
// of its errors is left out, as it may quote the token.
func explain(err error) error {
	if own, ok := errors.AsType[*refusal](err); ok {
		return own
	}
	for _, e := range []struct {
		is  error
		why string
	}{
		{jwt.ErrTokenMalformed, "it is not of a token's form"},
		{jwt.ErrTokenSignatureInvalid, "its signature is wrong"},
		{jwt.ErrTokenRequiredClaimMissing, "a claim is missing out of exp, iss and aud"},
		{jwt.ErrTokenInvalidIssuer, "it is of another issuer"},
		{jwt.ErrTokenInvalidAudience, "it is for another audience"},
		{jwt.ErrTokenNotValidYet, "its nbf is in the future"},
		{jwt.ErrTokenUsedBeforeIssued, "its iat is in the future"},
	} {
		if errors.Is(err, e.is) {
			return refuse(e.why)
		}
	}
	if errors.Is(err, jwt.ErrTokenExpired) { // last: all else is right
		return ErrExpired
	}
	return refuse("it can't be verified")
}

// A header is what of a token's header has a meaning here. jwk, jku, x5c and
// x5u have none: a token doesn't bring its own key (RFC 8725 §3.10).
type header struct {
	alg, kid string
}

// header reads and judges the header of a token.
func (a *Authenticator) header(text string) (header, error) {
	switch {
	case len(text) > a.o.MaxToken:
		return header{}, refuse("it is too long")
	case strings.Trim(text, tokenAlphabet) != "", strings.Count(text, ".") != 2:
		return header{}, refuse("it is not of a token's form")
	}
	first, _, _ := strings.Cut(text, ".")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil {
		return header{}, refuse("its header is not base64url")
	}
	members, err := parseObject(raw)
	if err != nil {
		return header{}, err
	}
	return a.judge(members)
}

func (a *Authenticator) judge(members map[string]any) (header, error) {
	alg, _ := members["alg"].(string)
	if !slices.Contains(a.o.Algorithms, alg) {
		return header{}, refuse("its algorithm is not accepted")
	}
	// crit names what must be understood, and nothing of that kind is (RFC 7515
	// §4.1.11). b64 must be named there and can't be in a JWT (RFC 7797 §7).
	for _, name := range []string{"crit", "b64"} {
		if _, there := members[name]; there {
			return header{}, refuse("its header has " + name)
		}
	}
	kid := ""
	if member, there := members["kid"]; there {
		kid, _ = member.(string)
		if !validKeyID(kid) {
			return header{}, refuse("its kid is not of a kid's form")
		}
	}
	if typ, _ := members["typ"].(string); a.o.Type != "" && mediaType(typ) != mediaType(a.o.Type) {
		return header{}, refuse("it is of another type")
	}
	return header{alg: alg, kid: kid}, nil
}

// mediaType returns what is the same for all ways to write a typ (RFC 7515
// §4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// A payload is the claims of a token, as golang-jwt reads and asks for them.
// It is stricter than what comes with that: of dates outside of what a time can
// hold, some would seem to be long ago.
type payload map[string]any

// UnmarshalJSON implements [json.Unmarshaler].
func (p *payload) UnmarshalJSON(text []byte) (err error) {
	*p, err = parseObject(text)
	return err
}

// GetExpirationTime, as all of these, is for golang-jwt.
func (p payload) GetExpirationTime() (*jwt.NumericDate, error) { return p.date("exp") }

// GetNotBefore returns nbf.
func (p payload) GetNotBefore() (*jwt.NumericDate, error) { return p.date("nbf") }

// GetIssuedAt returns iat.
func (p payload) GetIssuedAt() (*jwt.NumericDate, error) { return p.date("iat") }

// GetIssuer returns iss.
func (p payload) GetIssuer() (string, error) { return p.text("iss") }

// GetSubject returns sub.
func (p payload) GetSubject() (string, error) { return p.text("sub") }

// GetAudience returns aud, which is a string or a list (RFC 7519 §4.1.3).
func (p payload) GetAudience() (jwt.ClaimStrings, error) {
	list, ok := p["aud"].([]any)
	if !ok {
		one, err := p.text("aud")
		return jwt.ClaimStrings{one}, err
	}
	names := make(jwt.ClaimStrings, len(list))
	for i, member := range list {
		if names[i], ok = member.(string); !ok {
			return nil, refuse("its aud holds something that is not a string")
		}
	}
	return names, nil
}

// text returns a claim that is a string, or "" if it is missing.
func (p payload) text(name string) (string, error) {
	claim, there := p[name]
	s, ok := claim.(string)
	if there && !ok {
		return "", refuse("its " + name + " is not a string")
	}
	return s, nil
}

// date returns a claim that is a date (RFC 7519 §2), or nil if it is missing.
func (p payload) date(name string) (*jwt.NumericDate, error) {
	claim, there := p[name]
	if !there {
		return nil, nil
	}
	number, _ := claim.(json.Number)
	seconds, err := number.Float64()
	if err == nil {
		if d, ok := date(seconds); ok {
			return d, nil
		}
	}
	return nil, refuse("its " + name + " is not a date")
}

// parseObject reads a JSON object, and no other JSON. It refuses what
// different parsers read differently: what is not UTF-8, and a name that comes
// twice in one object (RFC 7519 §4, RFC 8725 §3.7). Numbers are [json.Number].
func parseObject(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, refuse("it holds something that is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	value, err := parseValue(d)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, refuse("it holds JSON that is not an object")
	}
	return object, nil
}

// parseValue reads the next value of JSON that is known to be valid.
func parseValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, unexpected(err)
	}
	switch token {
	case json.Delim('{'):
		return parseMembers(d)
	case json.Delim('['):
		return parseElements(d)
	}
	return token, nil
}

func parseMembers(d *json.Decoder) (map[string]any, error) {
	object := make(map[string]any)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, unexpected(err)
		}
		name, _ := token.(string) // nothing else can stand there
		if _, there := object[name]; there {
			return nil, refuse("it holds JSON in which a name comes twice")
		}
		if object[name], err = parseValue(d); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return object, unexpected(err)
}

func parseElements(d *json.Decoder) ([]any, error) {
	list := []any{}
	for d.More() {
		value, err := parseValue(d)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := d.Token()
	return list, unexpected(err)
}

// unexpected hides the text of an error of encoding/json, which quotes.
func unexpected(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return refuse("it holds something that is not JSON")
}
