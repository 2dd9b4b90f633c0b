package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// start runs the demonstration until the test ends.
func start(t *testing.T) (d *demo, url string) {
	t.Helper()
	d, err := newDemo()
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen("127.0.0.1:0", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, d) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(3 * endWithin):
			t.Error("the program does not end")
		}
	})
	return d, link(l.Addr())
}

// until waits until a client is as a test wants it.
func until(t *testing.T, d *demo, name string, ok func(view) bool) view {
	t.Helper()
	var v view
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, v = range d.snapshot().Clients {
			if v.Name == name && ok(v) {
				return v
			}
		}
	}
	t.Fatalf("%s is never as it should be: %+v", name, d.snapshot().Clients)
	return v
}

func (d *demo) must(t *testing.T, name string, o order) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := commands[name](d, o); err != nil {
		t.Fatal(err)
	}
}

func TestThePageIsServedWithWhatItNeeds(t *testing.T) {
	_, url := start(t)
	for path, want := range map[string]string{
		"":                   "<title>Throughline slow clients</title>",
		"app.js":             `from "./realtime/client.js"`,
		"style.css":          "light-dark",
		"realtime/client.js": "export",
		"realtime/call.js":   "export",
		"inspect/":           "Inspector",
		"metrics":            "throughline_memory_limit_bytes",
	} {
		r, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %.80q", path, r.Status, body)
		}
	}
}

// A client that stalls is evicted, is told how long to wait, comes back when it
// reads again, and misses nothing; by both carriers. Those beside it notice
// nothing.
func TestWhoStallsComesBackAndMissesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	d, _ := start(t)
	d.must(t, "rate", order{Rate: mostRate})
	for _, name := range []string{"Client 1", "Client 3"} { // by WebSocket, and by SSE
		until(t, d, name, func(v view) bool { return v.State == live && v.Last > 20 })
		d.must(t, "stall", order{Client: name})
	}
	for _, name := range []string{"Client 1", "Client 3"} {
		if v := until(t, d, name, func(v view) bool { return v.State == evicted && v.Back > 0 }); v.Reads || v.Back > 4000 {
			t.Errorf("%+v", v)
		}
		d.must(t, "read", order{Client: name}) // it hears now that it has to wait
	}
	for _, name := range []string{"Client 1", "Client 3"} {
		until(t, d, name, func(v view) bool { return v.State == caughtUp })
	}
	for _, name := range []string{"Client 1", "Client 3"} {
		until(t, d, name, func(v view) bool { return v.State == live })
	}
	for _, v := range d.snapshot().Clients {
		want := 0
		if v.Name == "Client 1" || v.Name == "Client 3" {
			want = 1
		}
		if v.Missing+v.Repeated+v.LeftOut > 0 || v.Last < 100 || v.Evictions != want {
			t.Errorf("%+v", v)
		}
	}
}

// It is no error that a client to which a write takes longer than the end may is cut
// off.
func TestItEndsInGoodOrderBesideOneThatStalls(t *testing.T) {
	t.Parallel() // it mostly waits
	d, _ := start(t)
	until(t, d, "Client 4", func(view) bool { return true })
	d.must(t, "rate", order{Rate: mostRate})
	for _, name := range []string{"Client 1", "Client 2", "Client 3", "Client 4"} { // on a busy machine one is evicted before one looks
		d.must(t, "stall", order{Client: name})
		v := until(t, d, name, func(v view) bool { return v.State == stalled && v.Lag > 90 || v.State == evicted })
		if v.State == stalled {
			return // the kernel has taken what it can
		}
	}
	t.Error("all were evicted before a write took long")
}

// A modem's client is over the limit, is evicted, and comes back on trial, with what
// it missed before it.
func TestAModemIsOverTheLimit(t *testing.T) {
	t.Parallel() // it mostly waits
	d, _ := start(t)
	until(t, d, "Client 4", func(view) bool { return true })
	d.must(t, "rate", order{Rate: mostRate})
	d.must(t, "modem", order{})
	until(t, d, "Modem 5", func(v view) bool { return v.State == late && v.Lag > maxLag })
	if v := until(t, d, "Modem 5", func(v view) bool { return v.State == onTrial }); v.ToGo == 0 || v.ToGo > v.Lag {
		t.Errorf("as it is back: %+v", v)
	}
}

// A client is on trial from when it is back until the server says that the trial
// is passed, and not when it has read what it missed.
func TestATrialIsPassedWhenTheServerSaysSo(t *testing.T) {
	c := newClient(&demo{ctx: t.Context()}, "Modem 1", "ws", modemRate)
	c.demo.published = 10
	is := func(when, want string, lag uint64) {
		t.Helper()
		c.mu.Lock()
		defer c.mu.Unlock()
		if got := c.state(true, lag); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	take := func(f frame) {
		t.Helper()
		if err := c.take(f); err != nil {
			t.Error(err)
		}
	}
	opening := frame{Open: &struct{ Token string }{}}
	take(opening)
	is("at first", live, maxLag)
	is("over the limit", late, maxLag+1)
	c.keptOut(time.Second)
	is("evicted", evicted, 0)
	take(opening)
	is("back", onTrial, 0)
	take(frame{Position: "p", Data: []byte(`{"n":10}`)})
	is("where the head was", onTrial, 500)
	c.pass()
	is("passed", caughtUp, 40)
	c.keptOut(time.Second)
	c.pass() // before it hears that it is back
	is("still out", evicted, 0)
	take(opening)
	is("passed at once", caughtUp, 0)
	c.keptOut(time.Second)
	take(opening)
	is("evicted again", onTrial, 0)
}

func TestCommandsAreBounded(t *testing.T) {
	d, _ := start(t)
	until(t, d, "Client 4", func(view) bool { return true })
	for range mostHere - 4 {
		d.must(t, "client", order{Carrier: "ws"})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, o := range map[string]order{"client": {Carrier: "ws"}, "modem": {}, "rate": {Rate: mostRate + 1}, "remove": {Client: "nobody"}} {
		if commands[name](d, o) == nil {
			t.Errorf("%s with %+v is obeyed", name, o)
		}
	}
	o := order{Client: "Client 1"}
	if err := commands["remove"](d, o); err != nil || len(d.clients) != mostHere-1 {
		t.Errorf("removed: %v, %d are left", err, len(d.clients))
	}
	call := server.Channel{Name: "stall"}
	if authorize(t.Context(), server.Identity{}, server.Publish, call) == nil ||
		authorize(t.Context(), server.Identity{}, server.Call, server.Channel{Name: "undreamt-of"}) == nil ||
		authorize(t.Context(), server.Identity{}, server.Call, call) != nil {
		t.Error("what is open is not what the page needs")
	}
}

// The count is the demonstration's proof: it has to see what is missing.
func TestTheCountCounts(t *testing.T) {
	for _, c := range []struct {
		numbers []uint64 // 0: a gap
		want    count
	}{
		{[]uint64{7, 8, 9}, count{last: 9}},
		{[]uint64{7, 9}, count{last: 9, missing: 1}},
		{[]uint64{7, 9, 0, 20, 22}, count{last: 22, missing: 2, leftOut: 10}},
		{[]uint64{7, 8, 8, 7, 9}, count{last: 9, repeated: 2}},
	} {
		var got count
		for _, n := range c.numbers {
			if n == 0 {
				got.gap()
			} else {
				got.event(n)
			}
		}
		if got != c.want {
			t.Errorf("%v: %+v, want %+v", c.numbers, got, c.want)
		}
	}
}

func TestATapLetsSoMuchThrough(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write(make([]byte, 8000))
		}
	}()
	shut := newTap(20_000)
	shut.turn(false)
	c, err := shut.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	first, all := make(chan bool, 1), make(chan time.Time, 1)
	go func() {
		_, _ = io.ReadFull(c, make([]byte, 1))
		first <- true
		_, _ = io.ReadFull(c, make([]byte, 7999))
		all <- time.Now()
	}()
	select {
	case <-first:
		t.Error("it was read through a tap that is shut")
	case <-time.After(50 * time.Millisecond):
	}
	opened := time.Now()
	shut.turn(true)
	if took := (<-all).Sub(opened); took < 300*time.Millisecond {
		t.Errorf("8000 bytes at 20,000 a second took %v", took)
	}
	shut.turn(false)
	go func() { _ = c.Close() }()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a read of a closed connection ends well")
	}
}
