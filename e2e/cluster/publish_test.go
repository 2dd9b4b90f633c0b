//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// A said is one publish. What became of it is set when its publisher is done with it.
type said struct {
	n       int
	by      string // a producer, of which it is one of several in order; "": of nobody
	channel string
	began   time.Time

	acknowledged bool
	position     string
	refused      bool // for good: it was not appended
}

// A record is all that was published.
type record struct {
	last atomic.Int64

	mu  sync.Mutex
	all []*said // guarded by mu
}

// begin notes that something is about to be published.
func (r *record) begin(by, channel string) *said {
	s := &said{n: int(r.last.Add(1)), by: by, channel: channel, began: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, s)
	return s
}

func (s *said) payload() string { return fmt.Sprintf(`{"n":%d,"by":%q}`, s.n, s.by) }

// A publisher publishes by requests.
type publisher struct {
	run  *run
	name string // its Idempotency-Key; "": it has none, and repeats nothing
	http *http.Client
	dice *rand.Rand
	seq  int
}

func newPublisher(r *run, i int, name string) *publisher {
	dice := r.dice(uint64(5000 + i))
	return &publisher{run: r, name: name, dice: dice, http: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: dice.IntN(2) == 0}}}
}

// publishing goes on until the first context ends; what is under way then is finished
// within the second.
func (p *publisher) publishing(ctx, finish context.Context) {
	defer p.http.CloseIdleConnections()
	for ctx.Err() == nil {
		p.publish(finish, somewhere(p.dice))
		pause(ctx, time.Duration(p.dice.Int64N(int64(60*time.Millisecond))))
	}
}

// publish publishes one event, again and again if there is a key.
func (p *publisher) publish(ctx context.Context, channel string) *said {
	s := p.run.said.begin(p.name, channel)
	p.seq++
	for ctx.Err() == nil {
		after, done := p.try(ctx, s)
		if done || p.name == "" {
			break
		}
		pause(ctx, after+time.Duration(p.dice.Int64N(int64(200*time.Millisecond))))
	}
	return s
}

func (p *publisher) try(ctx context.Context, s *said) (after time.Duration, done bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.run.proxy.base()+"/publish?type=said&channel="+s.channel, strings.NewReader(s.payload()))
	if err != nil {
		p.run.faultf("%v", err)
		return 0, true
	}
	req.Header.Set("Content-Type", "application/json")
	if p.name != "" {
		req.Header.Set("Idempotency-Key", p.name)
		req.Header.Set("Producer-Seq", strconv.Itoa(p.seq))
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.run.count("publishes without an answer")
		return 0, false
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	var answer struct {
		Position string
		Error    wireclient.Reason
	}
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	switch {
	case err != nil:
		p.run.count("publishes without an answer")
		return 0, false
	case answer.Position != "":
		s.acknowledged, s.position = true, answer.Position
		return 0, true
	case answer.Error.Class == "never":
		p.run.faultf("publish %d by %q is refused for good: %+v", s.n, s.by, answer.Error)
		s.refused = true
		return 0, true
	}
	p.run.count("publishes told " + answer.Error.Code)
	return time.Duration(answer.Error.After) * time.Millisecond, false
}

// speaking publishes by a client's outbox until the first context ends.
func (c *client) speaking(ctx, finish context.Context) {
	var running sync.WaitGroup
	stop, cancel := context.WithCancel(finish)
	running.Go(func() { c.outbox.Run(stop) })
	defer running.Wait()
	defer cancel()
	dice := c.run.dice(uint64(7000 + c.index))
	var under []*wireclient.Publication
	var what []*said
	for ctx.Err() == nil {
		s := c.run.said.begin(c.name, somewhere(dice))
		under, what = append(under, c.outbox.Publish(s.channel, wireclient.Say(s.payload()))), append(what, s)
		if len(under) > 8 { // not too many under way
			select {
			case <-under[len(under)-8].Done():
			case <-ctx.Done():
			}
		}
		pause(ctx, time.Duration(dice.Int64N(int64(600*time.Millisecond))))
	}
	for i, p := range under {
		select {
		case <-p.Done():
			c.settle(what[i], p)
		case <-finish.Done():
		}
	}
}

func (c *client) settle(s *said, p *wireclient.Publication) {
	switch {
	case p.Refused == nil:
		s.acknowledged, s.position = true, p.Position
	case p.Refused.Code == "unknown":
		c.run.count("publishes of clients unknown")
	default:
		s.refused = true
		c.run.faultf("publish %d by %s is refused for good: %+v", s.n, s.by, p.Refused)
	}
}
