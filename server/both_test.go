package server_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// A logAndStore is both, as a durable log is. It counts how often it is closed.
type logAndStore struct {
	*eventlog.Memory

	store  *session.Memory
	closed int
}

func newLogAndStore() *logAndStore {
	return &logAndStore{Memory: eventlog.NewMemory(eventlog.MemoryOptions{}), store: session.NewMemory(session.MemoryOptions{})}
}

func (b *logAndStore) Secret(ctx context.Context) ([]byte, error) { return b.store.Secret(ctx) }

func (b *logAndStore) Claim(ctx context.Context, h session.Held, l session.Lease) error {
	return b.store.Claim(ctx, h, l)
}

func (b *logAndStore) Touch(ctx context.Context, h []session.Held) ([]session.Held, error) {
	return b.store.Touch(ctx, h)
}

func (b *logAndStore) Release(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
	return b.store.Release(ctx, h, idle)
}

func (b *logAndStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	return b.store.Present(ctx, ch, most)
}

func (b *logAndStore) Close() error {
	b.closed++
	_ = b.store.Close()
	return b.Memory.Close()
}

// TestLogIsStore: a Log that is a Store, too, is both to the server, unless
// another Store is given, and stays the caller's.
func TestLogIsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, ch := context.Background(), server.Channel{Name: "room"}
		both, other := newLogAndStore(), session.NewMemory(session.MemoryOptions{})
		defer other.Close()
		held := session.Held{ID: "ann", Line: 1}
		if err := both.Claim(ctx, held, session.Lease{Channels: []string{"room"}, For: time.Minute}); err != nil {
			t.Fatal(err)
		}
		for want, o := range []server.Options{{Log: both, Store: other}, {Log: both}} {
			srv, err := server.New(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, total, err := srv.Present(ctx, ch); total != want || err != nil {
				t.Errorf("%d are present, not %d; error %v", total, want, err)
			}
			if err := srv.Close(); err != nil {
				t.Error(err)
			}
		}
		if both.closed != 0 {
			t.Errorf("the server closed it %d times", both.closed)
		}
		if err := both.Close(); err != nil {
			t.Error(err)
		}
	})
}
