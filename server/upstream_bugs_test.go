package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// Each test here shows a fault that the random schedules found.

// TestProgramsOwnInvalidOnARepeat: the program's hook may answer by any code, so
// also by "invalid", which it need not say of each copy. A repeat of what is in
// the log must not be told as refused for good (P9.6, and P9.4: "and was not
// appended").
func TestProgramsOwnInvalidOnARepeat(t *testing.T) {
	over := false
	o := server.Options{Authorize: allow, OnPublish: func(context.Context, *server.Publication) error {
		if over {
			return transport.Refuse("invalid", "this game is over")
		}
		return nil
	}}
	onWays(t, o, func(w *world, say mouth) {
		over = false
		expect(w.T, "the first copy", outcomes(say(batch(frame(1, "a")))), "1:ok") // say its answer is lost
		over = true
		expect(w.T, "P9.6: its repeat", outcomes(say(batch(repeated(frame(1, "a"))))), "1:unknown")
	})
}

// TestLongBatchOutlivesTheMemoryOfProducers: 64 frames may take 64 times
// PublishTimeout, which by default is longer than the log remembers producers:
// the last frame of a repeat that was sent in good time (P9.6) is appended again.
func TestLongBatchOutlivesTheMemoryOfProducers(t *testing.T) {
	slow := false
	o := server.Options{Authorize: allow, OnPublish: func(ctx context.Context, _ *server.Publication) error {
		if slow && !sleep(ctx, 9900*time.Millisecond) {
			return ctx.Err()
		}
		return nil
	}}
	onWays(t, o, func(w *world, say mouth) {
		var frames, again []string
		for i := range 64 {
			frames = append(frames, frame(i+1, fmt.Sprint("c", i)))
			again = append(again, repeated(frames[i]))
		}
		slow = false
		say(batch(frames...)) // say its answer is lost
		slow = true
		time.Sleep(30 * time.Second)
		it := say(batch(again...))
		slow = false
		if got := w.holds("c63"); len(got) != 1 {
			w.Errorf("D7: number 64 is in the log as %q; the repeat was answered %s", got, outcomes(it))
		}
	})
}

// TestRepeatableCallOutlivesAShutdown: a node that goes away in good order must
// not be worse than one that dies. The client would repeat a repeatable call at
// another node (P9.11: until it is answered), but is told unknown, for good.
func TestRepeatableCallOutlivesAShutdown(t *testing.T) {
	o := server.Options{Authorize: allow, OnCall: func(ctx context.Context, r server.Request) (server.Payload, error) {
		if !sleep(ctx, 5*time.Second) {
			return server.Payload{}, ctx.Err()
		}
		return r.Payload, nil
	}}
	const text = `{"call":{"id":1,"name":"a","data":1,"key":"k"}}`
	check := func(t *testing.T, way string, r *wireclient.Reply) {
		if r != nil && r.Error != nil && r.Error.Class == "never" {
			t.Errorf("P9.11: %s: a repeatable call is ended by a shutdown: %+v", way, r.Error)
		}
	}
	inBubble(t, o, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 1, Line: 1})
		tell(w, s, text)
		answered := make(chan wireclient.Item, 1)
		go func() { answered <- w.up("", text) }()
		synctest.Wait()
		go w.srv.Close()
		check(t, "request", (<-answered).Reply)
		check(t, "ws", w.next(s).Reply)
	})
}

// TestCallThatDidNotRunIsNotUnknown: the time was over before the handler was
// asked, so it is known that it did not run.
func TestCallThatDidNotRunIsNotUnknown(t *testing.T) {
	runs := 0
	o := server.Options{CallTimeout: time.Second, Authorize: func(ctx context.Context, _ server.Identity, what server.Action, _ server.Channel) error {
		if what == server.Call {
			<-ctx.Done()
			return errors.New("broken off")
		}
		return nil
	}}
	o.OnCall = func(context.Context, server.Request) (server.Payload, error) {
		runs++
		return server.Payload{Data: []byte("1")}, nil
	}
	onWays(t, o, func(w *world, say mouth) {
		if got := reply(say(call(1, "a", "1"))); got != "unavailable" {
			w.Errorf("P9.10: a call that ran %d times is answered %s", runs, got)
		}
	})
}

// TestNextCallIsNotBusy: who awaits the answer has one call less in work.
func TestNextCallIsNotBusy(t *testing.T) {
	o := server.Options{Authorize: allow, MaxCalls: 1, OnCall: func(_ context.Context, r server.Request) (server.Payload, error) { return r.Payload, nil }}
	onWays(t, o, func(w *world, say mouth) {
		busy := 0
		for i := range 3000 {
			if strings.Contains(reply(say(call(i, "a", "1"))), "busy") {
				busy++
			}
		}
		if busy > 0 {
			w.Errorf("P9.12: %d of 3000 calls were busy, one at a time", busy)
		}
	})
}

// TestEscapesAreNoData: a text within the log's bound is one that may be
// published (P9.1), however much its JSON has to escape.
func TestEscapesAreNoData(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		text := strings.Repeat(`\n`, 800_000) // bytes of data, within 1 MiB
		got := outcomes(w.up("", batch(`{"seq":1,"channel":"a","messages":[{"encoding":"text","data":"`+text+`"}]}`)))
		expect(t, "P9.1: a text of 800,000 bytes", got, "1:ok")
	})
}

// TestHookThatOutlivesItsTime: the log need not be asked when the time is over,
// so it is known that nothing was done (P9.5), and a later refusal need not be
// told as unknown (P9.6).
func TestHookThatOutlivesItsTime(t *testing.T) {
	o := server.Options{Authorize: allow, PublishTimeout: 2 * time.Second, OnPublish: func(context.Context, *server.Publication) error {
		time.Sleep(3 * time.Second) // deaf to its context
		return nil
	}}
	onWays(t, o, func(w *world, say mouth) {
		expect(w.T, "P9.5", outcomes(say(batch(frame(1, "a")))), "1:again:unavailable")
	})
}
