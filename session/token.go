package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

// A token's text is
//
//	a<key id>.<payload>.<signature>
//
// Payload and signature are base64url without padding. The payload is the
// namespace, the subject and the session's id, each with its length before it,
// when the token was issued, in seconds since 1970, and for how many seconds it
// is good; all numbers are varints. The signature is HMAC-SHA256 of all that
// comes before its dot.

// tokenVersion is the first character of a token's text.
const tokenVersion = 'a'

// tokenLabel is what the key that signs tokens is derived from a secret with, so
// that the same secret may serve for something else too.
const tokenLabel = "throughline session token a"

// MaxToken is longer than the text of any token.
const MaxToken = 2 << 10

// Reasons why a token doesn't verify. They are for tests and for the log at the
// level of debugging: to a client all are as if it had presented none.
var (
	// ErrTokenMalformed: it is too long, or not of a token's form.
	ErrTokenMalformed = errors.New("session: not a token")
	// ErrTokenVersion: its form is of a version that is not known here.
	ErrTokenVersion = errors.New("session: token of an unknown version")
	// ErrTokenKey: it names a key that is not known here.
	ErrTokenKey = errors.New("session: token signed by an unknown key")
	// ErrTokenSignature: it was changed, or signed by another key of that name.
	ErrTokenSignature = errors.New("session: token with a wrong signature")
	// ErrTokenExpired: its time is over.
	ErrTokenExpired = errors.New("session: token has expired")
	// ErrTokenForeign: it was made for another namespace or subject.
	ErrTokenForeign = errors.New("session: token of somebody else")
)

// A Token says which session a client is, and for whom it was made.
type Token struct {
	Namespace string
	Subject   string
	Session   string // the session's id
	// Issued and Expires are whole seconds by the wall clock of the node that
	// signed, in UTC.
	Issued, Expires time.Time
}

// Sign returns the text of a token that is issued now; its Issued and Expires
// are set here. Who it is for must have passed [Identity.Check], and the
// session's id be as [Held.Check] wants it: what is over those bounds gets
// a text that never verifies.
func (k *Keys) Sign(t Token, now time.Time) string {
	payload := make([]byte, 0, 256)
	for _, part := range []string{t.Namespace, t.Subject, t.Session} {
		payload = binary.AppendUvarint(payload, uint64(len(part)))
		payload = append(payload, part...)
	}
	payload = binary.AppendVarint(payload, now.Unix())
	payload = binary.AppendVarint(payload, int64(k.lifetime/time.Second))
	text := string(tokenVersion) + k.signs.id + "." + base64.RawURLEncoding.EncodeToString(payload)
	return text + "." + k.signs.sign(text)
}

// Verify returns the token whose text this is, if a key known here signed it,
// it has not expired, and it was made for the one who presents it. It may have
// been issued in the future, as clocks differ. If not, the token is zero and the
// error one of those above.
func (k *Keys) Verify(text string, who Identity, now time.Time) (Token, error) {
	if len(text) == 0 || len(text) > MaxToken {
		return Token{}, ErrTokenMalformed
	}
	if text[0] != tokenVersion {
		return Token{}, ErrTokenVersion
	}
	dot := strings.LastIndexByte(text, '.')
	id, payload, found := strings.Cut(text[1:max(dot, 1)], ".")
	if !found {
		return Token{}, ErrTokenMalformed
	}
	key := k.byID[id]
	if key == nil {
		return Token{}, ErrTokenKey
	}
	// The texts are compared, not what they decode to: a signature has one text.
	if subtle.ConstantTimeCompare([]byte(text[dot+1:]), []byte(key.sign(text[:dot]))) != 1 {
		return Token{}, ErrTokenSignature
	}
	t, err := parsePayload(payload)
	switch {
	case err != nil:
		return Token{}, err
	case t.Namespace != who.Namespace || t.Subject != who.Subject:
		return Token{}, ErrTokenForeign
	case !now.Before(t.Expires):
		return Token{}, ErrTokenExpired
	}
	return t, nil
}

// parsePayload reads a payload whose signature was found to be right.
func parsePayload(text string) (Token, error) {
	rest, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Token{}, ErrTokenMalformed
	}
	var parts [3]string
	for i := range parts {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n) {
			return Token{}, ErrTokenMalformed
		}
		parts[i], rest = string(rest[n:n+int(length)]), rest[n+int(length):]
	}
	issued, n := binary.Varint(rest)
	lifetime, m := binary.Varint(rest[max(n, 0):])
	held := Held{Namespace: parts[0], ID: parts[2]}
	if n <= 0 || m <= 0 || n+m != len(rest) || checkSubject(parts[1]) != nil || held.Check() != nil {
		return Token{}, ErrTokenMalformed
	}
	return Token{
		Namespace: parts[0], Subject: parts[1], Session: parts[2],
		Issued: time.Unix(issued, 0).UTC(), Expires: time.Unix(issued+lifetime, 0).UTC(),
	}, nil
}

// Renew reports whether a token is older than half the lifetime, so that its
// client should get a new one.
func (k *Keys) Renew(t Token, now time.Time) bool {
	return now.Sub(t.Issued) > k.lifetime/2
}

// A signer signs tokens by one key.
type signer struct {
	id string
	// sign returns the text of the signature of a text. It alone holds what is
	// derived from the secret: a function isn't looked into by what prints.
	sign func(text string) string
}

func newSigner(k Key) *signer {
	mac := hmac.New(sha256.New, k.Secret)
	mac.Write([]byte(tokenLabel))
	derived := mac.Sum(nil)
	return &signer{id: k.ID, sign: func(text string) string {
		mac := hmac.New(sha256.New, derived)
		mac.Write([]byte(text))
		return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}}
}
