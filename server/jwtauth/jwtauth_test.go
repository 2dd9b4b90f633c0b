package jwtauth_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server/jwtauth"
	"github.com/throughline/throughline/session"
)

// TestWhatIsGood: what an attack table could refuse by mistake.
func TestWhatIsGood(t *testing.T) {
	cookie := func(f *forged) {
		f.send = func(r *http.Request, token string) { r.AddCookie(&http.Cookie{Name: "__Host-token", Value: token}) }
	}
	sentAs := func(value string) func(*forged) {
		return func(f *forged) {
			f.send = func(r *http.Request, token string) { r.Header.Set("Authorization", value+token) }
		}
	}
	good := map[string]func(*forged){
		"as it is":               func(*forged) {},
		"bearer in small":        sentAs("bearer "),
		"BEARER":                 sentAs("BEARER "),
		"several spaces":         sentAs("Bearer   "),
		"in a cookie":            cookie,
		"aud among others":       claim("aud", []string{"https://a.example.com", audience}),
		"no nbf, no iat":         func(f *forged) { delete(f.claims, "nbf"); delete(f.claims, "iat") },
		"nbf within the leeway":  func(f *forged) { f.claims["nbf"] = time.Now().Add(30 * time.Second).Unix() },
		"iat within the leeway":  func(f *forged) { f.claims["iat"] = time.Now().Add(30 * time.Second).Unix() },
		"exp within the leeway":  func(f *forged) { f.claims["exp"] = time.Now().Add(-29 * time.Second).Unix() },
		"exp as a fraction":      func(f *forged) { f.claims["exp"] = float64(time.Now().Unix()) + 60.5 },
		"exp at the end of 9999": claim("exp", number("253402300799")),
		"exp as a power":         claim("exp", number("2.0e9")),
		"no kid":                 func(f *forged) { delete(f.header, "kid") },
		"no typ":                 func(f *forged) { delete(f.header, "typ") },
		"a member nobody knows":  header("example", map[string]any{"a": []int{1}}),
		"spaces in the JSON":     func(f *forged) { f.headerText, f.claimsText = spaced, spaced },
		"names alike":            claimsText(more(`"Sub":"bob","a":{"sub":"eve"},"b":{"sub":"eve"}`)),
		"keys in the header, not used": func(f *forged) {
			f.header["jwk"], f.header["jku"], f.header["x5u"] = ecJWK("e1", thief()), "https://evil.example.com", "https://evil.example.com"
		},
		"a bad cookie beside a good header": func(f *forged) {
			f.send = func(r *http.Request, token string) {
				r.Header.Set("Authorization", "Bearer "+token)
				r.AddCookie(&http.Cookie{Name: "__Host-token", Value: "x"})
			}
		},
		"a proxy's header beside a good cookie": func(f *forged) {
			f.send = func(r *http.Request, token string) {
				r.SetBasicAuth("staging", "x")
				r.AddCookie(&http.Cookie{Name: "__Host-token", Value: token})
			}
		},
	}
	for _, alg := range []string{"HS256", "RS256", "ES256", "ES384", "EdDSA"} {
		o := jwtauth.Options{PublicKeys: issuersKeys(), Algorithms: asymmetric(), NamespaceClaim: "org", Cookie: "__Host-token"}
		if alg == "HS256" {
			o.Secret, o.PublicKeys, o.Algorithms = secret, nil, nil
		}
		a := mustNew(t, o)
		for name, change := range good {
			t.Run(alg+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := control(alg)
					change(f)
					if id := mustPass(t, a, f); id.Namespace != "shop" {
						t.Errorf("the namespace is %q", id.Namespace)
					}
				})
			})
		}
	}
}

func spaced(text string) string {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "\t", "  "); err != nil {
		panic(err)
	}
	return b.String() + "\n"
}

func TestEveryAlgorithm(t *testing.T) {
	long := bytes.Repeat([]byte("s"), 64)
	ps := func(hash crypto.Hash) func(string) []byte {
		return func(text string) []byte {
			signature, err := r1().Sign(rand.Reader, sum(hash, text), pss(hash))
			if err != nil {
				panic(err)
			}
			return signature
		}
	}
	for alg, is := range map[string]struct {
		key  crypto.Signer // nil: the long secret
		sign func(string) []byte
	}{
		"HS256": {nil, hmacBy(long, crypto.SHA256)},
		"HS384": {nil, hmacBy(long, crypto.SHA384)},
		"HS512": {nil, hmacBy(long, crypto.SHA512)},
		"RS256": {r1(), rsaBy(r1(), crypto.SHA256)},
		"RS384": {r1(), rsaBy(r1(), crypto.SHA384)},
		"RS512": {r1(), rsaBy(r1(), crypto.SHA512)},
		"PS256": {r1(), ps(crypto.SHA256)},
		"PS384": {r1(), ps(crypto.SHA384)},
		"PS512": {r1(), ps(crypto.SHA512)},
		"ES256": {e1(), ecdsaBy(e1(), crypto.SHA256, 32)},
		"ES384": {e3(), ecdsaBy(e3(), crypto.SHA384, 48)},
		"ES512": {e5(), ecdsaBy(e5(), crypto.SHA512, 66)},
		"EdDSA": {d1(), edDSA(d1())},
	} {
		o := jwtauth.Options{Secret: long, Algorithms: []string{alg}}
		if is.key != nil {
			o.Secret, o.PublicKeys = nil, []jwtauth.PublicKey{{PEM: pemOf(is.key)}}
		}
		f := control("")
		f.header["alg"], f.sign = alg, is.sign
		mustPass(t, mustNew(t, o), f)
	}
}

// TestPublicKeys: which key a kid is for, and in what forms they come.
func TestPublicKeys(t *testing.T) {
	named := mustNew(t, jwtauth.Options{PublicKeys: []jwtauth.PublicKey{
		{ID: "r1", PEM: pemOf(r1())}, {PEM: pemOf(r2())},
	}})
	for name, c := range map[string]struct {
		kid  any
		sign func(string) []byte
		want error
	}{
		"its own":                   {"r1", rs256(r1()), nil},
		"none":                      {nil, rs256(r1()), nil},
		"none, of the nameless":     {nil, rs256(r2()), nil},
		"any, of the nameless":      {"x", rs256(r2()), nil},
		"any, of the named":         {"x", rs256(r1()), refused},
		"the named's, the nameless": {"r1", rs256(r2()), nil}, // it is for any kid
	} {
		f := control("RS256")
		f.sign = c.sign
		if f.header["kid"] = c.kid; c.kid == nil {
			delete(f.header, "kid")
		}
		if err := authenticate(t.Context(), named, f); !errors.Is(err, c.want) {
			t.Errorf("kid %s: %v, not %v", name, err, c.want)
		}
	}

	several := mustNew(t, jwtauth.Options{PublicKeys: []jwtauth.PublicKey{{PEM: bytes.Join([][]byte{
		pemOf(e1()), []byte("\n\n"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(r1())}), pemOf(d1()),
	}, nil)}}})
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		mustPass(t, several, control(alg))
	}
}

func TestType(t *testing.T) {
	a := mustNew(t, jwtauth.Options{Secret: secret, Type: "at+jwt"})
	for typ, want := range map[any]error{
		"at+jwt": nil, "AT+JWT": nil, "application/at+jwt": nil, "Application/At+Jwt": nil,
		"JWT": refused, "": refused, "at+jwt ": refused, "text/at+jwt": refused, "application/jwt": refused, 1: refused, nil: refused,
	} {
		f := control("HS256")
		f.header["typ"] = typ
		if err := authenticate(t.Context(), a, f); !errors.Is(err, want) {
			t.Errorf("typ %v: %v, not %v", typ, err, want)
		}
	}
	f := control("HS256")
	delete(f.header, "typ")
	if err := authenticate(t.Context(), a, f); !errors.Is(err, refused) {
		t.Errorf("no typ: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := time.Now().Add(30 * time.Minute).UTC()
		f := control("HS256")
		f.claims["n"] = number("9007199254740993") // no float64 holds it
		f.claims["roles"] = []string{"a", "b"}
		id := mustPass(t, mustNew(t, jwtauth.Options{Secret: secret, NamespaceClaim: "org"}), f)
		if id.Namespace != "shop" || !id.Expires.Equal(ends) || id.Expires.Location() != time.UTC {
			t.Errorf("the identity is %+v", id)
		}
		claims, _ := id.Claims.(jwtauth.Claims)
		if claims["n"] != json.Number("9007199254740993") || fmt.Sprint(claims["roles"]) != "[a b]" || claims["iss"] != issuer {
			t.Errorf("the claims are %v", id.Claims)
		}
		if id := mustPass(t, mustNew(t, jwtauth.Options{Secret: secret}), f); id.Namespace != "" {
			t.Errorf("without NamespaceClaim the namespace is %q", id.Namespace)
		}
		id = mustPass(t, mustNew(t, jwtauth.Options{Secret: secret, Leeway: -1}), f)
		if !id.Expires.Equal(ends) {
			t.Errorf("without leeway it expires at %v, not %v", id.Expires, ends)
		}
	})
}

func TestOwnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := time.Now().Add(30 * time.Minute).UTC()
		var give session.Identity
		var fail error
		a := mustNew(t, jwtauth.Options{Secret: secret, Identity: func(c jwtauth.Claims) (session.Identity, error) {
			if c["org"] != "shop" {
				t.Errorf("the claims are %v", c)
			}
			return give, fail
		}})
		f := control("HS256")
		delete(f.claims, "sub") // its matter
		for _, c := range []struct{ give, want time.Time }{
			{time.Time{}, ends}, {ends.Add(time.Hour), ends}, {ends.Add(-time.Minute), ends.Add(-time.Minute)},
		} {
			give = session.Identity{Subject: "eve", Expires: c.give}
			id, err := a.Authenticate(f.request())
			if err != nil || id.Subject != "eve" || !id.Expires.Equal(c.want) {
				t.Errorf("%v became %+v, %v", c.give, id, err)
			}
		}

		give = session.Identity{Subject: "eve", Namespace: "$sys"}
		_, err := a.Authenticate(f.request())
		if _, invalid := errors.AsType[*eventlog.Invalid](err); !errors.Is(err, refused) || !invalid {
			t.Errorf("an identity that can't be: %v", err)
		}
		give, fail = session.Identity{Subject: "eve"}, errors.New("banned")
		if id, err := a.Authenticate(f.request()); !errors.Is(err, refused) || !errors.Is(err, fail) || id.Subject != "" {
			t.Errorf("refused by the function: %+v, %v", id, err)
		}

		asked := false
		a = mustNew(t, jwtauth.Options{Secret: secret, Identity: func(jwtauth.Claims) (session.Identity, error) {
			asked = true
			return session.Identity{}, nil
		}})
		f.sign = hs256(bytes.Repeat([]byte("x"), 32))
		if _, err := a.Authenticate(f.request()); !errors.Is(err, refused) || asked {
			t.Errorf("a bad token: asked %v, %v", asked, err)
		}
	})
}

// TestLeeway: a token is good until its leeway is over, and says when its own
// time is.
func TestLeeway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for leeway, want := range map[time.Duration]time.Duration{0: 30 * time.Second, -1: 0, 5 * time.Minute: 5 * time.Minute} {
			a := mustNew(t, jwtauth.Options{Secret: secret, Leeway: leeway})
			f := control("HS256")
			ends := time.Unix(f.claims["exp"].(int64), 0)
			time.Sleep(time.Until(ends) + want - time.Nanosecond)
			if id := mustPass(t, a, f); !id.Expires.Equal(ends) {
				t.Errorf("leeway %v: it expires at %v, not %v", leeway, id.Expires, ends)
			}
			time.Sleep(time.Nanosecond)
			if err := authenticate(t.Context(), a, f); !errors.Is(err, jwtauth.ErrExpired) || errors.Is(err, refused) {
				t.Errorf("leeway %v: after it, %v", leeway, err)
			}
		}
	})
}

func TestOptional(t *testing.T) {
	a := mustNew(t, jwtauth.Options{Secret: secret, Optional: true, Cookie: "token"})
	nobody := control("HS256")
	nobody.send = func(*http.Request, string) {}
	if id, err := a.Authenticate(nobody.request()); err != nil || id != (session.Identity{}) {
		t.Errorf("nobody is %+v, %v", id, err)
	}
	mustPass(t, a, control("HS256"))
	for name, send := range map[string]func(*http.Request, string){
		"a bad token":     func(r *http.Request, token string) { r.Header.Set("Authorization", "Bearer x"+token) },
		"an empty Bearer": func(r *http.Request, _ string) { r.Header.Set("Authorization", "Bearer") },
		"two headers":     func(r *http.Request, _ string) { r.Header["Authorization"] = []string{"", ""} },
		"a bad cookie":    func(r *http.Request, _ string) { r.AddCookie(&http.Cookie{Name: "token", Value: "x"}) },
	} {
		f := control("HS256")
		f.send = send
		if err := authenticate(t.Context(), a, f); !errors.Is(err, refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMaxToken: exactly the bound passes.
func TestMaxToken(t *testing.T) {
	f := control("HS256")
	text := f.text()
	f.token = becomes(text)
	mustPass(t, mustNew(t, jwtauth.Options{Secret: secret, MaxToken: len(text)}), f)
	err := authenticate(t.Context(), mustNew(t, jwtauth.Options{Secret: secret, MaxToken: len(text) - 1}), f)
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a byte too many: %v", err)
	}
}

// TestOptionsAreKept: who gave them may change what is theirs.
func TestOptionsAreKept(t *testing.T) {
	o := jwtauth.Options{Secret: secret, Algorithms: []string{"HS256"}, Issuer: issuer, Audience: []string{audience}}
	a := mustNew(t, o)
	o.Algorithms[0], o.Audience[0] = "none", "https://evil.example.com"
	mustPass(t, a, control("HS256"))
}

// TestSecretIsKept: it isn't shown, and not changed from outside.
func TestSecretIsKept(t *testing.T) {
	mine := bytes.Clone(secret)
	a := mustNew(t, jwtauth.Options{Secret: mine})
	clear(mine)
	mustPass(t, a, control("HS256"))
	for _, verb := range []string{"%v", "%+v", "%#v", "%x"} {
		for _, text := range []string{fmt.Sprintf(verb, a), fmt.Sprintf(verb, *a)} {
			if strings.Contains(text, string(secret)) || strings.Contains(text, fmt.Sprintf("%x", secret)) || strings.Contains(text, fmt.Sprintf("%d", secret)) {
				t.Errorf("%s shows it", verb)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	public := func(k crypto.Signer) []jwtauth.PublicKey { return []jwtauth.PublicKey{{PEM: pemOf(k)}} }
	text := func(text string) []jwtauth.PublicKey { return []jwtauth.PublicKey{{PEM: []byte(text)}} }
	private, err := x509.MarshalPKCS8PrivateKey(e1())
	if err != nil {
		t.Fatal(err)
	}
	jwks := func(address string) jwtauth.Options {
		return jwtauth.Options{JWKS: address, Issuer: issuer, Audience: []string{audience}}
	}
	const url = "https://login.example.com/jwks.json"
	for name, c := range map[string]struct {
		o   jwtauth.Options
		why string
	}{
		"no key":                        {jwtauth.Options{}, "exactly one"},
		"two sources":                   {jwtauth.Options{Secret: secret, PublicKeys: public(e1())}, "exactly one"},
		"an empty secret":               {jwtauth.Options{Secret: []byte{}}, "0 bytes"},
		"a short secret":                {jwtauth.Options{Secret: secret[:31]}, "31 bytes"},
		"a short secret for HS384":      {jwtauth.Options{Secret: secret, Algorithms: []string{"HS256", "HS384"}}, "at least 48"},
		"a short secret for HS512":      {jwtauth.Options{Secret: secret, Algorithms: []string{"HS512"}}, "at least 64"},
		"a public key as a secret":      {jwtauth.Options{Secret: pemOf(r1())}, "PublicKeys"},
		"none":                          {jwtauth.Options{Secret: secret, Algorithms: []string{"none"}}, "no algorithm"},
		"none with public keys":         {jwtauth.Options{PublicKeys: public(e1()), Algorithms: []string{"ES256", "none"}}, "no algorithm"},
		"an empty algorithm":            {jwtauth.Options{Secret: secret, Algorithms: []string{""}}, "no algorithm"},
		"HS256 with public keys":        {jwtauth.Options{PublicKeys: public(r1()), Algorithms: []string{"RS256", "HS256"}}, "Secret"},
		"HS512 with a JWKS":             {jwtauth.Options{JWKS: url, Issuer: issuer, Audience: []string{audience}, Algorithms: []string{"HS512"}}, "Secret"},
		"RS256 with a secret":           {jwtauth.Options{Secret: secret, Algorithms: []string{"RS256"}}, "Secret"},
		"no public keys":                {jwtauth.Options{PublicKeys: []jwtauth.PublicKey{}}, "0 public keys"},
		"RSA of 1024 bits":              {jwtauth.Options{PublicKeys: public(weak())}, "1024 bits"},
		"a curve without its algorithm": {jwtauth.Options{PublicKeys: public(e3())}, "P-384"},
		"a key no algorithm is for":     {jwtauth.Options{PublicKeys: public(r1()), Algorithms: []string{"ES256"}}, "fits none"},
		"no PEM":                        {jwtauth.Options{PublicKeys: text("x")}, "no PEM"},
		"an empty PEM":                  {jwtauth.Options{PublicKeys: text(" \n")}, "no PEM"},
		"something after a PEM":         {jwtauth.Options{PublicKeys: text(string(pemOf(e1())) + "x")}, "no PEM"},
		"a block that is broken":        {jwtauth.Options{PublicKeys: text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")}, "can't be read"},
		"a private key":                 {jwtauth.Options{PublicKeys: text(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))}, "PRIVATE KEY"},
		"an ID for two keys":            {jwtauth.Options{PublicKeys: []jwtauth.PublicKey{{ID: "a", PEM: append(pemOf(e1()), pemOf(d1())...)}}}, "2 PEM blocks"},
		"two keys of an ID":             {jwtauth.Options{PublicKeys: []jwtauth.PublicKey{{ID: "a", PEM: pemOf(e1())}, {ID: "a", PEM: pemOf(d1())}}}, "two public keys"},
		"an ID that can't be":           {jwtauth.Options{PublicKeys: []jwtauth.PublicKey{{ID: "a b", PEM: pemOf(e1())}}}, "ID"},
		"a long ID":                     {jwtauth.Options{PublicKeys: []jwtauth.PublicKey{{ID: strings.Repeat("a", 65), PEM: pemOf(e1())}}}, "ID"},
		"a JWKS without Issuer":         {jwtauth.Options{JWKS: url, Audience: []string{audience}}, "for others, too"},
		"a JWKS without Audience":       {jwtauth.Options{JWKS: url, Issuer: issuer}, "for others, too"},
		"an empty name in Audience":     {jwtauth.Options{Secret: secret, Audience: []string{audience, ""}}, "Audience"},
		"too much leeway":               {jwtauth.Options{Secret: secret, Leeway: 5*time.Minute + 1}, "Leeway"},
		"a cookie that can't be":        {jwtauth.Options{Secret: secret, Cookie: "a b"}, "cookie"},
		"NamespaceClaim and Identity": {jwtauth.Options{Secret: secret, NamespaceClaim: "org", Identity: func(jwtauth.Claims) (session.Identity, error) {
			return session.Identity{}, nil
		}}, "NamespaceClaim"},
		"a negative bound":           {jwtauth.Options{Secret: secret, MaxToken: -1}, "negative"},
		"http":                       {jwks("http://login.example.com/jwks.json"), "not https"},
		"http of a private host":     {jwks("http://10.0.0.1/jwks.json"), "not https"},
		"http of a name like ours":   {jwks("http://localhost.example.com/jwks.json"), "not https"},
		"http of 127 as a user":      {jwks("http://127.0.0.1@login.example.com/"), "password"},
		"a file":                     {jwks("file:///etc/passwd"), "no host"},
		"a file of a host":           {jwks("file://localhost/etc/passwd"), "not https"},
		"no scheme":                  {jwks("login.example.com/jwks.json"), "no host"},
		"no address":                 {jwks("https://login.example.com:x/"), "no address"},
		"no address, and a password": {jwks("https://ann:pass@login.example.com:x/"), "no address"},
		"a password in the address":  {jwks("https://ann:pass@login.example.com/"), "password"},
		"a negative RefreshInterval": {jwtauth.Options{Secret: secret, RefreshInterval: -1}, "negative"},
	} {
		a, err := jwtauth.New(c.o)
		if err == nil {
			a.Close()
		}
		if err == nil || strings.Contains(err.Error(), "pass@") || !strings.Contains(err.Error(), c.why) || !strings.HasPrefix(err.Error(), "jwtauth: ") {
			t.Errorf("%s: %v, not %q", name, err, c.why)
		}
	}
}

// certificate returns one that a key made for itself, and that has expired.
func certificate(k crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		panic(err)
	}
	return der
}
