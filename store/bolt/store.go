package bolt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

var _ session.Store = (*Log)(nil)

// Secret implements [session.Store]. It is in the file: tokens are good across
// restarts.
func (l *Log) Secret(ctx context.Context) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", session.ErrUnavailable, context.Cause(ctx))
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, fmt.Errorf("%w: it is closed", session.ErrUnavailable)
	}
	return slices.Clone(l.secret), nil
}

// The leases are in memory. A lease says that somebody has a connection to this
// process, and no connection outlives it: in a file, leases would be of sessions
// that nobody serves, and present until they ran out. Clients that come back
// after a restart claim theirs again.

// Claim implements [session.Store].
func (l *Log) Claim(ctx context.Context, held session.Held, lease session.Lease) error {
	return l.leases.Claim(ctx, held, lease)
}

// Touch implements [session.Store].
func (l *Log) Touch(ctx context.Context, held []session.Held) (missing []session.Held, err error) {
	return l.leases.Touch(ctx, held)
}

// Release implements [session.Store].
func (l *Log) Release(ctx context.Context, held session.Held, idle time.Duration) (ended bool, err error) {
	return l.leases.Release(ctx, held, idle)
}

// Present implements [session.Store].
func (l *Log) Present(ctx context.Context, ch eventlog.Channel, most int) (members []session.Member, total int, err error) {
	return l.leases.Present(ctx, ch, most)
}
