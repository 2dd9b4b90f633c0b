package ws

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/transport"
)

// TestProve: a pong proves that the client read what came before its ping, another doesn't,
// and whoever waits for one is freed when the connection ends.
func TestProve(t *testing.T) {
	pong := func(c *conn, holds string) { c.ponged(context.Background(), []byte(holds)) }
	for name, want := range map[string]struct {
		happens func(c *conn)
		err     error
		after   time.Duration
	}{
		"answered":         {func(c *conn) { pong(c, string(proof)) }, nil, time.Second},
		"another answered": {func(c *conn) { pong(c, "") }, os.ErrDeadlineExceeded, 5 * time.Second},
		"aborted":          {func(c *conn) { c.Close(transport.Reason{}) }, transport.ErrClosed, time.Second},
		"left":             {func(c *conn) { _ = c.gate.Close() }, transport.ErrClosed, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := memnet.Pipe()
				defer client.Close()
				c := &conn{gate: newGate(time.Second), proofs: make(chan struct{}, 1)}
				c.gate.Conn = server
				began := time.Now()
				time.AfterFunc(time.Second, func() { want.happens(c) })
				err := c.Prove(began.Add(5 * time.Second))
				if took := time.Since(began); !errors.Is(err, want.err) || took != want.after {
					t.Errorf("%v after %v, want %v after %v", err, took, want.err, want.after)
				}
				if op, holds, err := readFrame(client); op != opPing || string(holds) != string(proof) || err != nil {
					t.Errorf("frame %x %q, %v", op, holds, err)
				}
			})
		})
	}
}
