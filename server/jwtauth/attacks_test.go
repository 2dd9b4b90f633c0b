package jwtauth_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/server/jwtauth"
)

// An attack is one thing done to a token that is good, and how it must end.
type attack struct {
	name string
	do   func(f *forged)
	want error
	why  string // part of the error's text, so that it is refused for this
}

var refused = jwtauth.ErrRefused

// TestAttacks: what is known to have been tried on readers of JWTs is refused,
// each for its own reason, by an authenticator that takes the same token
// without it.
func TestAttacks(t *testing.T) {
	common := slices.Concat(formAttacks(), headerAttacks(), jsonAttacks(), timeAttacks(), claimAttacks(), requestAttacks())
	for alg, attacks := range map[string][]attack{
		"HS256": common,
		"RS256": slices.Concat(common, keyAttacks(), rsaAttacks()),
		"ES256": slices.Concat(common, keyAttacks(), ecdsaAttacks()),
		"EdDSA": slices.Concat(common, keyAttacks()),
	} {
		t.Run(alg, func(t *testing.T) {
			o := jwtauth.Options{PublicKeys: issuersKeys(), Algorithms: asymmetric(), NamespaceClaim: "org", Cookie: "__Host-token"}
			if alg == "HS256" {
				o.Secret, o.PublicKeys, o.Algorithms = secret, nil, nil
			}
			a := mustNew(t, o)
			for _, attack := range attacks {
				t.Run(attack.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { try(t, a, alg, attack) })
				})
			}
		})
	}
}

func try(t *testing.T, a *jwtauth.Authenticator, alg string, attack attack) {
	mustPass(t, a, control(alg))
	f := control(alg)
	attack.do(f)
	r := f.request()
	id, err := a.Authenticate(r)
	if !errors.Is(err, attack.want) || !strings.Contains(err.Error(), attack.why) {
		t.Fatalf("it made %+v, %v, not %v: %s", id, err, attack.want, attack.why)
	}
	if id.Subject != "" || id.Namespace != "" || id.Claims != nil || !id.Expires.IsZero() {
		t.Errorf("refused, yet there is %+v", id)
	}
	if quotes(err, f.text()) || strings.Contains(err.Error(), "token is ") { // as golang-jwt says
		t.Errorf("the error quotes the token, or golang-jwt, which may: %v", err)
	}
}

// header changes one member of the header.
func header(name string, value any) func(*forged) {
	return func(f *forged) { f.header[name] = value }
}

func claim(name string, value any) func(*forged) {
	return func(f *forged) { f.claims[name] = value }
}

func without(name string) func(*forged) {
	return func(f *forged) { delete(f.claims, name) }
}

// number is a claim's value, digit for digit.
func number(text string) json.RawMessage { return json.RawMessage(text) }

func token(edit func(string) string) func(*forged) {
	return func(f *forged) { f.token = edit }
}

// segment edits one of the three parts of a token.
func segment(n int, edit func(string) string) func(*forged) {
	return token(func(text string) string {
		parts := strings.Split(text, ".")
		parts[n] = edit(parts[n])
		return strings.Join(parts, ".")
	})
}

func claimsText(edit func(string) string) func(*forged) {
	return func(f *forged) { f.claimsText = edit }
}

func headerText(edit func(string) string) func(*forged) {
	return func(f *forged) { f.headerText = edit }
}

// more puts members before those of an object.
func more(members string) func(string) string {
	return func(text string) string { return "{" + members + "," + text[1:] }
}

func becomes(text string) func(string) string {
	return func(string) string { return text }
}

func followedBy(text string) func(string) string {
	return func(before string) string { return before + text }
}

// spareBits changes bits of the last character that no byte is made of. The
// text is first brought to such a length.
func spareBits(n int) func(*forged) {
	return func(f *forged) {
		odd := func(text string) string {
			for len(text)%3 != 1 {
				text += " "
			}
			return text
		}
		f.headerText, f.claimsText = odd, odd
		segment(n, func(part string) string {
			alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := strings.IndexByte(alphabet, part[len(part)-1])
			part = part[:len(part)-1] + string(alphabet[last|1])
			if _, err := b64.DecodeString(part); err != nil || last&1 == 1 {
				panic("no spare bits")
			}
			return part
		})(f)
	}
}

func formAttacks() []attack {
	const form = "form"
	empty := becomes("")
	half := func(part string) string { return part[:len(part)/2/4*4] }
	return []attack{
		{"no signature", segment(2, empty), refused, "signature is wrong"},
		{"no signature and no dot", token(func(s string) string { return s[:strings.LastIndex(s, ".")] }), refused, form},
		{"half a signature", segment(2, half), refused, "signature is wrong"},
		{"a longer signature", segment(2, func(s string) string { return "AAAA" + s }), refused, "signature is wrong"},
		{"another signature", func(f *forged) {
			sign := f.sign
			f.sign = func(string) []byte { return sign("something else") }
		}, refused, "signature is wrong"},
		{"half the claims", segment(1, half), refused, ""},
		{"no claims", segment(1, empty), refused, form},
		{"no header", segment(0, empty), refused, "not JSON"},
		{"claims of another token", segment(1, func(part string) string {
			plain, _ := b64.DecodeString(part)
			return b64.EncodeToString([]byte(strings.Replace(string(plain), `"ann"`, `"bob"`, 1)))
		}), refused, "signature is wrong"},
		{"a dot before", token(func(s string) string { return "." + s }), refused, form},
		{"a dot behind", token(followedBy(".")), refused, form},
		{"five parts, as JWE has", token(followedBy(".AAAA.AAAA")), refused, form},
		{"many dots", token(becomes(strings.Repeat(".", 8000))), refused, form},
		{"very many dots", token(becomes(strings.Repeat(".", 10<<20))), refused, "too long"},
		{"two dots", token(becomes("..")), refused, "not JSON"},
		{"one word", token(becomes("null")), refused, form},
		{"spare bits in the signature", spareBits(2), refused, form},
		{"spare bits in the claims", spareBits(1), refused, ""},
		{"spare bits in the header", spareBits(0), refused, "base64url"},
		{"padding", token(followedBy("=")), refused, form},
		{"the other alphabet", func(f *forged) {
			f.claims["pad"] = "???>>>" // 62 and 63 wherever it begins
			f.claims["pad2"], f.claims["pad33"] = "???>>>", "???>>>"
			segment(1, strings.NewReplacer("-", "+", "_", "/").Replace)(f)
		}, refused, form},
		{"a line end within", segment(1, followedBy("\n")), refused, form},
		{"a null byte behind", token(followedBy("\x00")), refused, form},
		{"a space within", segment(1, followedBy(" ")), refused, form},
		{"longer than allowed", claim("pad", strings.Repeat("x", 8<<10)), refused, "too long"},
	}
}

func headerAttacks() []attack {
	var attacks []attack
	for _, none := range []string{"none", "None", "NONE", "nOnE", "NoNe", "none ", "", "null"} {
		attacks = append(attacks, attack{"alg " + none, func(f *forged) {
			f.header["alg"] = none
			f.sign = func(string) []byte { return nil }
		}, refused, "algorithm is not accepted"})
	}
	for name, alg := range map[string]any{
		"missing": nil, "a list": []string{"HS256", "RS256"}, "a number": 256, "of HMAC, in small": "hs256",
		"never heard of": "XS256", "HS512": "HS512", "PS256": "PS256", "ES512": "ES512",
	} {
		attacks = append(attacks, attack{"alg is " + name, header("alg", alg), refused, "algorithm is not accepted"})
	}
	for name, kid := range map[string]any{
		"an injection":       "x' UNION SELECT 'AA",
		"a command":          "key|whoami",
		"too long":           strings.Repeat("k", 65),
		"empty":              "",
		"with a null byte":   "r1\x00",
		"a number":           1,
		"a list":             []string{"r1", "e1", "d1"},
		"null":               nil,
		"not ASCII":          "r\u0661",
		"with a line end":    "r1\r\nX: y",
		"an address of data": "data:,AAAA",
	} {
		attacks = append(attacks, attack{"kid is " + name, header("kid", kid), refused, "kid's form"})
	}
	return append(attacks, []attack{
		{"crit", header("crit", []string{"exp"}), refused, "crit"},
		{"crit of what isn't there", header("crit", []string{"example.com/x"}), refused, "crit"},
		{"crit is empty", header("crit", []string{}), refused, "crit"},
		{"crit is null", header("crit", nil), refused, "crit"},
		{"b64 is false", header("b64", false), refused, "b64"},
		{"b64 is false and crit", func(f *forged) { f.header["b64"], f.header["crit"] = false, []string{"b64"} }, refused, "crit"},
		{"alg twice, none first", headerText(more(`"alg":"none"`)), refused, "twice"},
		{"kid twice", headerText(more(`"kid":"e1","kid":"r1"`)), refused, "twice"},
		{"alg in other letters too, and none", func(f *forged) {
			f.headerText = func(text string) string { return strings.Replace(text, `"alg"`, `"ALG"`, 1) }
		}, refused, "algorithm is not accepted"},
		{"header is a list", headerText(func(s string) string { return "[" + s + "]" }), refused, "not an object"},
		{"header is null", headerText(becomes("null")), refused, "not an object"},
		{"header goes on", headerText(followedBy("{}")), refused, "not JSON"},
	}...)
}

func jsonAttacks() []attack {
	const notJSON = "form" // as golang-jwt is the first who reads it
	return []attack{
		{"sub twice", claimsText(more(`"sub":"bob"`)), refused, "twice"},
		{"sub twice, written differently", claimsText(more(`"\u0073ub":"bob"`)), refused, "twice"},
		{"exp twice", claimsText(more(`"exp":99999999999`)), refused, "twice"},
		{"a name twice further in", claimsText(more(`"a":[{"b":{"c":1,"c":2}}]`)), refused, "twice"},
		{"claims go on", claimsText(followedBy(`{"sub":"bob"}`)), refused, notJSON},
		{"claims go on with a word", claimsText(followedBy(`x`)), refused, notJSON},
		{"claims break off", claimsText(func(s string) string { return s[:len(s)-1] }), refused, notJSON},
		{"claims are null", claimsText(becomes("null")), refused, "missing"},
		{"claims are a list", claimsText(func(s string) string { return "[" + s + "]" }), refused, "not an object"},
		{"claims are a string", claimsText(becomes(`"ann"`)), refused, "not an object"},
		{"claims are empty", claimsText(becomes(`{}`)), refused, "missing"},
		{"a comma too many", claimsText(func(s string) string { return s[:len(s)-1] + ",}" }), refused, notJSON},
		{"a comment", claimsText(followedBy(`/**/`)), refused, notJSON},
		{"not UTF-8", claimsText(more("\"x\":\"\xff\"")), refused, "not JSON"},
		{"a byte order mark", claimsText(func(s string) string { return "\ufeff" + s }), refused, notJSON},
		{"very deep", claimsText(more(`"x":` + strings.Repeat("[", 3000))), refused, notJSON},
	}
}

func timeAttacks() []attack {
	attacks := []attack{
		{"expired", func(f *forged) { f.claims["exp"] = time.Now().Add(-time.Minute).Unix() }, jwtauth.ErrExpired, ""},
		{"expired by the leeway", func(f *forged) { f.claims["exp"] = time.Now().Add(-30 * time.Second).Unix() }, jwtauth.ErrExpired, ""},
		{"expired, and of another issuer", func(f *forged) {
			f.claims["exp"], f.claims["iss"] = time.Now().Add(-time.Minute).Unix(), "https://evil.example.com/"
		}, refused, "another issuer"},
		{"exp is 0", claim("exp", 0), jwtauth.ErrExpired, ""},
		{"exp is missing", without("exp"), refused, "missing"},
		{"nbf in the future", func(f *forged) { f.claims["nbf"] = time.Now().Add(31 * time.Second).Unix() }, refused, "nbf is in the future"},
		{"iat in the future", func(f *forged) { f.claims["iat"] = time.Now().Add(31 * time.Second).Unix() }, refused, "iat is in the future"},
		{"exp is NaN", func(f *forged) {
			f.claims["exp"] = "EXP"
			f.claimsText = func(s string) string { return strings.Replace(s, `"EXP"`, "NaN", 1) }
		}, refused, "form"},
		{"exp is infinite", func(f *forged) {
			f.claims["exp"] = "EXP"
			f.claimsText = func(s string) string { return strings.Replace(s, `"EXP"`, "Infinity", 1) }
		}, refused, "form"},
	}
	for _, name := range []string{"exp", "nbf", "iat"} {
		for kind, value := range map[string]any{
			"a string": "99999999999", "NaN in a string": "NaN", "null": nil, "true": true, "a list": []int{1}, "an object": struct{}{},
			"negative": -1, "huge": number("1e300"), "infinite": number("1e400"), "above 64 bits": number("9223372036854775808"),
			"where times wrap": number("9223372036854775807"), "after the year 9999": number("253402300800"), "negative and huge": number("-1e300"),
		} {
			attacks = append(attacks, attack{name + " is " + kind, claim(name, value), refused, name + " is not a date"})
		}
	}
	return attacks
}

func claimAttacks() []attack {
	return []attack{
		{"iss of another", claim("iss", "https://evil.example.com/"), refused, "another issuer"},
		{"iss without its end", claim("iss", strings.TrimSuffix(issuer, "/")), refused, "another issuer"},
		{"iss in other letters", claim("iss", strings.ToUpper(issuer)), refused, "another issuer"},
		{"iss in a list", claim("iss", []string{issuer}), refused, "iss is not a string"},
		{"iss is missing", without("iss"), refused, "missing"},
		{"iss is empty", claim("iss", ""), refused, "missing"},
		{"aud of another", claim("aud", "https://evil.example.com"), refused, "another audience"},
		{"aud goes on", claim("aud", audience+".evil.example.com"), refused, "another audience"},
		{"aud in other letters", claim("aud", strings.ToUpper(audience)), refused, "another audience"},
		{"aud is missing", without("aud"), refused, "missing"},
		{"aud is empty", claim("aud", ""), refused, "missing"},
		{"aud is null", claim("aud", nil), refused, "aud is not a string"},
		{"aud is a list without us", claim("aud", []string{"https://a.example.com", "https://b.example.com"}), refused, "another audience"},
		{"aud is an empty list", claim("aud", []string{}), refused, "missing"},
		{"aud is a list with more than strings", claim("aud", []any{audience, 1}), refused, "aud holds"},
		{"aud is a list in a list", claim("aud", []any{[]string{audience}}), refused, "aud holds"},
		{"aud is an object", claim("aud", map[string]bool{audience: true}), refused, "aud is not a string"},
		{"sub is missing", without("sub"), refused, "sub claim"},
		{"sub is empty", claim("sub", ""), refused, "sub claim"},
		{"sub is null", claim("sub", nil), refused, "sub claim"},
		{"sub is a number", claim("sub", 1), refused, "sub claim"},
		{"sub is a list", claim("sub", []string{"ann"}), refused, "sub claim"},
		{"sub is too long", claim("sub", strings.Repeat("a", 257)), refused, "subject is longer"},
		{"sub has a line end", claim("sub", "ann\nbob"), refused, "control characters"},
		{"sub has half a surrogate pair", claim("sub", number(`"ann\ud800"`)), refused, "sub claim"},
		{"namespace is missing", without("org"), refused, "namespace"},
		{"namespace is empty", claim("org", ""), refused, "namespace"},
		{"namespace is a number", claim("org", 7), refused, "namespace"},
		{"namespace is a list", claim("org", []string{"shop", "bank"}), refused, "namespace"},
		{"namespace of the library", claim("org", "$sys"), refused, "reserved"},
		{"namespace is too long", claim("org", strings.Repeat("n", 101)), refused, "namespace is longer"},
		{"namespace has a null byte", claim("org", "shop\x00"), refused, "control characters"},
	}
}

func requestAttacks() []attack {
	sent := func(send func(r *http.Request, token string)) func(*forged) {
		return func(f *forged) { f.send = send }
	}
	headers := func(values ...string) func(*forged) {
		return sent(func(r *http.Request, token string) {
			for _, value := range values {
				r.Header.Add("Authorization", strings.ReplaceAll(value, "TOKEN", token))
			}
		})
	}
	noToken := jwtauth.ErrNoToken
	return []attack{
		{"nothing", headers(), noToken, ""},
		{"in the address", sent(func(r *http.Request, token string) { r.URL.RawQuery = "access_token=" + token + "&token=" + token }), noToken, ""},
		{"in a form", sent(func(r *http.Request, token string) {
			*r = *r.Clone(r.Context())
			r.Method, r.PostForm = "POST", map[string][]string{"access_token": {token}}
			r.Form = r.PostForm
		}), noToken, ""},
		{"in another header", sent(func(r *http.Request, token string) { r.Header.Set("Proxy-Authorization", "Bearer "+token) }), noToken, ""},
		{"in another cookie", sent(func(r *http.Request, token string) { r.AddCookie(&http.Cookie{Name: "token", Value: token}) }), noToken, ""},
		{"two headers", headers("Bearer TOKEN", "Bearer TOKEN"), refused, "several Authorization"},
		{"two headers, one of another scheme", headers("Basic YTpi", "Bearer TOKEN"), refused, "several Authorization"},
		{"a list in a header", headers("Bearer TOKEN, Bearer TOKEN"), refused, "form"},
		{"no scheme", headers("TOKEN"), noToken, ""},
		{"another scheme", headers("Basic TOKEN"), noToken, ""},
		{"a longer scheme", headers("BearerX TOKEN"), noToken, ""},
		{"a tab", headers("Bearer\tTOKEN"), noToken, ""},
		{"an empty Bearer", headers("Bearer"), refused, "none after Bearer"},
		{"an empty Bearer with spaces", headers("Bearer   "), refused, "none after Bearer"},
		{"a word behind", headers("Bearer TOKEN x"), refused, "form"},
		{"quotes", headers(`Bearer "TOKEN"`), refused, "form"},
		{"two cookies", sent(func(r *http.Request, token string) {
			r.AddCookie(&http.Cookie{Name: "__Host-token", Value: token})
			r.AddCookie(&http.Cookie{Name: "__Host-token", Value: token})
		}), refused, "several cookies"},
		{"a bad header over a good cookie", sent(func(r *http.Request, token string) {
			r.Header.Set("Authorization", "Bearer x"+token)
			r.AddCookie(&http.Cookie{Name: "__Host-token", Value: token})
		}), refused, ""},
		{"an empty cookie", sent(func(r *http.Request, _ string) { r.Header.Set("Cookie", "__Host-token=") }), noToken, ""},
		{"a cookie with a byte too many", sent(func(r *http.Request, token string) { r.Header.Set("Cookie", "__Host-token="+token+"=") }), refused, "form"},
	}
}

// keyAttacks are on public keys of any kind.
func keyAttacks() []attack {
	// A token that the thief signed, and brings the key along for.
	bring := func(name string, value func() any) func(*forged) {
		return func(f *forged) {
			f.header[name] = value()
			switch f.header["alg"] {
			case "RS256":
				f.sign = rs256(thiefRSA())
			case "ES256":
				f.sign = es256(thief())
			case "EdDSA":
				f.sign = edDSA(thiefEd())
			}
		}
	}
	address := func() any { return "https://evil.example.com/keys" }
	attacks := []attack{
		{"jwk", bring("jwk", func() any { return ecJWK("e1", thief()) }), refused, "signature is wrong"},
		{"jku", bring("jku", address), refused, "signature is wrong"},
		{"x5u", bring("x5u", address), refused, "signature is wrong"},
		{"x5c", bring("x5c", func() any { return []string{base64.StdEncoding.EncodeToString(certificate(thief()))} }), refused, "signature is wrong"},
		{"kid of an unknown key", header("kid", "r9"), refused, "not known"},
		{"kid goes up paths", header("kid", "../../../../../../dev/null"), refused, "not known"},
		{"kid in other letters", func(f *forged) { f.header["kid"] = strings.ToUpper(f.header["kid"].(string)) }, refused, "not known"},
		{"kid of a key on another curve", func(f *forged) { f.header["kid"] = "e3" }, refused, "not one of its key"},
		{"the secret is an empty text", func(f *forged) { f.header["alg"], f.sign = "HS256", hs256(nil) }, refused, "algorithm is not accepted"},
	}
	for name, text := range map[string]func(*forged) []byte{
		"PEM":                     func(f *forged) []byte { return pemOf(signerOf(f)) },
		"PEM without its end":     func(f *forged) []byte { return []byte(strings.TrimSpace(string(pemOf(signerOf(f))))) },
		"PEM with other breaks":   func(f *forged) []byte { return []byte(strings.ReplaceAll(string(pemOf(signerOf(f))), "\n", "\r\n")) },
		"DER":                     func(f *forged) []byte { der, _ := x509.MarshalPKIXPublicKey(signerOf(f).Public()); return der },
		"PEM, kid of no key, too": func(f *forged) []byte { text := pemOf(signerOf(f)); delete(f.header, "kid"); return text },
	} {
		attacks = append(attacks, attack{"HS256 by the public key's " + name, func(f *forged) {
			f.sign = hs256(text(f))
			f.header["alg"] = "HS256"
		}, refused, "algorithm is not accepted"})
	}
	return attacks
}

// signerOf returns the key that a good token is signed by.
func signerOf(f *forged) crypto.Signer {
	return map[string]crypto.Signer{"RS256": r1(), "ES256": e1(), "EdDSA": d1()}[f.header["alg"].(string)]
}

func rsaAttacks() []attack {
	return []attack{
		{"kid of a key of another type", header("kid", "e1"), refused, "not one of its key"},
		{"alg of another type", header("alg", "ES256"), refused, "not one of its key"},
		{"another hash", func(f *forged) { f.sign = rsaBy(r1(), crypto.SHA512) }, refused, "signature is wrong"},
		{"an alg of the key that is not configured", func(f *forged) {
			f.header["alg"], f.sign = "RS512", rsaBy(r1(), crypto.SHA512)
		}, refused, "algorithm is not accepted"},
		{"signature is 0", func(f *forged) { f.sign = func(string) []byte { return make([]byte, 256) } }, refused, "signature is wrong"},
		{"signature is 1", func(f *forged) {
			f.sign = func(string) []byte { return big.NewInt(1).FillBytes(make([]byte, 256)) }
		}, refused, "signature is wrong"},
	}
}

func ecdsaAttacks() []attack {
	order := elliptic.P256().Params().N
	signature := func(r, s *big.Int) func(*forged) {
		return func(f *forged) { f.sign = func(string) []byte { return join(r, s, 32) } }
	}
	zero, one := big.NewInt(0), big.NewInt(1)
	return []attack{
		{"r and s are 0 (CVE-2022-21449)", signature(zero, zero), refused, "signature is wrong"},
		{"r is 0", signature(zero, one), refused, "signature is wrong"},
		{"s is 0", signature(one, zero), refused, "signature is wrong"},
		{"r and s are the order", signature(order, order), refused, "signature is wrong"},
		{"r and s are 1", signature(one, one), refused, "signature is wrong"},
		// golang-jwt alone would take these: it doesn't look at the curve.
		{"ES384 by a key on P-256", func(f *forged) {
			f.header["alg"], f.sign = "ES384", ecdsaBy(e1(), crypto.SHA384, 48)
		}, refused, "not one of its key"},
		{"ES384 by a key on P-256, no kid", func(f *forged) {
			f.header["alg"], f.sign = "ES384", ecdsaBy(e1(), crypto.SHA384, 48)
			delete(f.header, "kid")
		}, refused, "signature is wrong"},
		{"in ASN.1", func(f *forged) {
			f.sign = func(text string) []byte {
				der, _ := e1().Sign(nil, sum(crypto.SHA256, text), crypto.SHA256)
				return der
			}
		}, refused, "signature is wrong"},
		{"kid of a key of another type", header("kid", "d1"), refused, "not one of its key"},
	}
}
