//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/wireclient"
)

// The forms of reading, the session protocol's first.
var forms = []string{"session sse", "session ws", "session poll", "plain sse", "plain ws", "plain poll"}

// A client keeps a position for each of its channels, and nothing else: it goes on from
// there by whatever carrier, at whatever node the proxy leads it to. It obeys delays.
type client struct {
	// Static after newClient.
	name     string
	index    int
	run      *run
	channels []string
	session  bool
	http     *http.Client
	patience time.Duration // how long its lines last
	outbox   *wireclient.Outbox

	// Owned by live.
	dice *rand.Rand
	form string

	token  atomic.Pointer[string]
	line   atomic.Uint64
	duplex atomic.Pointer[wireclient.Duplex] // of the line under way

	doing atomic.Value // a string, for people

	mu   sync.Mutex
	at   map[string]string // guarded by mu
	seen map[string][]item // guarded by mu
}

// An item is what a client was handed.
type item struct {
	conformance.Seen

	reason string // of a gap
	when   time.Time
	over   string
}

// silence is how long a line with heartbeats may be silent.
const silence = 4 * time.Second

func newClient(r *run, i int, begin map[string]string) *client {
	c := &client{
		name: fmt.Sprintf("client %d", i), index: i, run: r, dice: r.dice(uint64(1000 + i)),
		session: i%10 < 7, at: map[string]string{}, seen: map[string][]item{},
	}
	names := slices.Clone(channels)
	c.dice.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	c.channels = names[:1]
	if c.session {
		c.channels = names[:1+c.dice.IntN(3)]
	}
	for _, name := range c.channels {
		c.at[name] = begin[name]
	}
	c.form = c.choose()
	c.patience = time.Duration(500+c.dice.IntN(8000)) * time.Millisecond
	c.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: c.dice.IntN(2) == 0, MaxIdleConnsPerHost: 2}}
	none := ""
	c.token.Store(&none)
	if c.session && i%4 == 0 {
		c.outbox = wireclient.NewOutbox(wireclient.Producer(fmt.Sprintf("%x-%d", r.seed, i)), c.ask, 10*time.Minute, 2*time.Second, r.faultf)
	}
	return c
}

func (c *client) choose() string {
	if c.session {
		return forms[c.dice.IntN(3)]
	}
	return forms[3+c.dice.IntN(3)]
}

// An ended is the end of a line, and how long to stay away.
type ended struct {
	code    string
	after   time.Duration
	instead []string // carriers
}

func (e *ended) Error() string { return e.code }

// live reads one line after the other.
func (c *client) live(ctx context.Context) {
	for tries := 0; ctx.Err() == nil; {
		began, instead := time.Now(), []string(nil)
		err := c.read(ctx)
		c.http.CloseIdleConnections()
		if ctx.Err() != nil {
			return
		}
		c.run.count("ends: " + endOf(err))
		if time.Since(began) > time.Second {
			tries = 0
		}
		wait := time.Duration(c.dice.Int64N(int64(100*time.Millisecond) << min(tries, 4)))
		tries++
		if said, ok := errors.AsType[*ended](err); ok {
			instead = said.instead
			if len(instead) == 0 {
				wait += said.after
			}
			switch said.code {
			case "superseded":
				none := ""
				c.token.Store(&none)
			case "left":
				wait, tries = wait/8, 0
			}
		}
		switch {
		case len(instead) > 0:
			c.form = "session " + instead[c.dice.IntN(len(instead))]
		case c.dice.IntN(2) == 0:
			c.form = c.choose()
		}
		c.doing.Store(fmt.Sprintf("waits since %v for %v after %v", time.Since(c.run.started).Round(time.Millisecond), wait.Round(time.Millisecond), err))
		pause(ctx, wait)
	}
}

// endOf names the end of a line, for the count of them.
func endOf(err error) string {
	if said, ok := errors.AsType[*ended](err); ok {
		return said.code
	}
	return "broken"
}

// read reads one line until it ends, which is always an error.
func (c *client) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var left atomic.Bool
	life := time.AfterFunc(c.patience/2+time.Duration(c.dice.Int64N(int64(c.patience))), func() {
		if !c.run.calm.Load() {
			left.Store(true)
			cancel()
		}
	})
	defer life.Stop()
	dead := time.AfterFunc(3*silence, cancel)
	defer dead.Stop()
	c.doing.Store(fmt.Sprintf("opens %s since %v", c.form, time.Since(c.run.started).Round(time.Millisecond)))
	stream, err := c.open(ctx)
	if err != nil {
		return c.over(err, &left, 0)
	}
	defer stream.Close()
	c.doing.Store(fmt.Sprintf("reads %s since %v", c.form, time.Since(c.run.started).Round(time.Millisecond)))
	for {
		it, err := stream.Next()
		if err != nil {
			var retry time.Duration
			if s, ok := stream.(*wireclient.SSEStream); ok && errors.Is(err, io.EOF) {
				retry = s.Retry
			}
			return c.over(err, &left, retry)
		}
		if c.form != "plain ws" { // its pings don't show
			dead.Reset(silence)
		} else {
			dead.Stop()
		}
		if err := c.take(it); err != nil {
			return err
		}
	}
}

// over says what an error of a line means: who left of its own accord was not ended.
func (c *client) over(err error, left *atomic.Bool, retry time.Duration) error {
	if left.Load() {
		return &ended{code: "left"}
	}
	if r, ok := errors.AsType[*wireclient.Refused](err); ok && r.Code != "" {
		if r.Class == "never" {
			c.run.faultf("%s over %s is refused for good: %v", c.name, c.form, r)
		}
		return &ended{r.Code, time.Duration(r.After) * time.Millisecond, r.Instead}
	}
	if closed, ok := errors.AsType[websocket.CloseError](err); ok && closed.Code >= 4000 {
		code, delay, _ := strings.Cut(closed.Reason, " ")
		ms, _ := strconv.Atoi(delay)
		if closed.Code == 4002 {
			c.run.faultf("%s over %s is ended for good: %s", c.name, c.form, closed.Reason)
		}
		return &ended{code: code, after: time.Duration(ms) * time.Millisecond}
	}
	if retry > 0 {
		return &ended{code: "retry", after: retry}
	}
	return err
}

// A duplexStream is a WebSocket on which the client publishes, too.
type duplexStream struct {
	ctx    context.Context
	client *client
	duplex *wireclient.Duplex
	stream *wireclient.WSStream
	came   chan wireclient.Item
}

// Next implements [wireclient.Stream].
func (s *duplexStream) Next() (wireclient.Item, error) {
	select {
	case it := <-s.came:
		return it, nil
	case <-s.duplex.Done():
	case <-s.ctx.Done():
		return wireclient.Item{}, s.ctx.Err()
	}
	return s.stream.Next() // how it ended
}

// Close implements [wireclient.Stream].
func (s *duplexStream) Close() {
	s.client.duplex.CompareAndSwap(s.duplex, nil)
	s.duplex.Close()
}

// take notes what came. Its error ends the line.
func (c *client) take(it wireclient.Item) error {
	if it.Open != nil && it.Open.Token != "" {
		c.token.Store(&it.Open.Token)
	}
	why := it.Close
	if why == nil {
		why = it.End
	}
	if why != nil {
		if why.Class == "never" {
			c.run.faultf("%s over %s is ended for good: %+v", c.name, c.form, why)
		}
		return &ended{why.Code, time.Duration(why.After) * time.Millisecond, why.Instead}
	}
	if !it.Event && it.Gap == nil && (!it.Opening || it.Position == "") {
		return nil
	}
	name := it.Channel
	if name == "" {
		name = c.channels[0] // over plain SSE
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	got := item{when: time.Now(), over: c.form}
	switch {
	case it.Gap != nil:
		got.From, got.To, got.reason = it.Gap.From, it.Gap.To, it.Gap.Reason
		if got.From != c.at[name] {
			c.run.faultf("%s over %s is told of a gap from %s in %s, and is at %s", c.name, c.form, got.From, name, c.at[name])
		}
		c.at[name] = got.To
	case it.Event:
		n, err := conformance.Number(it.Data)
		if err != nil {
			c.run.faultf("%s over %s is handed %.100q: %v", c.name, c.form, it.Data, err)
		}
		got.N, got.Position = n, it.Position
		c.at[name] = it.Position
	case it.Position != c.at[name]:
		c.run.faultf("%s over %s is moved in %s from %s to %s without a word", c.name, c.form, name, c.at[name], it.Position)
		return nil
	default:
		return nil
	}
	c.seen[name] = append(c.seen[name], got)
	return nil
}

// position is where the client is in a channel.
func (c *client) position(channel string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[channel]
}

func (c *client) hello() wireclient.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := wireclient.Hello{Version: 1, Token: *c.token.Load(), Line: c.line.Load()}
	for _, name := range c.channels {
		h.Channels = append(h.Channels, wireclient.Channel{Channel: name, After: c.at[name]})
	}
	return h
}

// open begins a line, with a number that is higher than all before.
func (c *client) open(ctx context.Context) (wireclient.Stream, error) {
	base := c.run.proxy.base()
	c.line.Add(1)
	plain := wireclient.Query(c.position(c.channels[0]), c.channels[0])
	switch c.form {
	case "session sse":
		return notNil(wireclient.SSESession(ctx, c.http, base+"/sse", c.hello()))
	case "session ws":
		return c.openWS(ctx, base)
	case "session poll":
		return wireclient.NewPollStream(ctx, func(ctx context.Context, _ map[string]string) (*wireclient.Answer, error) {
			a, err := wireclient.SessionPoll(ctx, c.http, base+"/poll?wait=2s", c.hello())
			if err == nil && a.Open != nil && a.Open.Token != "" {
				c.token.Store(&a.Open.Token)
			}
			return a, err
		}), nil
	case "plain sse":
		return notNil(wireclient.SSE(ctx, c.http, base+"/sse"+plain, ""))
	case "plain ws":
		return notNil(wireclient.WS(ctx, c.http, base+"/ws"+plain, nil))
	}
	return wireclient.NewPollStream(ctx, func(ctx context.Context, _ map[string]string) (*wireclient.Answer, error) {
		return wireclient.PlainPoll(ctx, c.http, base+"/poll"+wireclient.Query(c.position(c.channels[0]), c.channels[0])+"&wait=2s")
	}), nil
}

// openWS begins a line on which the client can publish, too.
func (c *client) openWS(ctx context.Context, base string) (wireclient.Stream, error) {
	h := c.hello()
	s, err := wireclient.WS(ctx, c.http, base+"/ws", &h)
	if err != nil {
		if s != nil {
			s.Close()
		}
		return nil, err
	}
	if c.outbox == nil {
		return s, nil
	}
	d := &duplexStream{ctx: ctx, client: c, stream: s, came: make(chan wireclient.Item)}
	d.duplex = wireclient.NewDuplex(s, func(it wireclient.Item) {
		select {
		case d.came <- it:
		case <-ctx.Done():
		}
	})
	c.duplex.Store(d.duplex)
	return d, nil
}

// notNil makes a Stream of what opens one.
func notNil[S wireclient.Stream](s S, err error) (wireclient.Stream, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ask takes up what the outbox has: over the line, if that is a WebSocket, else by
// a request, at any node.
func (c *client) ask(ctx context.Context, up wireclient.Up) (wireclient.Item, error) {
	if d := c.duplex.Load(); d != nil {
		return d.Ask(ctx, up)
	}
	return wireclient.Post(ctx, c.http, c.run.proxy.base(), *c.token.Load(), up)
}
