package server

import (
	"context"
	"sync"
	"time"

	"github.com/throughline/throughline/session"
)

// A keyring has the keys of tokens: those of the options, or one of the Store's
// secret, once the Store has told it.
type keyring struct {
	store    func() session.Store
	lifetime time.Duration
	retry    time.Duration

	mu     sync.Mutex
	keys   *session.Keys // guarded by mu
	failed time.Time     // guarded by mu: when the Store last did not answer
	err    error         // guarded by mu: what it said
}

func newKeyring(o *Options, store func() session.Store) (*keyring, error) {
	k := &keyring{store: store, lifetime: o.TokenLifetime, retry: o.RetryDelay}
	if k.lifetime == 0 {
		k.lifetime = 24 * time.Hour
	}
	if k.retry == 0 {
		k.retry = time.Second
	}
	if len(o.Keys) == 0 {
		return k, nil
	}
	var err error
	k.keys, err = session.NewKeys(o.Keys, k.lifetime)
	return k, err
}

// get is core.Options.Keys. A Store that did not answer is not asked again by
// everybody, and at once.
func (k *keyring) get(ctx context.Context) (*session.Keys, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys != nil {
		return k.keys, nil
	}
	if k.err != nil && time.Since(k.failed) < k.retry {
		return nil, k.err
	}
	secret, err := k.store().Secret(ctx)
	if err == nil {
		k.keys, err = session.NewKeys([]Key{{ID: "store", Secret: secret}}, k.lifetime)
	}
	k.failed, k.err = time.Now(), err
	return k.keys, err
}
