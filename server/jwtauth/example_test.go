package jwtauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/server/jwtauth"
)

// login makes tokens, as the issuer does.
func login(secret []byte, claims jwt.MapClaims) string {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		panic(err)
	}
	return token
}

// A server that knows its clients by the tokens of a login service.
func Example() {
	secret := bytes.Repeat([]byte("x"), 32) // 32 bytes of crypto/rand, really
	auth, err := jwtauth.New(jwtauth.Options{
		Secret:   secret, // or PublicKeys, or a JWKS
		Issuer:   "https://login.example.com/",
		Audience: []string{"https://chat.example.com"},
	})
	if err != nil {
		panic(err)
	}
	defer auth.Close()
	srv, err := server.New(server.Options{Authenticate: auth.Authenticate})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	claims := jwt.MapClaims{
		"iss": "https://login.example.com/",
		"aud": "https://chat.example.com",
		"sub": "ann",
		"exp": time.Now().Add(time.Hour).Unix(),
	}
	for _, audience := range []string{"https://chat.example.com", "https://mail.example.com"} {
		claims["aud"] = audience
		r := httptest.NewRequest("GET", "/realtime/poll?channel=news", nil)
		r.Header.Set("Authorization", "Bearer "+login(secret, claims))
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		fmt.Println(audience, w.Code)
	}
	// Output:
	// https://chat.example.com 200
	// https://mail.example.com 401
}

// Keys that the issuer publishes, and changes when it likes.
func ExampleNew_jwks() {
	auth, err := jwtauth.New(jwtauth.Options{
		JWKS:           "https://login.example.com/.well-known/jwks.json",
		Issuer:         "https://login.example.com/",
		Audience:       []string{"https://chat.example.com"},
		Type:           "at+jwt", // access tokens only
		NamespaceClaim: "org",
	})
	if err != nil {
		panic(err)
	}
	defer auth.Close()
	srv, err := server.New(server.Options{Authenticate: auth.Authenticate})
	if err != nil {
		panic(err)
	}
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)
}

// Pages can't set headers for a WebSocket. They have a cookie.
func ExampleOptions_cookie() {
	secret := bytes.Repeat([]byte("x"), 32) // 32 bytes of crypto/rand, really
	auth, err := jwtauth.New(jwtauth.Options{
		Secret: secret,
		Cookie: "__Host-token",
		Identity: func(c jwtauth.Claims) (server.Identity, error) {
			email, _ := c["email"].(string)
			if !strings.HasSuffix(email, "@example.com") {
				return server.Identity{}, errors.New("not one of us")
			}
			return server.Identity{Subject: email, Claims: c["roles"]}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	defer auth.Close()

	for _, email := range []string{"ann@example.com", "bob@example.net"} {
		r := httptest.NewRequest("GET", "/realtime/websocket", nil)
		r.AddCookie(&http.Cookie{
			Name:  "__Host-token",
			Value: login(secret, jwt.MapClaims{"email": email, "roles": []string{"author"}, "exp": time.Now().Add(time.Hour).Unix()}),
		})
		who, err := auth.Authenticate(r)
		fmt.Println(who.Subject, who.Claims, err)
	}
	// Output:
	// ann@example.com [author] <nil>
	//  <nil> jwtauth: token refused: not one of us
}
