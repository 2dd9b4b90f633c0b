package jwtauth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of RSA keys, in bits: shorter ones can be broken (RFC 7518 §3.3), and
// longer ones cost too much for each token.
const (
	minRSA = 2048
	maxRSA = 8192
)

// maxKeys is the most keys of a source. A token without a kid is tried on all
// that fit.
const maxKeys = 100

// maxKeyID is the most characters of a kid.
const maxKeyID = 64

const keyIDAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=-"

func validKeyID(id string) bool {
	return id != "" && len(id) <= maxKeyID && strings.Trim(id, keyIDAlphabet) == ""
}

// An algorithm says which keys fit it. A token can't have a key used by an
// algorithm it isn't for (RFC 8725 §3.1).
type algorithm struct {
	secret int                // the fewest bytes of a secret; 0: not with a secret
	fits   func(key any) bool // nil with a secret
}

var algorithms = map[string]algorithm{
	"HS256": {secret: MinSecret},
	"HS384": {secret: 48},
	"HS512": {secret: 64},
	"RS256": {fits: isRSA},
	"RS384": {fits: isRSA},
	"RS512": {fits: isRSA},
	"PS256": {fits: isRSA},
	"PS384": {fits: isRSA},
	"PS512": {fits: isRSA},
	"ES256": {fits: isOnCurve(elliptic.P256())},
	"ES384": {fits: isOnCurve(elliptic.P384())},
	"ES512": {fits: isOnCurve(elliptic.P521())},
	"EdDSA": {fits: isEd25519},
}

func isRSA(key any) bool {
	k, ok := key.(*rsa.PublicKey)
	return ok && k.N.BitLen() >= minRSA && k.N.BitLen() <= maxRSA
}

func isOnCurve(curve elliptic.Curve) func(any) bool {
	return func(key any) bool {
		k, ok := key.(*ecdsa.PublicKey)
		return ok && k.Curve == curve
	}
}

func isEd25519(key any) bool {
	k, ok := key.(ed25519.PublicKey)
	return ok && len(k) == ed25519.PublicKeySize
}

// checkAlgorithms holds those that are configured against the kind of the keys:
// where public keys and a secret could be taken for each other, anybody could
// sign by a public key.
func checkAlgorithms(names []string, secret bool) error {
	for _, name := range names {
		a, known := algorithms[name]
		switch {
		case !known:
			return fmt.Errorf("jwtauth: no algorithm %.20q", name)
		case a.secret == 0 && secret:
			return fmt.Errorf("jwtauth: %s doesn't verify by a Secret", name)
		case a.secret > 0 && !secret:
			return fmt.Errorf("jwtauth: %s verifies by a Secret, and public keys are none", name)
		}
	}
	return nil
}

// A key verifies tokens.
type key struct {
	id         string   // of tokens it is for; empty: see keySet
	algorithms []string // those of the options that it serves, never empty
	public     any      // what golang-jwt takes for them
}

func newKey(id string, public any, names []string) (key, bool) {
	k := key{id: id, public: public}
	for _, name := range names {
		if algorithms[name].fits(public) {
			k.algorithms = append(k.algorithms, name)
		}
	}
	return k, len(k.algorithms) > 0
}

// newSecret returns the one key that a secret is. kids don't matter to it.
func newSecret(secret []byte, names []string) (key, error) {
	for _, name := range names {
		if need := algorithms[name].secret; len(secret) < need {
			return key{}, fmt.Errorf("jwtauth: Secret has %d bytes; %s needs at least %d", len(secret), name, need)
		}
	}
	if bytes.HasPrefix(bytes.TrimSpace(secret), []byte("-----BEGIN ")) {
		return key{}, errors.New("jwtauth: Secret is a PEM block; public keys go into PublicKeys")
	}
	return key{algorithms: names, public: bytes.Clone(secret)}, nil
}

// publicKeys reads those of the options.
func publicKeys(given []PublicKey, names []string) ([]key, error) {
	var keys []key
	ids := make(map[string]bool)
	for i, g := range given {
		if g.ID != "" && !validKeyID(g.ID) {
			return nil, fmt.Errorf("jwtauth: public key %d has the ID %.80q, not at most %d characters [A-Za-z0-9._~+/=-]", i+1, g.ID, maxKeyID)
		}
		if g.ID != "" && ids[g.ID] {
			return nil, fmt.Errorf("jwtauth: two public keys have the ID %q", g.ID)
		}
		ids[g.ID] = true
		found, err := parsePEM(g.PEM)
		switch {
		case err != nil:
			return nil, fmt.Errorf("jwtauth: public key %d: %w", i+1, err)
		case g.ID != "" && len(found) > 1:
			return nil, fmt.Errorf("jwtauth: public key %d has an ID and %d PEM blocks, not one", i+1, len(found))
		}
		for _, public := range found {
			k, fits := newKey(g.ID, public, names)
			if !fits {
				return nil, fmt.Errorf("jwtauth: public key %d, %s, fits none of the algorithms %v", i+1, describe(public), names)
			}
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("jwtauth: %d public keys, not 1 to %d", len(keys), maxKeys)
	}
	return keys, nil
}

// describe says what kind of key it is, so that one sees why it doesn't fit.
func describe(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA of %d bits (%d to %d are used)", k.N.BitLen(), minRSA, maxRSA)
	case *ecdsa.PublicKey:
		return "ECDSA on " + k.Curve.Params().Name
	}
	return fmt.Sprintf("a %T", public)
}

// parsePEM returns the keys of all blocks.
func parsePEM(text []byte) ([]any, error) {
	var keys []any
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("there is something that is no PEM block")
		}
		switch block.Type {
		case "PUBLIC KEY":
			public, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("a block can't be read: %w", err)
			}
			keys = append(keys, public)
		case "CERTIFICATE":
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("a certificate can't be read: %w", err)
			}
			keys = append(keys, certificate.PublicKey)
		default:
			return nil, fmt.Errorf("a PEM block is a %.40q, not a PUBLIC KEY or CERTIFICATE", block.Type)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no PEM block")
	}
	return keys, nil
}

// A keySet is what tokens are tried on. It doesn't change.
type keySet struct {
	keys []key
	// anonymous says that a key without an id is for any kid, as it is among the
	// options, where the program chose it. A key of a JWKS without one is only
	// for tokens without one, as an unknown kid may be that of a new key.
	anonymous bool
}

// find returns the keys to try for a token, and whether its kid is known at
// all.
func (s keySet) find(kid, alg string) (found []any, known bool) {
	for _, k := range s.keys {
		if kid != "" && k.id != kid && (k.id != "" || !s.anonymous) {
			continue
		}
		known = true
		if slices.Contains(k.algorithms, alg) {
			found = append(found, k.public)
		}
	}
	return found, known
}
