package jwtauth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/server/jwtauth"
)

func hmacBy(secret []byte, hash crypto.Hash) func(string) []byte {
	return func(text string) []byte {
		mac := hmac.New(hash.New, secret)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
}

func pss(hash crypto.Hash) crypto.SignerOpts {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
}

// JWKs of public keys.

func ecJWK(kid string, k *ecdsa.PrivateKey) map[string]any {
	point, err := k.PublicKey.Bytes() // 4, x, y
	if err != nil {
		panic(err)
	}
	half := len(point) / 2
	return map[string]any{
		"kty": "EC", "kid": kid, "crv": k.Curve.Params().Name,
		"x": b64.EncodeToString(point[1 : 1+half]), "y": b64.EncodeToString(point[1+half:]),
	}
}

func rsaJWK(kid string, k *rsa.PrivateKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "kid": kid,
		"n": b64.EncodeToString(k.N.Bytes()), "e": b64.EncodeToString(big.NewInt(int64(k.E)).Bytes()),
	}
}

func edJWK(kid string, k ed25519.PrivateKey) map[string]any {
	return map[string]any{"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": b64.EncodeToString(k.Public().(ed25519.PublicKey))}
}

// with returns a JWK with more members; nil takes one away.
func with(jwk map[string]any, name string, value any) map[string]any {
	jwk = maps.Clone(jwk)
	if jwk[name] = value; value == nil {
		delete(jwk, name)
	}
	return jwk
}

func keySet(keys ...any) string {
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// An issuer is who has the keys, on a network in memory.
type fakeIssuer struct {
	requests atomic.Int64

	mu     sync.Mutex
	answer http.HandlerFunc
}

func (i *fakeIssuer) set(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

// has makes it answer a set.
func (i *fakeIssuer) has(keys ...any) { i.says(keySet(keys...)) }

func (i *fakeIssuer) says(text string) {
	i.set(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

func (i *fakeIssuer) away() {
	i.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
}

func (i *fakeIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.requests.Add(1)
	i.mu.Lock()
	answer := i.answer
	i.mu.Unlock()
	answer(w, r)
}

// after answers as before, but late.
func (i *fakeIssuer) after(delay time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.answer
	i.answer = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(delay):
			before(w, r)
		case <-r.Context().Done():
		}
	}
}

// withIssuer runs a test with an issuer whose only key is e1, by fake time.
func withIssuer(t *testing.T, test func(t *testing.T, i *fakeIssuer, o jwtauth.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		i, network := &fakeIssuer{}, memnet.New()
		i.has(ecJWK("e1", e1()))
		server := &http.Server{Handler: i, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		go server.Serve(network)
		t.Cleanup(func() { server.Close() })
		test(t, i, jwtauth.Options{
			JWKS:      "http://127.0.0.1/jwks.json",
			Transport: &http.Transport{DialContext: network.Dial, DisableKeepAlives: true},
		})
	})
}

// es returns a token of the issuer's by an ECDSA key of this kid.
func es(kid string, k *ecdsa.PrivateKey) *forged {
	f := control("ES256")
	f.sign = es256(k)
	if f.header["kid"] = kid; kid == "" {
		delete(f.header, "kid")
	}
	return f
}

// expect reports what becomes of a token that isn't what it should be.
func expect(t *testing.T, a *jwtauth.Authenticator, f *forged, want error, what string) {
	t.Helper()
	if err := authenticate(t.Context(), a, f); !errors.Is(err, want) {
		t.Errorf("%s: %v, not %v", what, err, want)
	}
}

func TestJWKSKeys(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		i.has(ecJWK("e1", e1()), rsaJWK("r1", r1()), edJWK("d1", d1()), with(ecJWK("e3", e3()), "use", "sig"),
			with(with(ecJWK("e9", e1()), "key_ops", []string{"verify"}), "alg", "ES256"))
		o.Algorithms = asymmetric()
		a := mustNew(t, o)
		for _, alg := range asymmetric() {
			mustPass(t, a, control(alg)) // the first waits for the first fetch
		}
		mustPass(t, a, es("e9", e1()))
		mustPass(t, a, es("", e1()))
		if n := i.requests.Load(); n != 1 {
			t.Errorf("%d requests, not 1", n)
		}
	})
}

// TestJWKSKeysNotUsed: each of these keys is left out, and takes no other with
// it.
func TestJWKSKeysNotUsed(t *testing.T) {
	private := b64.EncodeToString(thief().D.FillBytes(make([]byte, 32))) //nolint:staticcheck // JWK has it so
	bad := ecJWK("k", thief())
	for name, jwk := range map[string]any{
		"for encryption":              with(bad, "use", "enc"),
		"for something else":          with(bad, "use", "tls"),
		"key_ops without verify":      with(bad, "key_ops", []string{"sign", "deriveKey"}),
		"key_ops empty":               with(bad, "key_ops", []string{}),
		"use and key_ops disagree":    with(with(bad, "use", "sig"), "key_ops", []string{"encrypt"}),
		"with its private half":       with(bad, "d", private),
		"alg of encryption":           with(bad, "alg", "ECDH-ES"),
		"alg not configured":          with(bad, "alg", "ES384"),
		"alg of a secret":             with(bad, "alg", "HS256"),
		"alg none":                    with(bad, "alg", "none"),
		"symmetric":                   map[string]any{"kty": "oct", "kid": "k", "k": b64.EncodeToString(secret)},
		"symmetric, alg ES256":        map[string]any{"kty": "oct", "kid": "k", "alg": "ES256", "k": b64.EncodeToString(secret)},
		"with a symmetric half":       with(bad, "k", b64.EncodeToString(secret)),
		"a point that isn't there":    with(bad, "x", bad["y"]),
		"no point":                    with(bad, "x", nil),
		"another curve":               with(bad, "crv", "P-384"),
		"secp256k1":                   with(bad, "crv", "secp256k1"),
		"a type nobody knows":         with(bad, "kty", "AKP"),
		"no type":                     with(bad, "kty", nil),
		"a type that is a number":     with(bad, "kty", 1),
		"a number":                    7,
		"null":                        nil,
		"on P-384, without algorithm": ecJWK("k", e3()),
		"of RSA, with 1024 bits":      rsaJWK("k", weak()),
		"of RSA, with exponent 1":     with(rsaJWK("k", r2()), "e", "AQ"),
	} {
		t.Run(name, func(t *testing.T) {
			withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
				i.has(jwk, ecJWK("e1", e1()))
				a := mustNew(t, o)
				mustPass(t, a, es("e1", e1()))
				for _, f := range []*forged{es("k", thief()), es("", thief())} {
					expect(t, a, f, refused, "by that key")
				}
				f := control("RS256")
				f.header["kid"], f.sign = "k", rsaBy(r2(), crypto.SHA256)
				expect(t, a, f, refused, "by that key, of RSA")
				f = control("HS256")
				f.header["kid"] = "k"
				expect(t, a, f, refused, "by that key, as a secret")
			})
		})
	}
}

// TestJWKSKeyOfOneAlgorithm: a key whose alg is RS512 doesn't verify RS256,
// whether or not the token names it.
func TestJWKSKeyOfOneAlgorithm(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		i.has(with(rsaJWK("r1", r1()), "alg", "RS512"))
		o.Algorithms = []string{"RS256", "RS512"}
		a := mustNew(t, o)
		for _, kid := range []any{"r1", nil} {
			for alg, want := range map[string]error{"RS512": nil, "RS256": refused} {
				f := control("RS256")
				f.header["alg"], f.header["kid"], f.sign = alg, kid, rsaBy(r1(), map[string]crypto.Hash{"RS256": crypto.SHA256, "RS512": crypto.SHA512}[alg])
				if kid == nil {
					delete(f.header, "kid")
				}
				expect(t, a, f, want, alg)
			}
		}
	})
}

// TestJWKSCertificatesAreNotRead: neither what a key says about certificates
// nor where it says they are has any effect.
func TestJWKSCertificatesAreNotRead(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		jwk := with(ecJWK("e1", e1()), "x5c", []string{base64.StdEncoding.EncodeToString(certificate(thief()))})
		i.has(with(jwk, "x5u", "http://127.0.0.1/certificate"))
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		expect(t, a, es("e1", thief()), refused, "by the certificate's key")
		if n := i.requests.Load(); n != 1 {
			t.Errorf("%d requests, not 1", n)
		}
	})
}

// TestRotation: a new key is known with the first token that names it, and an
// old one is not any more.
func TestRotation(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		i.has(ecJWK("e2", thief()), ecJWK("e1", e1()))
		mustPass(t, a, es("e2", thief()))
		mustPass(t, a, es("e1", e1()))
		if n := i.requests.Load(); n != 2 {
			t.Errorf("%d requests, not 2", n)
		}
		i.has(ecJWK("e2", thief()))
		time.Sleep(time.Hour)
		mustPass(t, a, es("e2", thief()))
		expect(t, a, es("e1", e1()), refused, "a key that was taken back, within an hour")
		i.has(ecJWK("e2", e1())) // the kid stays, the key doesn't
		time.Sleep(time.Hour)
		mustPass(t, a, es("e2", e1()))
		expect(t, a, es("e2", thief()), refused, "the key that had this kid")
	})
}

// TestRefreshInterval: without any token it is fetched every hour, or up to
// a tenth sooner.
func TestRefreshInterval(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		mustNew(t, o)
		time.Sleep(100 * time.Hour)
		if n := i.requests.Load(); n < 101 || n > 112 {
			t.Errorf("%d requests in 100 hours", n)
		}
	})
}

// TestUnknownKidsDontFlood: made-up kids have the issuer asked once a minute,
// and harm no others.
func TestUnknownKidsDontFlood(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		a := mustNew(t, o)
		good := es("e1", e1())
		mustPass(t, a, good)
		for second := range 600 {
			var group sync.WaitGroup
			for n := range 3 {
				f := control("ES256")
				f.header["kid"] = fmt.Sprintf("k%d-%d", second, n)
				f.sign = func(string) []byte { return make([]byte, 64) }
				group.Go(func() { expect(t, a, f, refused, "an unknown kid") })
			}
			group.Wait()
			if second%60 == 0 {
				mustPass(t, a, good)
			}
			time.Sleep(time.Second)
		}
		if n := i.requests.Load(); n < 10 || n > 12 {
			t.Errorf("%d requests in 10 minutes", n)
		}
		// What is new is known within the minute, for all that.
		i.has(ecJWK("e2", thief()))
		time.Sleep(time.Minute)
		mustPass(t, a, es("e2", thief()))
	})
}

func TestMinRefetch(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		o.MinRefetch = 5 * time.Second
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		for range 100 {
			expect(t, a, es("x", thief()), refused, "an unknown kid")
			time.Sleep(time.Second)
		}
		if n := i.requests.Load(); n != 21 {
			t.Errorf("%d requests, not 21", n)
		}
	})
}

// TestManyWaitForOneFetch: after a rotation all come with the new key at once.
func TestManyWaitForOneFetch(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		i.has(ecJWK("e2", thief()), ecJWK("e1", e1()))
		i.after(2 * time.Second)
		began := time.Now()
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { expect(t, a, es("e2", thief()), nil, "the new key") })
		}
		group.Go(func() {
			expect(t, a, es("e1", e1()), nil, "the old key")
			if waited := time.Since(began); waited != 0 {
				t.Errorf("the old key waited for %v", waited)
			}
		})
		group.Wait()
		if n, took := i.requests.Load(), time.Since(began); n != 2 || took > 3*time.Second {
			t.Errorf("%d requests, not 2, in %v", n, took)
		}
	})
}

// TestWhoGivesUpTakesNothing: a client that has keys fetched and goes away
// doesn't end the fetch.
func TestWhoGivesUpTakesNothing(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		i.has(ecJWK("e2", thief()))
		i.after(2 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := authenticate(ctx, a, es("e2", thief())); !errors.Is(err, jwtauth.ErrUnavailable) {
			t.Errorf("given up: %v", err)
		}
		mustPass(t, a, es("e2", thief()))
		if n := i.requests.Load(); n != 2 {
			t.Errorf("%d requests, not 2", n)
		}
	})
}

// records counts what is logged from info up.
type records struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (r *records) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	r.lines = append(r.lines, line)
	return nil
}

// take returns what was logged since it was called last.
func (r *records) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.lines = nil }()
	return strings.Join(r.lines, "\n")
}

// logged reports whether one line was, with this in it.
func logged(t *testing.T, r *records, pieces ...string) {
	t.Helper()
	synctest.Wait() // a fetch is logged after it ended
	text := r.take()
	for _, piece := range pieces {
		if !strings.Contains(text, piece) {
			t.Errorf("the log says %q, not %q", text, piece)
		}
	}
	if strings.Contains(text, "\n") || (len(pieces) == 0) != (text == "") {
		t.Errorf("the log says %q", text)
	}
}

// TestIssuerIsAwayAtStart: the program starts, says that it doesn't know, and
// knows soon after the issuer came.
func TestIssuerIsAwayAtStart(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		log := &records{Handler: slog.DiscardHandler}
		o.Logger = slog.New(log)
		i.away()
		a := mustNew(t, o)
		for range 30 {
			expect(t, a, es("e1", e1()), jwtauth.ErrUnavailable, "without keys")
			expect(t, a, es("", e1()), jwtauth.ErrUnavailable, "without keys, no kid")
			expect(t, a, control("HS256"), refused, "without keys, an algorithm that isn't accepted")
			time.Sleep(2 * time.Second)
		}
		logged(t, log, "WARN", "503", "127.0.0.1/jwks.json")
		if n := i.requests.Load(); n < 4 || n > 10 {
			t.Errorf("%d requests in a minute", n)
		}
		i.has(ecJWK("e1", e1()))
		time.Sleep(time.Minute)
		mustPass(t, a, es("e1", e1()))
		logged(t, log, "INFO", "again")
		time.Sleep(24 * time.Hour)
		logged(t, log)
	})
}

// TestIssuerComesSoonAfter: who starts a moment later than the program is found
// a moment later.
func TestIssuerComesSoonAfter(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		i.away()
		a := mustNew(t, o)
		time.Sleep(500 * time.Millisecond)
		i.has(ecJWK("e1", e1()))
		time.Sleep(time.Second)
		mustPass(t, a, es("e1", e1()))
	})
}

// TestIssuerIsAwayLater: the keys that were had stay in use.
func TestIssuerIsAwayLater(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		log := &records{Handler: slog.DiscardHandler}
		o.Logger = slog.New(log)
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		logged(t, log)
		i.away()
		for range 48 {
			time.Sleep(time.Hour)
			mustPass(t, a, es("e1", e1()))
			expect(t, a, es("e1", thief()), refused, "a wrong signature")
		}
		expect(t, a, es("e2", thief()), jwtauth.ErrUnavailable, "a key that may be new")
		logged(t, log, "WARN")
		// At most one a minute, and a tenth more.
		if n := i.requests.Load(); n > 48*60*11/10 {
			t.Errorf("%d requests in 48 hours", n)
		}
		i.has(ecJWK("e2", thief()))
		time.Sleep(time.Minute)
		mustPass(t, a, es("e2", thief()))
		expect(t, a, es("e1", e1()), refused, "the old key")
		logged(t, log, "INFO")
	})
}

// TestIssuerIsSlow: a request waits for at most FetchTimeout, or its context.
func TestIssuerIsSlow(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		i.after(time.Minute)
		began := time.Now()
		a := mustNew(t, o)
		if time.Since(began) != 0 {
			t.Errorf("New waited for %v", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := authenticate(ctx, a, es("e1", e1())); !errors.Is(err, jwtauth.ErrUnavailable) || time.Since(began) != 3*time.Second {
			t.Errorf("with a context of 3 s: %v after %v", err, time.Since(began))
		}
		expect(t, a, es("e1", e1()), jwtauth.ErrUnavailable, "a slow issuer")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v, not 10 s", took)
		}
		i.has(ecJWK("e1", e1()))
		i.after(9 * time.Second)
		time.Sleep(time.Minute)
		mustPass(t, a, es("e1", e1()))
	})
}

// TestIssuerDrips: the timeout bounds the whole answer, not only its beginning.
func TestIssuerDrips(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		i.set(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		})
		began := time.Now()
		a := mustNew(t, o)
		expect(t, a, es("e1", e1()), jwtauth.ErrUnavailable, "an issuer that drips")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v, not 10 s", took)
		}
	})
}

// TestBadAnswers: none of these replaces the keys that were had.
func TestBadAnswers(t *testing.T) {
	good := keySet(ecJWK("e2", thief()))
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	var many []any
	for n := range 101 {
		many = append(many, ecJWK(fmt.Sprint(n), thief()))
	}
	for name, answer := range map[string]http.HandlerFunc{
		"404": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, good)
		},
		"204":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"nothing":        says(""),
		"a page":         says("<html>we are sorry</html>"),
		"an error":       says(`{"error":"try again"}`),
		"null":           says("null"),
		"a list":         says("[]"),
		"keys are null":  says(`{"keys":null}`),
		"keys are a key": says(`{"keys":{"kty":"EC"}}`),
		"it breaks off":  says(good[:len(good)-2]),
		"it goes on":     says(good + "x"),
		"more than 100":  says(keySet(many...)),
		"it is cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000")
			io.WriteString(w, good)
		},
		"longer than 1 MiB":             says(strings.Repeat(" ", 1<<20) + good),
		"longer than 1 MiB, at its end": says(good + strings.Repeat(" ", 1<<20)),
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 32<<10))
			}
		},
		"longer than 1 MiB, packed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(bytes.Repeat([]byte(" "), 2<<20))
			io.WriteString(z, good)
			z.Close()
		},
		"a redirect to another scheme": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1/", http.StatusFound)
		},
		"a redirect to another host": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example.com/", http.StatusFound)
		},
		"a redirect to itself": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/jwks.json", http.StatusFound) },
	} {
		t.Run(name, func(t *testing.T) {
			withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
				log := &records{Handler: slog.DiscardHandler}
				o.Logger = slog.New(log)
				a := mustNew(t, o)
				mustPass(t, a, es("e1", e1()))
				i.set(answer)
				expect(t, a, es("e2", thief()), jwtauth.ErrUnavailable, "a key that may be new")
				mustPass(t, a, es("e1", e1()))
				logged(t, log, "WARN")
				i.says(good)
				time.Sleep(time.Minute)
				mustPass(t, a, es("e2", thief()))
			})
		})
	}
}

// TestAllKeysAreTakenBack: a set without keys is an answer, too.
func TestAllKeysAreTakenBack(t *testing.T) {
	for name, keys := range map[string][]any{"empty": {}, "of no use": {with(ecJWK("e1", e1()), "use", "enc")}} {
		t.Run(name, func(t *testing.T) {
			withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
				log := &records{Handler: slog.DiscardHandler}
				o.Logger = slog.New(log)
				a := mustNew(t, o)
				mustPass(t, a, es("e1", e1()))
				i.has(keys...)
				time.Sleep(time.Hour)
				expect(t, a, es("e1", e1()), jwtauth.ErrUnavailable, "no keys")
				logged(t, log, "WARN", "none of its keys")
				i.has(ecJWK("e1", e1()))
				time.Sleep(time.Minute)
				mustPass(t, a, es("e1", e1()))
			})
		})
	}
}

// TestRedirects: https stays https, on whatever host.
func TestRedirects(t *testing.T) {
	for to, want := range map[string]error{
		"https://keys.example.com/jwks.json": nil,
		"http://login.example.com/jwks.json": jwtauth.ErrUnavailable,
		"http://127.0.0.1/jwks.json":         jwtauth.ErrUnavailable,
		"https://ann:x@keys.example.com/":    jwtauth.ErrUnavailable,
		"file:///etc/passwd":                 jwtauth.ErrUnavailable,
	} {
		t.Run(to, func(t *testing.T) {
			target, err := url.Parse(to)
			if err != nil {
				t.Fatal(err)
			}
			var asked atomic.Int64
			a := mustNew(t, jwtauth.Options{
				JWKS: "https://login.example.com/jwks.json", Issuer: issuer, Audience: []string{audience},
				Transport: roundTripper(func(r *http.Request) *http.Response {
					w := httptest.NewRecorder()
					if r.URL.Host == "login.example.com" && r.URL.Scheme == "https" {
						http.Redirect(w, r, target.String(), http.StatusFound)
					} else {
						asked.Add(1)
						io.WriteString(w, keySet(ecJWK("e1", e1())))
					}
					return w.Result()
				}),
			})
			expect(t, a, es("e1", e1()), want, "a redirect")
			if (want == nil) != (asked.Load() == 1) {
				t.Errorf("the other was asked %d times", asked.Load())
			}
		})
	}
}

type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// TestOwnTransport fetches over a real network, by what New makes.
func TestOwnTransport(t *testing.T) {
	i := &fakeIssuer{}
	i.has(ecJWK("e1", e1()))
	server := httptest.NewServer(i)
	defer server.Close()
	a := mustNew(t, jwtauth.Options{JWKS: server.URL})
	mustPass(t, a, es("e1", e1()))

	tls := httptest.NewTLSServer(i) // whose certificate nobody vouches for
	defer tls.Close()
	tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	a = mustNew(t, jwtauth.Options{JWKS: tls.URL})
	expect(t, a, es("e1", e1()), jwtauth.ErrUnavailable, "a certificate nobody vouches for")
}

// TestClose: it waits for what is under way, and leaves the keys that were had.
func TestClose(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		a := mustNew(t, o)
		mustPass(t, a, es("e1", e1()))
		i.after(time.Hour)
		began := time.Now()
		waiting := make(chan error)
		go func() { waiting <- authenticate(t.Context(), a, es("e2", thief())) }()
		synctest.Wait()
		if err := errors.Join(a.Close(), a.Close()); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, jwtauth.ErrUnavailable) {
			t.Errorf("who waited: %v", err)
		}
		mustPass(t, a, es("e1", e1()))
		for range 3 {
			time.Sleep(2 * time.Minute)
			expect(t, a, es("e2", thief()), jwtauth.ErrUnavailable, "after Close")
		}
		if n := i.requests.Load(); n != 2 || time.Since(began) != 6*time.Minute {
			t.Errorf("%d requests, not 2, in %v", n, time.Since(began))
		}
	})
}

// TestCloseWaits: when it returns, nothing is under way any more.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		a := mustNew(t, jwtauth.Options{JWKS: "https://login.example.com/", Transport: roundTripper(func(r *http.Request) *http.Response {
			<-r.Context().Done()
			time.Sleep(time.Second)
			ended.Store(true)
			return httptest.NewRecorder().Result()
		})})
		synctest.Wait()
		if err := a.Close(); err != nil || !ended.Load() {
			t.Errorf("Close returned %v before its fetch ended", err)
		}
	})
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	withIssuer(t, func(t *testing.T, i *fakeIssuer, o jwtauth.Options) {
		o.MinRefetch, o.RefreshInterval = time.Millisecond, 2*time.Millisecond
		a := mustNew(t, o)
		var group sync.WaitGroup
		for n := range 8 {
			group.Go(func() {
				for range 20 {
					expect(t, a, es("e1", e1()), nil, "a good token")
					expect(t, a, es(fmt.Sprint("k", n), thief()), refused, "an unknown kid")
					time.Sleep(time.Millisecond)
				}
			})
		}
		group.Wait()
	})
}
