package jwtauth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/throughline/throughline/session"
)

// MinSecret is the fewest bytes of [Options.Secret]; HS384 and HS512 want 48
// and 64 (RFC 7518 §3.2).
const MinSecret = 32

// MaxLeeway is the most of [Options.Leeway].
const MaxLeeway = 5 * time.Minute

// Options of an [Authenticator]. Exactly one of Secret, PublicKeys and JWKS
// must be set; the rest works as it is, but for what is said at JWKS.
type Options struct {
	// Secret is what the issuer and this program share: at least [MinSecret]
	// random bytes, and no password. Danger: whoever can verify by it can sign,
	// too.
	Secret []byte
	// PublicKeys are the issuer's.
	PublicKeys []PublicKey
	// JWKS is the address of the issuer's keys, a JWK Set (RFC 7517 §5): https,
	// or http of a loopback host. Issuer and Audience must be set with it, as
	// those keys usually sign for other tenants and programs, too. Only keys
	// that are for signatures are used, and no symmetric ones.
	//
	// The keys are fetched in the background from New on. While they were never
	// had, tokens are refused by [ErrUnavailable]; once they were, they stay in
	// use while the issuer is away. A set that the issuer does answer replaces
	// the old one, and so takes back the keys that are missing from it. At most
	// 100 keys are taken. A token that names its key is tried on that one only,
	// one without a kid on all that fit its algorithm.
	JWKS string

	// Algorithms are those accepted, out of HS256, HS384 and HS512 with
	// a Secret, or RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512
	// and EdDSA (Ed25519) with other keys. A key serves only those that fit it:
	// ES384 is for keys on P-384. Default: HS256 with a Secret; RS256, ES256 and
	// EdDSA with other keys.
	Algorithms []string

	// Issuer is what the iss claim must be, to the letter. Default: it isn't
	// looked at. Danger: without it a token of anybody who has the key is good.
	Issuer string
	// Audience lists the names of this program: the aud claim must hold one of
	// them. Default: it isn't looked at. Danger: without it a token that the
	// issuer made for another program is good here (RFC 8725 §3.9).
	Audience []string
	// Type is what the typ header must be, for example "at+jwt" (RFC 9068 §4):
	// case doesn't matter, nor whether "application/" stands before it. Default:
	// it isn't looked at. Danger: without it an issuer's tokens of other kinds,
	// as its ID tokens, pass if their audience does (RFC 8725 §3.11).
	Type string
	// Leeway is by how much the issuer's clock may differ from ours: a token is
	// good from so much before its nbf and iat until so much after its exp (RFC
	// 7519 §4.1.4). The identity's Expires is the exp itself all the same, and
	// may so have passed: then the server says that the credentials have expired
	// where it could only have said that they aren't good. Default 30 s;
	// negative: none; at most [MaxLeeway].
	Leeway time.Duration

	// NamespaceClaim names the claim that is the identity's namespace, a string.
	// A token without it is refused. Default: the namespace is "".
	NamespaceClaim string
	// Identity makes an identity of the claims of a token that is good; an error
	// refuses it. It may be called by many goroutines. Default: the sub claim,
	// which then must be there, is the subject, that of NamespaceClaim, which
	// goes with the default only, the namespace, and all of them, as [Claims],
	// the claims. Expires is set from exp in any case, unless the function set
	// an earlier time.
	Identity func(Claims) (session.Identity, error)

	// Cookie names a cookie that a token may come in, since pages can't set
	// headers for an EventSource or the handshake of a WebSocket. The
	// Authorization header wins where it has a token. Two cookies of that name
	// are refused. Default: none. Danger: browsers send a cookie with whatever
	// request; the server's check of origins is what stands against that. Let it
	// be HttpOnly, Secure and SameSite, and its name begin with "__Host-", so
	// that no other host of the domain can set it (RFC 6265 §8.6).
	Cookie string
	// Optional lets requests without any token in as nobody: they get the zero
	// identity. A token that isn't good is refused as ever. Default: a request
	// without a token is refused by [ErrNoToken].
	Optional bool
	// MaxToken is the most bytes of a token. Default 8 KiB.
	MaxToken int

	// RefreshInterval is how often the JWKS is fetched; up to a tenth less, so
	// that programs that began together don't fetch together. Default 1 h. It
	// bounds how long a key that the issuer took back stays in use, unless the
	// issuer is away.
	RefreshInterval time.Duration
	// MinRefetch is how often tokens with unknown keys may have the JWKS fetched,
	// as after a rotation: at most once within this. It is also what the delay
	// of repeats grows to while fetching fails, from 1 s on. Default 1 min.
	MinRefetch time.Duration
	// FetchTimeout is how long one fetch may take, and so how long a request may
	// wait for keys; its context bounds it, too. Default 10 s.
	FetchTimeout time.Duration
	// MaxJWKS is the most bytes of a JWKS. Default 1 MiB.
	MaxJWKS int64
	// Transport fetches the JWKS, for a proxy or authorities of certificates of
	// your own. Default: one of its own with Go's settings.
	Transport http.RoundTripper

	// Logger gets the first failure of a row of failures to fetch the JWKS, and
	// that it works again; what becomes of single tokens is for the caller to
	// log. Default: slog.Default().
	Logger *slog.Logger
}

// A PublicKey verifies what its private half signed.
type PublicKey struct {
	// ID is the kid of tokens that it is for, 1 to 64 characters
	// [A-Za-z0-9._~+/=-]. Empty: any kid. A token without a kid is tried on all
	// keys.
	ID string
	// PEM holds one or, without an ID, several blocks: a public key (RFC 7468
	// §13) or a certificate (§5), of RSA from 2048 to 8192 bits, ECDSA or
	// Ed25519. Of a certificate only the key counts: neither its dates nor its
	// issuer are looked at.
	PEM []byte
}

// withDefaults returns o with its zero values replaced, or which option can't
// be used.
func (o Options) withDefaults() (Options, error) {
	setDefault(&o.Leeway, 30*time.Second)
	o.Leeway = max(o.Leeway, 0)
	setDefault(&o.MaxToken, 8<<10)
	setDefault(&o.RefreshInterval, time.Hour)
	setDefault(&o.MinRefetch, time.Minute)
	setDefault(&o.FetchTimeout, 10*time.Second)
	setDefault(&o.MaxJWKS, 1<<20)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []string{"RS256", "ES256", "EdDSA"}
		if o.Secret != nil {
			o.Algorithms = []string{"HS256"}
		}
	}
	o.Algorithms, o.Audience = slices.Clone(o.Algorithms), slices.Clone(o.Audience)
	return o, o.check()
}

func setDefault[T ~int | ~int64](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}

func (o Options) check() error {
	sources := 0
	for _, given := range []bool{o.Secret != nil, o.PublicKeys != nil, o.JWKS != ""} {
		if given {
			sources++
		}
	}
	switch {
	case sources != 1:
		return fmt.Errorf("jwtauth: %d of Secret, PublicKeys and JWKS are set, not exactly one", sources)
	case slices.Contains(o.Audience, ""):
		return errors.New("jwtauth: Audience holds an empty name")
	case o.Leeway > MaxLeeway:
		return fmt.Errorf("jwtauth: Leeway is %v, more than %v", o.Leeway, MaxLeeway)
	case o.JWKS != "" && (o.Issuer == "" || len(o.Audience) == 0):
		return errors.New("jwtauth: a JWKS needs Issuer and Audience: its keys sign for others, too, whose tokens would be good here")
	case o.Identity != nil && o.NamespaceClaim != "":
		return errors.New("jwtauth: NamespaceClaim is set together with Identity, which says the namespace itself")
	case o.Cookie != "" && (&http.Cookie{Name: o.Cookie, Value: "x"}).Valid() != nil:
		return fmt.Errorf("jwtauth: no cookie can have the name %.80q", o.Cookie)
	case o.MaxToken < 0, o.RefreshInterval < 0, o.MinRefetch < 0, o.FetchTimeout < 0, o.MaxJWKS < 0:
		return errors.New("jwtauth: MaxToken, RefreshInterval, MinRefetch, FetchTimeout or MaxJWKS is negative")
	}
	return checkAlgorithms(o.Algorithms, o.Secret != nil)
}
