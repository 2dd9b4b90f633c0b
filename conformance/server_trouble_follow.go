package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// A traffic publishes the numbers from 1 on, at intervals, over several servers
// in turn.
type traffic struct {
	count int
	done  chan struct{}

	mu sync.Mutex
	at []string // guarded by mu: the position of each number
}

// traffic begins to publish to the busy room, four at a time. What is published has
// size bytes or somewhat more.
func (c *serverCheck) traffic(count, size int, sites ...*site) *traffic {
	t := &traffic{count: count, done: make(chan struct{})}
	pause := 20 * time.Millisecond
	if c.server.TCP {
		pause = time.Millisecond
	}
	go func() {
		defer close(t.done)
		for n := 1; n <= count; n++ {
			at, err := sites[n%len(sites)].testee.Publish(c.ctx, busyRoom, saidAtLength(n, size))
			if err != nil {
				c.errorf("publish %d: %v", n, err)
				return
			}
			t.mu.Lock()
			t.at = append(t.at, at)
			t.mu.Unlock()
			if n%4 == 0 {
				time.Sleep(4 * pause)
			}
		}
	}()
	c.atEnd(func() { <-t.done })
	return t
}

// over reports whether all is published.
func (t *traffic) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// A follower reads the busy room over lines that break and servers that end, always
// from the place of the last thing that came.
type follower struct {
	check *serverCheck
	at    string // a position or start
	got   []wireclient.Item
	token string
	line  uint64
	// told is the goodbye of the last line that had one, or the refusal.
	told wireclient.Reason
	// leaves has it leave lines open that it doesn't read any more.
	leaves bool
}

func (c *serverCheck) follower(after string) *follower {
	return &follower{check: c, at: after}
}

// opened returns the line that a form brings, which ends with ctx.
func (f *follower) opened(ctx context.Context, way form, s *site) (wireclient.Stream, error) {
	f.line++
	h := wireclient.Hello{Version: 1, Token: f.token, Line: f.line, Channels: []wireclient.Channel{{Channel: busyRoom, After: f.at}}}
	plain := strings.HasPrefix(way.name, "plain")
	query := wireclient.Query(f.at, busyRoom)
	switch {
	case way.carrier == "sse" && plain:
		return nilIfError(wireclient.SSE(ctx, s.http, s.base+"/sse"+query, ""))
	case way.carrier == "sse":
		return nilIfError(wireclient.SSESession(ctx, s.http, s.base+"/sse", h))
	case way.carrier == "ws" && plain:
		return nilIfError(wireclient.WS(ctx, s.http, s.base+"/ws"+query, nil))
	case way.carrier == "ws":
		return nilIfError(wireclient.WS(ctx, s.http, s.base+"/ws", &h))
	}
	return wireclient.NewPollStream(ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
		if p, ok := at[busyRoom]; ok {
			h.Channels[0].After = p
		}
		if plain {
			return wireclient.PlainPoll(ctx, s.http, s.base+"/poll"+wireclient.Query(h.Channels[0].After, busyRoom)+"&wait=25s")
		}
		a, err := wireclient.SessionPoll(ctx, s.http, s.base+"/poll?wait=25s", h)
		if err == nil && a.Open != nil {
			f.takeToken(a.Open)
			h.Token = f.token
		}
		return a, err
	}), nil
}

func nilIfError[S wireclient.Stream](s S, err error) (wireclient.Stream, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (f *follower) takeToken(o *wireclient.Open) {
	if o.Token != "" {
		f.token = o.Token
	}
}

// silence is how long a client waits for anything before it takes a line for
// dead: more than two heartbeats.
func (c *serverCheck) silence() time.Duration {
	if c.server.TCP {
		return 2 * time.Second
	}
	return time.Minute
}

// read reads over one line until there is enough, or the line ends, which the
// error says.
func (f *follower) read(way form, s *site, enough func() bool) error {
	c := f.check
	ctx, cancel := context.WithCancel(c.ctx)
	silent := time.AfterFunc(c.silence(), cancel)
	defer silent.Stop()
	stream, err := f.opened(ctx, way, s)
	if err != nil {
		cancel()
		return err
	}
	news := time.Now()
	for err == nil && !enough() {
		var it wireclient.Item
		if it, err = stream.Next(); err != nil {
			break
		}
		silent.Reset(c.silence())
		if !it.Beat {
			news = time.Now()
		} else if time.Since(news) > 2*time.Minute { // there is something all the time
			err = errors.New("nothing but heartbeats came for 2 minutes")
			break
		}
		err = f.take(it)
	}
	ws, isWS := stream.(*wireclient.WSStream)
	switch {
	case err == nil && f.leaves:
		c.atEnd(func() { cancel(); stream.Close() })
		return nil
	case err == nil && isWS:
		ws.Leave()
	}
	cancel()
	stream.Close()
	return err
}

// reach is read by who comes back, a few times, if the server says that it can't
// read its log now.
func (f *follower) reach(way form, s *site, enough func() bool) (err error) {
	for range 5 {
		if err = f.read(way, s, enough); err == nil || !f.mayReturn(way, err) {
			return err
		}
		time.Sleep(2 * time.Second)
	}
	return err
}

// mayReturn reports whether a line ended for a while, in the words of its form.
func (f *follower) mayReturn(way form, err error) bool {
	switch way.name {
	case plainSSE.name:
		return errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
	case plainWS.name:
		return strings.Contains(err.Error(), "4001") && strings.Contains(err.Error(), "unavailable")
	}
	told := f.told
	refused, ok := refusalOf(err)
	if ok {
		told = refused.Reason
	}
	return (ok || errors.Is(err, errGoodbye)) && told.Code == "unavailable" && told.Class == "later"
}

var errGoodbye = errors.New("it said goodbye")

// take notes what came. A goodbye is an error.
func (f *follower) take(it wireclient.Item) error {
	switch {
	case it.Event:
		f.got, f.at = append(f.got, it), it.Position
	case it.Gap != nil:
		f.got, f.at = append(f.got, it), it.Gap.To
	case it.Opening:
		if it.Position != "" { // a stream for who is to come back has no id, and changes none (P3.11)
			f.at = it.Position
		}
	case it.Open != nil:
		f.takeToken(it.Open)
	case it.Close != nil:
		f.told = *it.Close
		return fmt.Errorf("%w: %s", errGoodbye, inWords(it))
	case it.End != nil:
		return fmt.Errorf("the channel ended with %q", it.End.Code)
	}
	return nil
}

// more is enough when so many more have come, or all of the traffic.
func (f *follower) more(n int, t *traffic) func() bool {
	n += len(f.got)
	return func() bool { return len(f.got) >= n || f.all(t)() }
}

// all is enough when the last of the traffic has come.
func (f *follower) all(t *traffic) func() bool {
	return func() bool { return len(f.got) > 0 && numberOf(f.got[len(f.got)-1]) == t.count }
}

// follow reads on over one line after another until there is enough; next says
// which the next one is. It waits between two, as clients do.
func (f *follower) follow(enough func() bool, next func(n int) (form, *site)) {
	c := f.check
	var err error
	barren := 0
	for n := 0; barren < 50; n++ {
		if enough() {
			return
		}
		way, s := next(n)
		before := len(f.got)
		if err = f.read(way, s, enough); err == nil {
			continue
		}
		if barren++; len(f.got) > before {
			barren = 0
		}
		wait := time.Second
		if c.server.TCP {
			wait = 5 * time.Millisecond
		}
		if refused, ok := refusalOf(err); ok {
			f.told = refused.Reason
			wait += time.Duration(refused.After) * time.Millisecond
		}
		if errors.Is(err, errGoodbye) {
			wait += time.Duration(f.told.After) * time.Millisecond
		}
		if f.told.Code == "superseded" {
			f.token, f.told.Code = "", "" // as P6.17 has it
		}
		time.Sleep(wait)
	}
	c.fatalf("%d lines in a row brought nothing, the last one ended: %v; %s", barren, err, f.place())
}

// place says how far it came.
func (f *follower) place() string {
	if len(f.got) == 0 {
		return "nothing came"
	}
	return fmt.Sprintf("%d things came, the last of them %s", len(f.got), inWords(f.got[len(f.got)-1]))
}

// gotAll checks that each number came once, in order and at its position, and
// that there was no gap.
func (f *follower) gotAll(t *traffic) {
	c := f.check
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, it := range f.got {
		switch {
		case it.Gap != nil:
			c.fatalf("%s came after %d events, and nothing is missing", inWords(it), i)
		case i >= len(t.at):
			c.fatalf("%s came after all %d that were published", inWords(it), len(t.at))
		case it.Position != t.at[i] || numberOf(it) != i+1:
			c.fatalf("%s came after number %d: the next one is at %q", inWords(it), i, t.at[i])
		}
	}
	if len(f.got) < len(t.at) {
		c.fatalf("%d of %d events came, and it was at the end", len(f.got), len(t.at))
	}
}

// saidAtLength is a message with a number, and with so much beside it.
func saidAtLength(n, size int) (m eventlog.Message) {
	m = said(n)
	if size > 0 {
		m.Data = fmt.Appendf(nil, `[%d,%q]`, n, strings.Repeat("x", size))
	}
	return m
}

// numberOf reads the number of an event.
func numberOf(it wireclient.Item) (n int) {
	if json.Unmarshal(it.Data, &n) == nil {
		return n
	}
	var list []json.RawMessage
	if json.Unmarshal(it.Data, &list) == nil && len(list) > 0 {
		_ = json.Unmarshal(list[0], &n)
	}
	return n
}
