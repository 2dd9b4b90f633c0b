package jwtauth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/server/jwtauth"
	"github.com/throughline/throughline/session"
)

const (
	issuer   = "https://login.example.com/"
	audience = "https://chat.example.com"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// The keys of the tests, each drawn once. r1 signs RS256, and so on; r2 is
// another RSA key of the issuer's; the thief's keys are nobody's.
var (
	r1        = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	r2        = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	weak      = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(1024) })
	e1        = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P256()) })
	e3        = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P384()) })
	e5        = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P521()) })
	d1        = sync.OnceValue(newEd25519)
	thief     = sync.OnceValue(func() *ecdsa.PrivateKey { return newEC(elliptic.P256()) })
	thiefRSA  = r2 // where r2 isn't among the issuer's
	thiefEd   = sync.OnceValue(newEd25519)
	b64       = base64.RawURLEncoding
	discarded = slog.New(slog.DiscardHandler)
)

func newRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func newEd25519() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

// pemOf returns the public half of a key as PEM.
func pemOf(k crypto.Signer) []byte {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Signatures, made here by the standard library alone.

func hs256(secret []byte) func(string) []byte {
	return func(text string) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
}

// signed has the signatures that were made by RSA, which takes long.
var signed sync.Map

func rsaBy(k *rsa.PrivateKey, hash crypto.Hash) func(string) []byte {
	return func(text string) []byte {
		type what struct {
			by   *rsa.PrivateKey
			hash crypto.Hash
			text string
		}
		if signature, there := signed.Load(what{k, hash, text}); there {
			return signature.([]byte)
		}
		signature, err := rsa.SignPKCS1v15(nil, k, hash, sum(hash, text))
		if err != nil {
			panic(err)
		}
		signed.Store(what{k, hash, text}, signature)
		return signature
	}
}

func rs256(k *rsa.PrivateKey) func(string) []byte { return rsaBy(k, crypto.SHA256) }

// ecdsaBy signs by a key and a hash of any size, as r and s of size bytes each.
func ecdsaBy(k *ecdsa.PrivateKey, hash crypto.Hash, size int) func(string) []byte {
	return func(text string) []byte {
		r, s, err := ecdsa.Sign(rand.Reader, k, sum(hash, text))
		if err != nil {
			panic(err)
		}
		return join(r, s, size)
	}
}

func es256(k *ecdsa.PrivateKey) func(string) []byte { return ecdsaBy(k, crypto.SHA256, 32) }

func edDSA(k ed25519.PrivateKey) func(string) []byte {
	return func(text string) []byte { return ed25519.Sign(k, []byte(text)) }
}

func sum(hash crypto.Hash, text string) []byte {
	h := hash.New()
	h.Write([]byte(text))
	return h.Sum(nil)
}

func join(r, s *big.Int, size int) []byte {
	both := make([]byte, 2*size)
	r.FillBytes(both[:size])
	s.FillBytes(both[size:])
	return both
}

// A forged token is what a test sends. As [control] makes it, it is good; an
// attack changes one thing.
type forged struct {
	header, claims map[string]any
	// What is done to the JSON of both, once they are text.
	headerText, claimsText func(string) string
	sign                   func(text string) []byte
	// What is done to the token.
	token func(string) string
	// How it is sent. Default: as a Bearer.
	send func(r *http.Request, token string)
}

// control returns a token that is good for half an hour, signed by alg's key.
func control(alg string) *forged {
	f := &forged{
		header: map[string]any{"alg": alg, "typ": "JWT"},
		claims: map[string]any{
			"iss": issuer, "aud": audience, "sub": "ann", "org": "shop",
			"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(30 * time.Minute).Unix(),
		},
	}
	switch alg {
	case "HS256":
		f.sign = hs256(secret)
	case "RS256":
		f.sign, f.header["kid"] = rs256(r1()), "r1"
	case "ES256":
		f.sign, f.header["kid"] = es256(e1()), "e1"
	case "ES384":
		f.sign, f.header["kid"] = ecdsaBy(e3(), crypto.SHA384, 48), "e3"
	case "EdDSA":
		f.sign, f.header["kid"] = edDSA(d1()), "d1"
	}
	return f
}

// text returns the token.
func (f *forged) text() string {
	text := b64.EncodeToString([]byte(textOf(f.header, f.headerText))) + "." +
		b64.EncodeToString([]byte(textOf(f.claims, f.claimsText)))
	text += "." + b64.EncodeToString(f.sign(text))
	if f.token != nil {
		text = f.token(text)
	}
	return text
}

func textOf(members map[string]any, edit func(string) string) string {
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	if edit != nil {
		return edit(string(text))
	}
	return string(text)
}

// request returns a request with the token.
func (f *forged) request() *http.Request {
	r := httptest.NewRequest("GET", "https://chat.example.com/realtime/", nil)
	if f.send != nil {
		f.send(r, f.text())
	} else {
		r.Header.Set("Authorization", "Bearer "+f.text())
	}
	return r
}

// mustNew returns an authenticator, with what the issuer of [control] wants.
func mustNew(t testing.TB, o jwtauth.Options) *jwtauth.Authenticator {
	t.Helper()
	if o.Issuer == "" {
		o.Issuer, o.Audience = issuer, []string{"https://other.example.com", audience}
	}
	if o.Logger == nil {
		o.Logger = discarded
	}
	a, err := jwtauth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// issuersKeys are those that the tokens of [control] are signed by.
func issuersKeys() []jwtauth.PublicKey {
	return []jwtauth.PublicKey{
		{ID: "r1", PEM: pemOf(r1())},
		{ID: "e1", PEM: pemOf(e1())},
		{ID: "e3", PEM: pemOf(e3())},
		{ID: "d1", PEM: pemOf(d1())},
	}
}

// asymmetric are their algorithms.
func asymmetric() []string { return []string{"RS256", "ES256", "ES384", "EdDSA"} }

// mustPass reports whether a token is taken for ann's.
func mustPass(t testing.TB, a *jwtauth.Authenticator, f *forged) session.Identity {
	t.Helper()
	id, err := a.Authenticate(f.request())
	if err != nil || id.Subject != "ann" {
		t.Fatalf("a good token made %q, %v", id.Subject, err)
	}
	return id
}

// authenticate is a call with a context.
func authenticate(ctx context.Context, a *jwtauth.Authenticator, f *forged) error {
	_, err := a.Authenticate(f.request().WithContext(ctx))
	return err
}

// quotes reports whether an error's text holds a piece of the token.
func quotes(err error, token string) bool {
	pieces := []string{token}
	for _, part := range strings.SplitN(token, ".", 4) {
		if plain, err := b64.DecodeString(part); err == nil {
			pieces = append(pieces, string(plain))
		}
	}
	said := err.Error()
	for at := 0; at+8 <= len(said); at++ {
		for _, piece := range pieces {
			if strings.Contains(piece, said[at:at+8]) {
				return true
			}
		}
	}
	return false
}
