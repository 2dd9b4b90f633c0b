package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

func TestCalls(t *testing.T) {
	var log bytes.Buffer
	var keys notes
	o := server.Options{Authorize: allow, CallTimeout: 4 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	o.OnCall = func(ctx context.Context, r server.Request) (server.Payload, error) {
		keys.add("%s", r.Key)
		switch r.Name {
		case "echo":
			return r.Payload, nil
		case "text":
			return server.Payload{Kind: server.Text, Data: append([]byte("got "), r.Data...)}, nil
		case "fails":
			return server.Payload{}, errors.New("a secret")
		case "own":
			return server.Payload{}, transport.Refuse("no_sugar", "there is none")
		case "panics":
			panic("oh no")
		case "nothing":
			return server.Payload{}, nil
		case "bad":
			return server.Payload{Data: []byte("{")}, nil
		case "deaf":
			time.Sleep(20 * time.Second)
		}
		<-ctx.Done()
		return server.Payload{}, ctx.Err()
	}
	onWays(t, o, func(w *world, say mouth) {
		expect(w.T, "P9.9", reply(say(call(1, "echo", `{"a":1}`))), `{"a":1}`)
		expect(w.T, "P9.9", reply(say(`{"call":{"id":2,"name":"echo","data":"AAE=","encoding":"base64"}}`)), `"AAE="base64`)
		expect(w.T, "P9.9", reply(say(`{"call":{"id":3,"name":"text","data":"a\nb","encoding":"text"}}`)), `"got a\nb"`)
		expect(w.T, "nothing to say", reply(say(call(3, "nothing", "1"))), "null")
		if it := say(call(4711, "own", "1")); reply(it) != "no_sugar" || it.Reply.ID != 4711 || it.Reply.Error.Class != "never" {
			w.Errorf("P9.13: %+v", it.Reply)
		}
		for _, name := range []string{"fails", "panics", "bad"} {
			it := say(call(5, name, "1"))
			expect(w.T, "P9.13: "+name, reply(it), "failed")
			if text := fmt.Sprintf("%+v", it.Reply.Error); strings.Contains(text, "secret") {
				w.Errorf("P9.13: its text is shown: %s", text)
			}
		}
		for _, name := range []string{"slow", "deaf"} {
			began := time.Now()
			expect(w.T, "P9.10: "+name, reply(say(call(6, name, "1"))), "unknown")
			if took := time.Since(began); took != 4*time.Second {
				w.Errorf("CallTimeout: %v", took)
			}
		}
		keys.take()
		key := strings.Repeat("k", 64)
		expect(w.T, "P9.11", reply(say(`{"call":{"id":7,"name":"echo","data":1,"key":"`+key+`"}}`)), "1")
		expect(w.T, "P9.11: the key", fmt.Sprint(keys.take()), "["+key+"]")
		expect(w.T, "a name that can't be", reply(say(call(8, "\x01", "1"))), "bad_request")
		for _, word := range []string{"a secret", "function=OnCall panic", "bad answer given"} {
			if !strings.Contains(log.String(), word) {
				w.Errorf("P9.13: the log does not say %q", word)
			}
		}
		expect(w.T, "the server lives on", reply(say(call(9, "echo", `2`))), `2`)
		time.Sleep(20 * time.Second) // the deaf one
	})
	onWays(t, server.Options{}, func(w *world, say mouth) {
		expect(w.T, "nobody may call by default", reply(say(call(1, "a", "1"))), "not_found")
		expect(w.T, "nor publish", outcomes(say(batch(frame(1, "a")))), "1:forbidden")
	})
	o.Authorize = nil
	onWays(t, o, func(w *world, say mouth) { expect(w.T, "by default", reply(say(call(1, "a", "1"))), "forbidden") })
}

func TestMaxCalls(t *testing.T) {
	var inWork atomic.Int32
	o := server.Options{Authorize: allow, MaxCalls: 3, OnCall: func(ctx context.Context, r server.Request) (server.Payload, error) {
		inWork.Add(1)
		defer inWork.Add(-1)
		if r.Name == "slow" {
			sleep(ctx, 5*time.Second)
		}
		return r.Payload, nil
	}}
	inBubble(t, o, func(w *world) {
		line, open := w.line(w.http, "ws", wireclient.Hello{Line: 1})
		send := func(text string) {
			if err := line.(*wireclient.WSStream).Send([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			send(call(i, "slow", "1"))
		}
		synctest.Wait()
		began := time.Now()
		send(call(3, "quick", "1"))
		it := w.next(line)
		expect(t, "P9.12", reply(it), "busy")
		if e := it.Reply.Error; it.Reply.ID != 3 || e == nil || e.Class != "later" || e.After == 0 || inWork.Load() != 3 {
			t.Errorf("P9.12: %+v, %d in work", it.Reply, inWork.Load())
		}
		expect(t, "P9.12: the same client by request", reply(w.up(open.Token, call(1, "quick", "1"))), "busy")
		expect(t, "P9.12: another client", reply(w.sayOnLine()(call(1, "quick", "1"))), "1")
		if took := time.Since(began); took > 0 {
			t.Errorf("P9.12: that took %v", took)
		}
		for range 3 {
			expect(t, "P9.12", reply(w.next(line)), "1")
		}
		synctest.Wait()
		send(call(4, "quick", "2"))
		expect(t, "P9.12", reply(w.next(line)), "2")
	})
}
