package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// Why a request isn't let in. What [Authenticator.Authenticate] returns wraps
// one of them and says more, for the log: it holds nothing of the token.
var (
	// ErrNoToken: there is none, neither in the header nor in the cookie.
	ErrNoToken = errors.New("jwtauth: no token")
	// ErrExpired: nothing is wrong with it but that its time is over.
	ErrExpired = errors.New("jwtauth: token has expired")
	// ErrRefused: it isn't good, or there is more than one.
	ErrRefused = errors.New("jwtauth: token refused")
	// ErrUnavailable: whether it is good isn't known, since the issuer's keys
	// can't be had. It may be later, and a client is told so.
	ErrUnavailable = errors.New("jwtauth: the issuer's keys can't be had")
)

// A refusal is one of the errors above, and why.
type refusal struct {
	kind error
	why  string
}

func (r *refusal) Error() string { return r.kind.Error() + ": " + r.why }

func (r *refusal) Unwrap() error { return r.kind }

func refuse(why string) error { return &refusal{kind: ErrRefused, why: why} }

// Claims are those of a token that is good, by name. Numbers are
// [json.Number], so that no digit of a long id is lost; all else is as
// encoding/json has it.
type Claims map[string]any

// An Authenticator finds out by tokens who makes requests. It may be used
// concurrently. Its secret isn't shown when it is printed.
type Authenticator struct {
	// Static after New.
	o      Options // without its keys
	parser *jwt.Parser
	// find returns the keys that a token of this kid and algorithm is tried on.
	// It alone holds the keys.
	find  func(ctx context.Context, kid, alg string) ([]any, error)
	close func()
}

// New returns an authenticator. The error tells which option can't be used;
// that the issuer is away is none.
func New(o Options) (*Authenticator, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Authenticator{
		parser: jwt.NewParser(
			jwt.WithValidMethods(o.Algorithms),
			jwt.WithStrictDecoding(),
			jwt.WithExpirationRequired(),
			jwt.WithIssuedAt(),
			jwt.WithLeeway(o.Leeway),
			jwt.WithIssuer(o.Issuer),        // no check if empty
			jwt.WithAudience(o.Audience...), // no check if none
		),
		close: func() {},
	}
	switch {
	case o.JWKS != "":
		issuer, err := newIssuer(o)
		if err != nil {
			return nil, err
		}
		a.find, a.close = issuer.find, issuer.close
	case o.Secret != nil:
		secret, err := newSecret(o.Secret, o.Algorithms)
		if err != nil {
			return nil, err
		}
		a.find = fixed(keySet{keys: []key{secret}, anonymous: true})
	default:
		keys, err := publicKeys(o.PublicKeys, o.Algorithms)
		if err != nil {
			return nil, err
		}
		a.find = fixed(keySet{keys: keys, anonymous: true})
	}
	o.Secret, o.PublicKeys = nil, nil
	a.o = o
	return a, nil
}

// fixed finds keys in a set that was configured.
func fixed(s keySet) func(context.Context, string, string) ([]any, error) {
	return func(_ context.Context, kid, alg string) ([]any, error) {
		found, known := s.find(kid, alg)
		switch {
		case !known:
			return nil, errUnknownKey
		case len(found) == 0:
			return nil, errOtherAlgorithm
		}
		return found, nil
	}
}

// Close ends what fetches keys, and waits for it. It may be called again;
// what is asked later is answered by the keys that were had.
func (a *Authenticator) Close() error {
	a.close()
	return nil
}

// Authenticate says who makes a request. It is what server.Options.Authenticate
// wants. The error wraps one of those above. It waits for the issuer's keys if
// they are being fetched and the token needs them, within FetchTimeout and the
// request's context.
func (a *Authenticator) Authenticate(r *http.Request) (session.Identity, error) {
	text, err := a.token(r)
	if err != nil {
		return session.Identity{}, err
	}
	if text == "" {
		if a.o.Optional {
			return session.Identity{}, nil
		}
		return session.Identity{}, ErrNoToken
	}
	claims, err := a.verify(r.Context(), text)
	if err != nil {
		return session.Identity{}, told(err)
	}
	return a.identity(claims)
}

// told makes those errors refusals after which a client does well to come back:
// with a fresh token, or when the issuer is there again.
func told(err error) error {
	switch {
	case errors.Is(err, ErrExpired):
		return (&transport.Refusal{Reason: transport.Reason{
			Code: transport.CodeExpired, Class: transport.Now, Message: "the token has expired: come back with a fresh one",
		}}).Because(err)
	case errors.Is(err, ErrUnavailable):
		return transport.RefuseFor(5*time.Second, transport.CodeUnavailable, "whether the token is good can't be found out now").Because(err)
	}
	return err
}

// token returns the token of a request, or "" if there is none.
func (a *Authenticator) token(r *http.Request) (string, error) {
	text, err := bearer(r.Header.Values("Authorization"))
	if text != "" || err != nil || a.o.Cookie == "" {
		return text, err
	}
	cookies := r.CookiesNamed(a.o.Cookie)
	switch {
	case len(cookies) == 0:
		return "", nil
	case len(cookies) > 1: // one may be from another host of the domain (RFC 6265 §8.6)
		return "", refuse("there are several cookies of that name")
	case cookies[0].Value == "":
		return "", nil // as programs make it that can't delete it
	}
	return cookies[0].Value, nil
}

// bearer returns the token of an Authorization header (RFC 6750 §2.1), or "" if
// it is of another scheme, which something else may want: a proxy, for example.
func bearer(headers []string) (string, error) {
	switch {
	case len(headers) == 0:
		return "", nil
	case len(headers) > 1: // RFC 9110 §5.3: it isn't a list
		return "", refuse("there are several Authorization headers")
	}
	scheme, rest, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	text := strings.TrimLeft(rest, " ")
	if text == "" {
		return "", refuse("there is none after Bearer")
	}
	return text, nil
}

// identity makes an identity of the claims of a token that is good.
func (a *Authenticator) identity(p payload) (session.Identity, error) {
	expires, err := p.GetExpirationTime()
	if err != nil {
		return session.Identity{}, err
	}
	claims := Claims(p)
	identify := a.o.Identity
	if identify == nil {
		identify = a.defaultIdentity
	}
	id, err := identify(claims)
	if err != nil {
		return session.Identity{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := id.Check(); err != nil {
		return session.Identity{}, fmt.Errorf("%w: its claims make no identity: %w", ErrRefused, err)
	}
	if id.Expires.IsZero() || id.Expires.After(expires.Time) {
		id.Expires = expires.UTC()
	}
	return id, nil
}

var (
	errNoSubject   = errors.New("its sub claim is not the name of somebody")
	errNoNamespace = errors.New("the claim that should be its namespace is not a name")
)

func (a *Authenticator) defaultIdentity(c Claims) (session.Identity, error) {
	id := session.Identity{Claims: c}
	var ok bool
	if id.Subject, ok = name(c["sub"]); !ok {
		return session.Identity{}, errNoSubject
	}
	if a.o.NamespaceClaim == "" {
		return id, nil
	}
	// Without a namespace it would be in that of everybody who has none.
	if id.Namespace, ok = name(c[a.o.NamespaceClaim]); !ok {
		return session.Identity{}, errNoNamespace
	}
	return id, nil
}

// name returns a claim that is a name. Halves of surrogate pairs all become
// U+FFFD when JSON is read (RFC 8259 §8.2), so that different names would
// become one.
func name(claim any) (string, bool) {
	s, ok := claim.(string)
	return s, ok && s != "" && !strings.ContainsRune(s, utf8.RuneError)
}

// datesEnd is the last second that is a date by RFC 3339: the end of 9999.
const datesEnd = 253402300799

// date turns seconds since 1970 into a time.
func date(seconds float64) (*jwt.NumericDate, bool) {
	if !(seconds >= 0 && seconds <= datesEnd) { // not a number is neither
		return nil, false
	}
	return jwt.NewNumericDate(time.Unix(int64(seconds), 0)), true
}
