package jwtauth_test

import (
	"crypto/hmac"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/throughline/throughline/server/jwtauth"
)

// FuzzAuthenticate: whatever stands in the header, it panics nothing, and what
// is accepted was signed, to the last character.
func FuzzAuthenticate(f *testing.F) {
	a := mustNew(f, jwtauth.Options{Secret: secret})
	good := control("HS256")
	good.claims["exp"], good.claims["iat"], good.claims["nbf"] = 4102444800, 0, 0 // the end of 2099
	text := good.text()
	header, rest, _ := strings.Cut(text, ".")
	claims, _, _ := strings.Cut(rest, ".")
	none := b64.EncodeToString([]byte(`{"alg":"none"}`))
	for _, seed := range []string{
		"Bearer " + text, "bearer   " + text, text, "Bearer " + text + ".", "Bearer " + text + "=", "Bearer " + text[:len(text)-1],
		"Bearer " + header + "." + claims + ".", "Bearer " + none + "." + claims + ".", "Bearer ..", "Bearer " + strings.Repeat(".", 100),
		"Basic YTpi", "Bearer", "", "\x00", "Bearer bnVsbA.bnVsbA.AA", "Bearer e30.e30.", "Bearer W10.W10.W10",
		"Bearer " + b64.EncodeToString([]byte(`{"alg":"HS256","alg":"HS256"}`)) + "." + claims + ".AA",
		"Bearer " + b64.EncodeToString([]byte(`{"alg":["HS256"],"kid":{"a":[]}}`)) + "." + claims + ".AA",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r := &http.Request{URL: &url.URL{}, Header: http.Header{"Authorization": {string(value)}}}
		id, err := a.Authenticate(r.WithContext(t.Context()))
		if err != nil {
			if id.Subject != "" || id.Claims != nil {
				t.Errorf("refused, yet there is %+v", id)
			}
			return
		}
		scheme, text, _ := strings.Cut(string(value), " ")
		text = strings.TrimLeft(text, " ")
		dot := strings.LastIndexByte(text, '.')
		signature := b64.EncodeToString(hs256(secret)(text[:dot]))
		if !strings.EqualFold(scheme, "Bearer") || !hmac.Equal([]byte(signature), []byte(text[dot+1:])) {
			t.Errorf("accepted without being signed: %q", value)
		}
	})
}
