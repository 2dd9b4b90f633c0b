package redis

import (
	"context"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

var _ session.Store = (*Log)(nil)

// Secret implements [session.Store].
func (l *Log) Secret(ctx context.Context) ([]byte, error) { return l.leases.Secret(ctx) }

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
