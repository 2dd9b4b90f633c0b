package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// MinSecret is the fewest bytes of a key's secret.
const MinSecret = 32

// maxKeyID is the most characters of a key's id.
const maxKeyID = 64

// A Key signs tokens. Its secret is not shown when it is printed or logged,
// unless by reflection, as where it is an unexported field of something else.
type Key struct {
	// ID names the key in the tokens it signed: 1 to 64 characters
	// [A-Za-z0-9_-].
	ID string
	// Secret is at least [MinSecret] random bytes.
	Secret []byte
}

// String returns the key's id, and not its secret.
func (k Key) String() string { return "key " + k.ID }

// Format prints String, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String, so that no encoder writes the secret.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Keys sign tokens, and verify them. They may be used concurrently.
//
// To change the key without ending a session, put the new one first and keep
// the old one behind it for as long as tokens live. Where several nodes verify
// each other's tokens, the new key first stands behind the old one everywhere.
type Keys struct {
	signs    *signer
	byID     map[string]*signer
	lifetime time.Duration
}

// NewKeys returns keys of which the first signs and all verify. lifetime is how
// long a token is good for, from a second up.
func NewKeys(keys []Key, lifetime time.Duration) (*Keys, error) {
	if len(keys) == 0 {
		return nil, errors.New("session: no key is given")
	}
	if lifetime < time.Second {
		return nil, fmt.Errorf("session: a token's lifetime is %v, not at least a second", lifetime)
	}
	k := &Keys{byID: make(map[string]*signer, len(keys)), lifetime: lifetime}
	for i, key := range keys {
		switch {
		case key.ID == "" || len(key.ID) > maxKeyID || strings.Trim(key.ID, keyIDAlphabet) != "":
			return nil, fmt.Errorf("session: key %d has the id %.80q, not 1 to %d characters [A-Za-z0-9_-]", i+1, key.ID, maxKeyID)
		case k.byID[key.ID] != nil:
			return nil, fmt.Errorf("session: two keys have the id %q", key.ID)
		case len(key.Secret) < MinSecret:
			return nil, fmt.Errorf("session: key %q has a secret of %d bytes, not at least %d", key.ID, len(key.Secret), MinSecret)
		}
		k.byID[key.ID] = newSigner(key)
	}
	k.signs = k.byID[keys[0].ID]
	return k, nil
}

const keyIDAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
