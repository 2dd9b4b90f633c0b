package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

func start(t *testing.T, folder string) *service {
	t.Helper()
	s, err := open(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) do(t *testing.T, c Command) (*Order, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return (&Desk{log: s.events, table: s.table}).Do(ctx, c)
}

func (s *service) must(t *testing.T, c Command) {
	t.Helper()
	if _, err := s.do(t, c); err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
}

func wantRefusal(t *testing.T, err error, code string) {
	t.Helper()
	if r, ok := errors.AsType[*transport.Refusal](err); !ok || r.Code != code {
		t.Errorf("%v, want the refusal %s", err, code)
	}
}

func TestWhatIsDecided(t *testing.T) {
	tea := Command{Name: "place", Order: "1", Item: "Tea", Quantity: 1}
	status := func(s string) *Order { return &Order{ID: "1", Status: s} }
	for _, c := range []struct {
		order *Order
		do    Command
		want  string // a type, or the code of a refusal
	}{
		{nil, tea, placed},
		{status(placed), tea, "exists"},
		{nil, Command{Name: "place", Order: "1", Item: "Tea"}, "invalid_order"},
		{nil, Command{Name: "place", Order: "1", Item: "Tea", Quantity: 1001}, "invalid_order"},
		{nil, Command{Name: "place", Item: "Tea", Quantity: 1}, "invalid_order"},
		{nil, Command{Name: "pay", Order: "1"}, "no_such_order"},
		{status(placed), Command{Name: "pay", Order: "1"}, paid},
		{status(placed), Command{Name: "cancel", Order: "1"}, cancelled},
		{status(placed), Command{Name: "ship", Order: "1"}, "too_late"},
		{status(paid), Command{Name: "ship", Order: "1"}, shipped},
		{status(paid), Command{Name: "cancel", Order: "1"}, "too_late"},
		{status(cancelled), Command{Name: "pay", Order: "1"}, "too_late"},
		{status(placed), Command{Name: "eat", Order: "1"}, "no_such_command"},
	} {
		typ, _, err := decide(c.order, c.do)
		if err != nil {
			wantRefusal(t, err, c.want)
		} else if typ != c.want {
			t.Errorf("%+v of %+v: %s, want %s", c.do, c.order, typ, c.want)
		}
	}
}

// TestTheTableIsMadeAgain: from its file, without it, from one that is broken, and
// from one of another log, it comes out the same.
func TestTheTableIsMadeAgain(t *testing.T) {
	folder := t.TempDir()
	s := start(t, folder)
	for i := range 50 {
		id := fmt.Sprint(i)
		s.must(t, Command{Name: "place", Order: id, Item: "Tea", Quantity: i + 1})
		if i%2 == 0 {
			s.must(t, Command{Name: "pay", Order: id})
		}
	}
	want, _, _ := s.table.All()
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "orders.json")
	other, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other = []byte(strings.Replace(string(other), `"position":"a`, `"position":"a1`, 1)) // farther than this log
	for name, spoil := range map[string]func() error{
		"as it was":         func() error { return nil },
		"deleted":           func() error { return os.Remove(file) },
		"broken":            func() error { return os.WriteFile(file, []byte("{"), 0o600) },
		"of another shape":  func() error { return os.WriteFile(file, []byte(`{"shape":1}`), 0o600) },
		"of another log":    func() error { return os.WriteFile(file, other, 0o600) },
		"as it was made so": func() error { return nil },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		s := start(t, folder)
		head, err := s.events.Seek(t.Context(), orders, eventlog.Start{})
		if err != nil {
			t.Fatal(err)
		}
		if got, at, events := s.table.All(); !reflect.DeepEqual(got, want) || at != head || events != 75 {
			t.Errorf("%s: %d orders of %d events at %v, want %d of 75 at %v", name, len(got), events, at, len(want), head)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneOfManyCommandsWins: what was decided on a state that is none any more is
// decided again.
func TestOneOfManyCommandsWins(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.close()
	s.must(t, Command{Name: "place", Order: "1", Item: "Tea", Quantity: 1})
	var all sync.WaitGroup
	errs := make(chan error, 40)
	for i := range cap(errs) {
		all.Go(func() {
			_, err := s.do(t, Command{Name: []string{"pay", "cancel"}[i%2], Order: "1"})
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	won := 0
	for err := range errs {
		if err == nil {
			won++
		} else {
			wantRefusal(t, err, "too_late")
		}
	}
	if _, _, events := s.table.All(); won != 1 || events != 2 {
		t.Errorf("%d of 40 commands won, and there are %d events; want 1, and 2", won, events)
	}
}

// TestACommandIsObeyedOnce: said again, as its answer was lost, also after others, and
// after a restart.
func TestACommandIsObeyedOnce(t *testing.T) {
	folder := t.TempDir()
	s := start(t, folder)
	commands := []Command{
		{Name: "place", Key: "a", Order: "1", Item: "Tea", Quantity: 1},
		{Name: "pay", Key: "b", Order: "1"},
		{Name: "ship", Key: "c", Order: "1"},
	}
	for i, c := range commands {
		s.must(t, c)
		for _, again := range commands[:i+1] {
			s.must(t, again)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, folder)
	defer s.close()
	for _, again := range commands {
		if o, err := s.do(t, again); err != nil || o.Status != shipped {
			t.Errorf("%s again: %+v, %v; want the order as it is now", again.Name, o, err)
		}
	}
	if _, _, events := s.table.All(); events != 3 {
		t.Errorf("%d events, want 3", events)
	}
	_, err := s.do(t, Command{Name: "pay", Key: "another", Order: "1"})
	wantRefusal(t, err, "too_late")
}

// TestTheTableIsAlwaysWhole: while it is made again of many events, and more come.
func TestTheTableIsAlwaysWhole(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.close()
	const many, ids = 30_000, 10
	var last eventlog.Position
	for i := 0; i < many; i += eventlog.MaxBatch {
		var b eventlog.Batch
		for n := range eventlog.MaxBatch {
			id := fmt.Sprint("old ", n%ids)
			b.Messages = append(b.Messages, eventlog.Message{Type: placed, Key: id, Data: []byte(`{"order":"` + id + `"}`)})
		}
		var err error
		if last, _, err = s.events.Append(t.Context(), orders, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.table.Reach(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	desk := &Desk{log: s.events, table: s.table}
	done := make(chan error, 2)
	go func() { // a new table, again and again
		for range 5 {
			p, err := desk.answer(t.Context(), server.Request{Name: "rebuild"})
			var made struct{ Events int }
			if err = errors.Join(err, json.Unmarshal(p.Data, &made)); err == nil && made.Events < many {
				err = fmt.Errorf("made again of %d events", made.Events)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	go func() { // and orders meanwhile
		for i := range 20 {
			if _, err := desk.Do(t.Context(), Command{Name: "place", Order: fmt.Sprint(i), Item: "Tea", Quantity: 1}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for seen, running := many, 2; running > 0; {
		select {
		case err := <-done:
			if running--; err != nil {
				t.Error(err)
			}
		default:
		}
		got := httptest.NewRecorder()
		s.list(got, nil)
		var table struct {
			Events int
			Orders []Order
		}
		if err := json.Unmarshal(got.Body.Bytes(), &table); err != nil || table.Events < seen || len(table.Orders) != ids+table.Events-many {
			t.Fatalf("after a table of %d events, one of %d, with %d orders (%v)", seen, table.Events, len(table.Orders), err)
		}
		seen = table.Events
	}
}

// A failingLog appends, and then says that it doesn't know whether it did.
type failingLog struct{ eventlog.Log }

func (l failingLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	if _, _, err := l.Log.Append(ctx, ch, b); err != nil {
		return eventlog.Position{}, false, err
	}
	return eventlog.Position{}, false, fmt.Errorf("%w: the disk fails", eventlog.ErrUnavailable)
}

// TestALogThatIsAwayIsAskedAgain: who gave a command is told to come back, as it may
// have been obeyed, and then it is obeyed once.
func TestALogThatIsAwayIsAskedAgain(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.close()
	say := server.Request{Name: "place", Key: "a", Payload: server.Payload{Data: []byte(`{"order":"1","item":"Tea","quantity":1}`)}}
	_, err := (&Desk{log: failingLog{s.events}, table: s.table}).answer(t.Context(), say)
	wantRefusal(t, err, transport.CodeUnavailable)
	if r, ok := errors.AsType[*transport.Refusal](err); ok && r.Class != transport.Later {
		t.Errorf("its class is %v, want later", r.Class)
	}
	if _, err := (&Desk{log: s.events, table: s.table}).answer(t.Context(), say); err != nil {
		t.Error(err)
	}
	if _, _, events := s.table.All(); events != 1 {
		t.Errorf("%d events, want 1", events)
	}
}

// TestAPageGoesOnAfterTheTable: by HTTP, as a page does: the table, its position, a
// command, and the event after it; and nobody writes past the desk.
func TestAPageGoesOnAfterTheTable(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.close()
	hs := httptest.NewServer(s.handler())
	defer hs.Close()
	list := httptest.NewRecorder()
	s.list(list, nil)
	if !strings.Contains(list.Body.String(), `"orders":[]`) {
		t.Errorf("an empty table is %s", list.Body)
	}
	s.must(t, Command{Name: "place", Order: "1", Item: "Tea", Quantity: 1})

	var table struct {
		Position string
		Orders   []Order
	}
	response, err := http.Get(hs.URL + "/orders") //nolint:noctx // a test's server
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&table); err != nil || len(table.Orders) != 1 {
		t.Fatalf("%+v, %v", table, err)
	}
	up := func(path, body string) string {
		r, err := http.Post(hs.URL+path, "application/json", strings.NewReader(body)) //nolint:noctx // a test's server
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var text strings.Builder
		_, _ = fmt.Fprint(&text, r.Status)
		return text.String()
	}
	if got := up("/realtime/up", `{"up":{"version":1},"call":{"id":1,"name":"pay","data":{"order":"1"}}}`); got != "200 OK" {
		t.Errorf("the command was answered %s", got)
	}
	if got := up("/realtime/publish?channel=orders", `{}`); got != "403 Forbidden" {
		t.Errorf("an event past the desk was answered %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := wireclient.SSE(ctx, http.DefaultClient, hs.URL+"/realtime/sse?channel=orders&after="+table.Position, "")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for {
		it, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if it.Event {
			if !strings.Contains(string(it.Data), `"order":"1"`) {
				t.Errorf("after the table came %s", it.Data)
			}
			return
		}
	}
}
