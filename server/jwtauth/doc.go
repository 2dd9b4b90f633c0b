// Package jwtauth authenticates requests by JSON Web Tokens (RFC 7519), for
// programs whose users log in somewhere else:
//
//	auth, err := jwtauth.New(jwtauth.Options{
//		JWKS:     "https://login.example.com/.well-known/jwks.json",
//		Issuer:   "https://login.example.com/",
//		Audience: []string{"https://chat.example.com"},
//	})
//	srv, err := server.New(server.Options{Authenticate: auth.Authenticate})
//
// A token comes in the Authorization header (RFC 6750 §2.1) or in a cookie,
// and never in the address, which ends up in logs and histories (RFC 6750
// §5.3). It is good if a key that was configured signed it by an algorithm that
// was configured and that fits the key, if it has not expired, and if its
// claims are what [Options] demand. The token itself has no say in that: what
// its header brings along as keys is not read (RFC 8725 §3).
//
// Reading is strict where leniency has been of use to attackers: a token has
// one text (RFC 4648 §3.5), its JSON names each member once (RFC 7519 §4), its
// times are numbers that are dates, and it has a bounded length.
package jwtauth
