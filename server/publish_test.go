package server_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

type published struct {
	Position   string
	Duplicate  bool
	Remembered int64
	Error      struct{ Code string }
}

func (w *world) post(path, body string, headers ...string) (int, published) {
	w.Helper()
	r := w.do("POST", path, body, headers...)
	var p published
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		w.Fatal(err)
	}
	return r.StatusCode, p
}

func TestPublishIsIdempotent(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		const key = "0123456789abcdef"
		status, first := w.post("/publish?channel=r&type=said", "1", "Idempotency-Key", key)
		if status != 200 || first.Position == "" || first.Duplicate || first.Remembered != 600_000 {
			t.Fatalf("P7.2: %d %+v", status, first)
		}
		if _, again := w.post("/publish?channel=r", "1", "Idempotency-Key", key); again.Position != first.Position || !again.Duplicate {
			t.Errorf("P7.3: repeated: %+v, first %+v", again, first)
		}
		if _, third := w.post("/publish?channel=r", "3", "Idempotency-Key", key, "Producer-Seq", "3"); third.Duplicate || third.Position == first.Position {
			t.Errorf("P7.3: number 3: %+v", third)
		}
		if status, stale := w.post("/publish?channel=r", "2", "Idempotency-Key", key, "Producer-Seq", "2"); status != 409 || stale.Error.Code != "stale" {
			t.Errorf("P7.3: number 2 after 3: %d %+v", status, stale)
		}
		if _, other := w.post("/publish?channel=s", "1", "Idempotency-Key", key); other.Duplicate {
			t.Errorf("P7.3: numbers are a channel's own: %+v", other)
		}
		page, err := w.log.Read(w.ctx, server.Channel{Name: "r"}, w.seek("r", eventlog.Start{Earliest: true}), eventlog.Limit{})
		if err != nil || len(page.Events) != 2 || page.Events[0].Type != "said" {
			t.Errorf("the log holds %+v, %v", page.Events, err)
		}
	})
}

// TestKeyIsJoinedWithSubject: who learns another's key can't use up its numbers.
// TestPublishBatch: the program itself publishes once under a number, and only where
// nothing came since.
func TestPublishBatch(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		ch := server.Channel{Name: "r"}
		b := eventlog.Batch{
			Messages: []server.Message{{Data: []byte("1")}, {Data: []byte("2")}},
			Producer: eventlog.Producer{ID: "order 7 shipped", Seq: 1},
		}
		first, duplicate, err := w.srv.PublishBatch(w.ctx, ch, b)
		if err != nil || duplicate {
			t.Fatalf("duplicate %v, %v", duplicate, err)
		}
		if again, duplicate, err := w.srv.PublishBatch(w.ctx, ch, b); again != first || !duplicate || err != nil {
			t.Errorf("repeated: %v, not %v, duplicate %v, %v", again, first, duplicate, err)
		}
		since := eventlog.Batch{Messages: b.Messages[:1], Expect: &first}
		if _, _, err := w.srv.PublishBatch(w.ctx, ch, since); err != nil {
			t.Errorf("nothing came since: %v", err)
		}
		_, _, err = w.srv.PublishBatch(w.ctx, ch, since)
		if _, ok := errors.AsType[*eventlog.Expectation](err); !ok {
			t.Errorf("something came since: %v", err)
		}
		page, err := w.log.Read(w.ctx, ch, w.seek("r", eventlog.Start{Earliest: true}), eventlog.Limit{})
		if err != nil || len(page.Events) != 3 {
			t.Errorf("%d events, %v", len(page.Events), err)
		}
	})
}

func TestKeyIsJoinedWithSubject(t *testing.T) {
	byHeader := func(r *http.Request) (server.Identity, error) {
		if r.Header.Get("User") == "" {
			return server.Identity{}, errors.New("no user")
		}
		return server.Identity{Subject: r.Header.Get("User")}, nil
	}
	inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader}, func(w *world) {
		const key = "0123456789abcdef"
		_, a := w.post("/publish?channel=r", "1", "Idempotency-Key", key, "User", "a")
		_, b := w.post("/publish?channel=r", "1", "Idempotency-Key", key, "User", "b")
		if a.Duplicate || b.Duplicate || a.Position == b.Position {
			t.Errorf("P7.3: %+v and %+v", a, b)
		}
		// A subject and key whose texts joined are the same as another's.
		_, c := w.post("/publish?channel=r", "1", "Idempotency-Key", "b0123456789abcdef", "User", "x")
		_, d := w.post("/publish?channel=r", "1", "Idempotency-Key", key, "User", "xb")
		if c.Duplicate || d.Duplicate {
			t.Errorf("P7.3: %+v and %+v", c, d)
		}
		if status, p := w.post("/publish?channel=r", "1"); status != 401 || p.Error.Code != "unauthorized" {
			t.Errorf("unknown: %d %+v", status, p)
		}
	})
}

func TestKindOfBody(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		for _, c := range []struct {
			contentType, body string
			want              eventlog.Kind
		}{
			{"application/json", `{"a":1}`, server.JSON},
			{"application/ld+json; charset=utf-8", `1`, server.JSON},
			{"text/plain; charset=utf-8", `{"a":1}`, server.Text},
			{"image/png", "\x00", server.Binary},
			{"application/octet-stream", `1`, server.Binary},
			{"application/x-www-form-urlencoded", `{"curl":"-d"}`, server.JSON},
			{"application/x-www-form-urlencoded", `hello there`, server.Text},
			{"", "\xff\xfe", server.Binary},
		} {
			before := w.seek("r", eventlog.Start{})
			if status, p := w.post("/publish?channel=r", c.body, "Content-Type", c.contentType); status != 200 {
				t.Fatalf("%+v: %d %+v", c, status, p)
			}
			page, err := w.log.Read(w.ctx, server.Channel{Name: "r"}, before, eventlog.Limit{})
			if err != nil || page.Events[0].Kind != c.want || string(page.Events[0].Data) != c.body {
				t.Errorf("P7.1: %q %q became %v %q", c.contentType, c.body, page.Events[0].Kind, page.Events[0].Data)
			}
		}
	})
}

func (w *world) seek(channel string, s eventlog.Start) eventlog.Position {
	w.Helper()
	at, err := w.log.Seek(w.ctx, server.Channel{Name: channel}, s)
	if err != nil {
		w.Fatal(err)
	}
	return at
}

// smallLog keeps so many events of a channel.
func smallLog(events int) func() eventlog.Log {
	return func() eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{
			Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: events} },
		})
	}
}
