package jwtauth_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/server/jwtauth"
)

// TestWhatClientsAreTold: whether a fresh token helps, or time.
func TestWhatClientsAreTold(t *testing.T) {
	secret := []byte(strings.Repeat("s", 32))
	sign := func(ends time.Duration) string {
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(ends).Unix()}).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ask := func(o jwtauth.Options, token string) string {
		auth, err := jwtauth.New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer auth.Close()
		srv, err := server.New(server.Options{Authenticate: auth.Authenticate})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/realtime/poll?channel=r", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		srv.ServeHTTP(w, r)
		return w.Result().Status + " " + w.Body.String()
	}
	away := jwtauth.Options{JWKS: "http://127.0.0.1:1/", Issuer: "i", Audience: []string{"a"}, FetchTimeout: time.Second}
	for _, test := range []struct {
		o     jwtauth.Options
		token string
		want  string
	}{
		{jwtauth.Options{Secret: secret}, sign(time.Minute), `200 OK {"events"`},
		{jwtauth.Options{Secret: secret}, sign(-time.Minute), `401 Unauthorized {"error":{"code":"expired","class":"now"`},
		{jwtauth.Options{Secret: secret}, sign(-10 * time.Second), `401 Unauthorized {"error":{"code":"expired","class":"now"`}, // within the leeway
		{jwtauth.Options{Secret: secret}, "forged", `401 Unauthorized {"error":{"code":"unauthorized","class":"never"`},
		{away, strings.Replace(sign(time.Minute), "eyJhbGciOiJIUzI1NiI", "eyJhbGciOiJSUzI1NiI", 1), `503 Service Unavailable {"error":{"code":"unavailable","class":"later"`},
	} {
		if got := ask(test.o, test.token); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s\nnot\n%s", got, test.want)
		}
	}
}
