package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// slowOptions have a publish hook, or a handler, that takes 5 s for what names
// "slow".
func slowOptions() server.Options {
	return server.Options{
		Authorize: allow,
		OnPublish: func(ctx context.Context, p *server.Publication) error {
			if p.Channel.Name == "slow" {
				sleep(ctx, 5*time.Second)
			}
			return nil
		},
		OnCall: func(ctx context.Context, r server.Request) (server.Payload, error) {
			if r.Name == "slow" {
				sleep(ctx, 5*time.Second)
			}
			return r.Payload, nil
		},
	}
}

// TestSlowHookDelaysItsProducerAlone, and TestSlowHandlerDelaysItsAnswerAlone:
// whatever others say, and whatever else comes over the same line, is answered
// at once.
func TestSlowHookDelaysItsProducerAlone(t *testing.T) {
	slowThing(t, batch(frame(1, "a"), frame(2, "slow"), frame(3, "b")), func(t *testing.T, it wireclient.Item) {
		expect(t, "P9.4: the slow one", outcomes(it), "1:ok 2:ok 3:ok")
	})
}

func TestSlowHandlerDelaysItsAnswerAlone(t *testing.T) {
	slowThing(t, call(77, "slow", `"done"`), func(t *testing.T, it wireclient.Item) {
		expect(t, "P9.12: the slow one", reply(it), `"done"`)
	})
}

func slowThing(t *testing.T, slow string, check func(*testing.T, wireclient.Item)) {
	t.Run("ws", func(t *testing.T) {
		inBubble(t, slowOptions(), func(w *world) {
			s := w.ws(hello("r", ""))
			w.next(s)
			tell(w, s, slow)
			synctest.Wait()
			began := time.Now()
			others(w)
			sameLine(w, s, strings.Contains(slow, "call"))
			if took := time.Since(began); took > 0 {
				t.Errorf("beside something slow all else took %v", took)
			}
			check(t, w.next(s))
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("the slow one took %v", took)
			}
		})
	})
	t.Run("request", func(t *testing.T) {
		inBubble(t, slowOptions(), func(w *world) {
			s, open := w.line(w.http, "sse", hello("r", ""))
			w.next(s)
			answered := make(chan wireclient.Item, 1)
			go func() { answered <- w.up(open.Token, slow) }()
			synctest.Wait()
			began := time.Now()
			others(w)
			w.publish("r", "1")
			expect(t, "the client's events", string(w.next(s).Data), "1")
			expect(t, "the client's own calls", reply(w.up(open.Token, call(1, "quick", "1"))), "1")
			if took := time.Since(began); took > 0 {
				t.Errorf("beside something slow all else took %v", took)
			}
			check(t, <-answered)
		})
	})
}

func tell(w *world, s *wireclient.WSStream, text string) {
	w.Helper()
	if err := s.Send([]byte(text)); err != nil {
		w.Fatal(err)
	}
}

// others are another producer and another caller, each way.
func others(w *world) {
	w.Helper()
	for i, way := range ways {
		say := way.open(w)
		text := strings.ReplaceAll(batch(frame(1, "a"), frame(2, "r2")), producer, wireclient.Producer(fmt.Sprint("other", i)))
		expect(w.T, "P9.2: another producer by "+way.name, outcomes(say(text)), "1:ok 2:ok")
		expect(w.T, "P9.12: another caller by "+way.name, reply(say(call(1, "quick", "1"))), "1")
	}
}

// sameLine is what else goes over the line that waits: subscribes, events, calls
// and, beside a call, publishes.
func sameLine(w *world, s *wireclient.WSStream, publishes bool) {
	w.Helper()
	tell(w, s, `{"subscribe":[{"channel":"more"}]}`)
	if it := w.next(s); !it.Opening || it.Channel != "more" {
		w.Errorf("P6.10: %+v", it)
	}
	w.publish("more", "1")
	expect(w.T, "P2.1: an event", string(w.next(s).Data), "1")
	w.publish("r", "2")
	expect(w.T, "P2.1: an event", string(w.next(s).Data), "2")
	tell(w, s, call(1, "quick", "3"))
	expect(w.T, "P9.12: a call", reply(w.next(s)), "3")
	if publishes {
		tell(w, s, batch(frame(1, "a")))
		expect(w.T, "P9.12: a publish", outcomes(w.next(s)), "1:ok")
	}
	tell(w, s, `{"unsubscribe":["more"]}`)
	if it := w.next(s); it.End == nil || it.End.Code != "unsubscribed" {
		w.Errorf("P6.10: %+v", it)
	}
}
