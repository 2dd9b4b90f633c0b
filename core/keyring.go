package core

import (
	"context"
	"sync"
	"time"

	"github.com/throughline/throughline/session"
)

// A keyring has the keys of tokens: those of the options, or one of the Store's
// secret, once the Store has told it.
type keyring struct {
	engine *Engine

	mu     sync.Mutex
	keys   *session.Keys // guarded by mu
	asking chan struct{} // guarded by mu: not nil while the Store is asked; closes then
	failed time.Time     // guarded by mu: when the Store last did not answer
	err    error         // guarded by mu: what it said
}

// get returns the keys. The Store is asked once for all who wait, and again only
// a while after it did not answer; who waits no longer disturbs nobody else.
func (k *keyring) get(ctx context.Context) (*session.Keys, error) {
	k.mu.Lock()
	if k.keys != nil || k.asking == nil && k.err != nil && time.Since(k.failed) < k.engine.o.RetryDelay {
		defer k.mu.Unlock()
		return k.keys, k.err
	}
	if k.asking == nil {
		k.asking = make(chan struct{})
		if !k.engine.spawn(k.ask) {
			k.asking = nil
			k.mu.Unlock()
			return nil, k.engine.shutdown()
		}
	}
	asking := k.asking
	k.mu.Unlock()
	select {
	case <-asking:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys, k.err
}

// ask asks the Store.
func (k *keyring) ask() {
	o := &k.engine.o
	ctx, cancel := context.WithTimeout(k.engine.ctx, o.StoreTimeout)
	defer cancel()
	secret, err := o.Store.Secret(ctx)
	var keys *session.Keys
	if err == nil {
		keys, err = session.NewKeys([]session.Key{{ID: "store", Secret: secret}}, o.TokenLifetime)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.err, k.failed = keys, err, time.Now()
	close(k.asking)
	k.asking = nil
}
