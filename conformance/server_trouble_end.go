package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
	"github.com/throughline/throughline/internal/wireclient"
)

// shutdown ends a server in good order after a while, beside what goes on, and
// returns what waits until it is over.
func (c *serverCheck) shutdown(s *site, after time.Duration) (over func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(after)
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		defer cancel()
		if err := s.testee.Shutdown(ctx); err != nil {
			c.errorf("the shutdown was not over within a minute: %v", err)
		}
	}()
	return func() { <-done }
}

func (c *serverCheck) returnsAreSpread() {
	const clients = 30
	begin := c.publish("room", "0")
	var lines []*sessionLine
	for range clients {
		h := helloOf(1, "room")
		h.Channels[0].After = begin
		lines = append(lines, c.line(h))
	}
	var mu sync.Mutex
	told := map[int64]int{}
	var all sync.WaitGroup
	for _, l := range lines {
		all.Go(func() {
			defer func() { _ = recover() }() // of fatalf, whose finding is noted
			after := l.goodbye("shutdown", "later").After
			mu.Lock()
			defer mu.Unlock()
			told[after]++
		})
	}
	c.settle()
	over := c.shutdown(c.site, 0)
	all.Wait()
	over()
	if len(told) < clients/3 {
		c.errorf("%d clients were told to come back after these milliseconds, each so many: %v", clients, told)
	}
}

// retryThenEnd reads a plain stream to its end, and returns the last retry.
func (c *serverCheck) retryThenEnd(what string, s *wireclient.SSEStream) (retry time.Duration) {
	ended := time.AfterFunc(c.patience(), s.Close)
	defer ended.Stop()
	for {
		b, err := s.Parser.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return retry
		}
		if err != nil {
			c.fatalf("%s did not end as a response does: %v", what, err)
		}
		if b.Retry != "" {
			ms, _ := strconv.Atoi(b.Retry)
			retry = time.Duration(ms) * time.Millisecond
		}
	}
}

func (c *serverCheck) drainedStream() {
	open := func(what string) *wireclient.SSEStream {
		s, err := wireclient.SSE(c.ctx, c.http, c.base+"/sse"+wireclient.Query("", "room"), "")
		if err != nil {
			c.fatalf("%s was not answered 200: %v", what, err)
		}
		c.atEnd(s.Close)
		return s
	}
	s := open("a stream")
	first, err := s.Parser.Next()
	if err != nil {
		c.fatalf("a stream ended at once: %v", err)
	}
	normal, _ := strconv.Atoi(first.Retry)
	over := c.shutdown(c.site, 0)
	if retry := c.retryThenEnd("the stream of a server that ends", s); retry == time.Duration(normal)*time.Millisecond || retry <= 0 {
		c.errorf("the stream of a server that ends said the retry %v, not a delay beside the normal one of %d ms", retry, normal)
	}
	over()
	if retry := c.retryThenEnd("a newcomer's stream", open("a newcomer")); retry <= 0 {
		c.errorf("a newcomer to a server that ended was not told a retry")
	}
}

func (c *serverCheck) drainedSocket() {
	s := c.socket("/ws?channel=room")
	if _, err := s.any(); err != nil {
		c.fatalf("no opening came: %v", err)
	}
	over := c.shutdown(c.site, 0)
	for {
		f, err := s.any()
		if err != nil {
			c.fatalf("the WebSocket ended without a close frame: %v", err)
		}
		if f.opcode() != wsClose {
			continue
		}
		code, reason := f.closing()
		s.send(wsClose, string(f.payload))
		word, delay, _ := strings.Cut(reason, " ")
		if ms, err := strconv.Atoi(delay); code != 4001 || word != "shutdown" || err != nil || ms <= 0 {
			c.errorf("it was closed with %d %q, not with 4001 \"shutdown\" and a delay", code, reason)
		}
		break
	}
	over()
}

func (c *serverCheck) drainedPoll() {
	at := c.publish(busyRoom, "1")
	type result struct {
		answer *wireclient.Answer
		err    error
		took   time.Duration
	}
	answered := make(chan result, 1)
	go func() {
		began := time.Now()
		var r result
		if c.form.needs == PlainPoll {
			r.answer, r.err = wireclient.PlainPoll(c.ctx, c.http, c.base+"/poll"+wireclient.Query(at, busyRoom)+"&wait=25s")
		} else {
			r.answer, r.err = wireclient.SessionPoll(c.ctx, c.http, c.base+"/poll?wait=25s", wireclient.HelloFor(at, busyRoom))
		}
		r.took = time.Since(began)
		answered <- r
	}()
	time.Sleep(3 * time.Second)
	over := c.shutdown(c.site, 0)
	got := <-answered
	over()
	refused, ok := refusalOf(got.err)
	switch {
	case got.took > 5*time.Second:
		c.errorf("a poll that had waited for 3s when its server ended was answered after %v", got.took)
	case ok && refused.Code == "shutdown" && refused.Class == "later" && c.form.needs == PlainPoll:
	case got.err != nil:
		c.errorf("a poll that waited when its server ended was not answered: %v", got.err)
	case got.answer.Positions[busyRoom] != at || len(got.answer.Items) > 0:
		c.errorf("a poll that waited at %q when its server ended was answered with the position %q and %d things", at, got.answer.Positions[busyRoom], len(got.answer.Items))
	case got.answer.Goodbye == nil && c.form.needs == SessionPoll:
		c.errorf("a poll of a session was answered without a goodbye")
	}
}

func (c *serverCheck) newcomersAreSentElsewhere() {
	c.shutdown(c.site, 0)()
	hello := string(wireclient.HelloFor("", "room").Frame())
	for _, ask := range []struct {
		method, path, body string
		needs              Feature
	}{
		{"POST", "/sse", hello, SessionSSE},
		{"POST", "/poll", hello, SessionPoll},
		{"GET", "/poll?channel=room", "", PlainPoll},
		{"POST", "/publish?channel=room", "1", PublishByRequest},
		{"POST", "/up", `{"up":{"version":1},` + batchOf(aProducer, batchFrame(1, "room"))[1:], Upstream},
	} {
		if _, lacks := c.server.Lacks[ask.needs]; lacks {
			continue
		}
		a := c.ask(c.http, ask.method, ask.path, ask.body)
		var told struct{ Error wireclient.Reason }
		_ = json.Unmarshal([]byte(a.text), &told)
		seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
		if a.status != http.StatusServiceUnavailable || told.Error.Code != "shutdown" || told.Error.Class != "later" || told.Error.After <= 0 || err != nil || seconds < 1 {
			c.errorf("%s %s at a server that ended was answered %d, Retry-After %q, with %.200q, not with 503 shutdown, class later and a delay, also in seconds",
				ask.method, ask.path, a.status, a.header.Get("Retry-After"), a.text)
		}
	}
}

func (c *serverCheck) drainLosesNothing() {
	begin := c.publish(busyRoom, "0")
	next := c.another()
	t := c.traffic(100, 0, c.site, next) // the program publishes at a server that ends, too
	f := c.follower(begin)
	if err := f.reach(c.form, c.site, f.more(20, t)); err != nil {
		c.fatalf("the first line ended: %v", err)
	}
	var over func()
	f.follow(f.all(t), func(int) (form, *site) {
		if over == nil {
			over = c.shutdown(c.site, 300*time.Millisecond)
			return c.form, c.site
		}
		return c.form, next
	})
	over()
	f.gotAll(t)
}

// kill has a server be gone: connections are reset, and nobody reaches it any
// more.
func (s *site) kill() {
	s.proxy.Add(faultproxy.Rule{Fault: faultproxy.CutRequest{}})
	s.proxy.CutNow(nil, faultproxy.Reset)
}

func (c *serverCheck) killedNode() {
	begin := c.publish(busyRoom, "0")
	next := c.another()
	t := c.traffic(80, 0, next)
	f := c.follower(begin)
	if err := f.reach(c.form, c.site, f.more(20, t)); err != nil {
		c.fatalf("the first line ended: %v", err)
	}
	killed := false
	f.follow(f.all(t), func(int) (form, *site) {
		if !killed {
			killed = true
			time.AfterFunc(30*time.Millisecond, c.site.kill)
			return c.form, c.site
		}
		return c.form, next
	})
	f.gotAll(t)
	if err := f.read(c.form, c.site, func() bool { return false }); err == nil {
		c.errorf("the node that was killed still answers")
	}
}

func (c *serverCheck) nodesInTurn() {
	begin := c.publish(busyRoom, "0")
	nodes := []*site{c.site, c.another()}
	t := c.traffic(100, 0, nodes...)
	f := c.follower(begin)
	for n := range 8 {
		if err := f.reach(c.form, nodes[n%2], f.more(5+n, t)); err != nil {
			c.fatalf("line %d ended: %v; %s", n+1, err, f.place())
		}
	}
	if err := f.reach(c.form, nodes[0], f.all(t)); err != nil {
		c.fatalf("the last line ended: %v; %s", err, f.place())
	}
	f.gotAll(t)
}

func (c *serverCheck) tokenHoldsAtAnotherNode() {
	first := c.line(helloOf(1, "room"))
	far := c.another()
	h := helloOf(2, "room")
	h.Token = first.token
	if there := c.lineOver(c.form, far, far.http, h); there.opened.Token != "" {
		c.errorf("another node gave a token of its own to who presented one of the first: it doesn't hold there")
	}
}

func (c *serverCheck) restartThatLostEverything() {
	unwritten := c.readOver(c.aForm(allForms...), c.site, "room", "").opening()
	old := append([]string{unwritten}, c.publishMany("room", 1, 10)...)
	for _, written := range []int{0, 3, 20} {
		new := c.open(c.server.Start(c.t, c.setup))
		head := c.readOver(c.aForm(allForms...), new, "room", "").opening()
		for n := 1; n <= written; n++ {
			at, err := new.testee.Publish(c.ctx, "room", said(-n))
			if err != nil {
				c.fatalf("publish: %v", err)
			}
			head = at
		}
		for n, from := range old {
			r := c.readOver(c.form, new, "room", from)
			it := r.next()
			if it.Gap == nil || it.Gap.From != from || it.Gap.To != head || it.Gap.Reason != "rewritten" {
				c.fatalf("of a history that is lost, position %d was presented at a server that holds %d other events: %s came, not a gap \"rewritten\" from %q to the head, %q",
					n, written, inWords(it), from, head)
			}
			at, err := new.testee.Publish(c.ctx, "room", said(n))
			if err != nil {
				c.fatalf("publish: %v", err)
			}
			r.event(at, fmt.Sprint(n))
			head = at
			r.stream.Close()
		}
	}
}
