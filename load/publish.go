//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/server"
)

// A publishPlan says what to publish, until it is paused.
type publishPlan struct {
	Channels  []string
	PerSecond float64 // to each channel
	Size      int     // bytes of an event's data
	Before    int     // events that a channel holds already when it begins
	Backlog   int     // events after these, of which the oracle knows
	Burst     int     // events at a time; 0: one
	Most      int     // events after which it ends; 0: it does not
	Judged    int     // channels whose events the oracle is told; 0: all
}

// A fact is one event that was published.
type fact struct {
	N        int
	Position string
	At       time.Duration // of the clock, before Publish was called
}

// A history is what a channel holds: what the oracle is told.
type history struct {
	Begin string // the position before the first fact
	Facts []fact

	given int // the last number
}

// A publisher publishes at a fixed pace, to one channel after the other.
type publisher struct {
	plan   publishPlan
	srv    *server.Server
	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	histories map[string]*history // guarded by mu
	failed    error               // guarded by mu
}

// publish begins, or goes on after a pause.
func (s *served) publish(ctx context.Context, p publishPlan) (none, error) {
	if s.publisher == nil {
		s.publisher = &publisher{plan: p, srv: s.srv, histories: map[string]*history{}}
		if err := s.publisher.prepare(ctx); err != nil {
			return none{}, err
		}
		for range p.Backlog {
			for _, name := range p.Channels {
				s.publisher.one(name)
			}
		}
	}
	b := s.publisher
	b.stop()
	b.plan.PerSecond, b.plan.Burst, b.plan.Most = p.PerSecond, p.Burst, p.Most
	ctx, b.cancel = context.WithCancel(ctx)
	b.done = make(chan struct{})
	go func() { defer close(b.done); b.run(ctx) }()
	return none{}, nil
}

func (s *served) pause(context.Context, none) (none, error) {
	if s.publisher == nil {
		return none{}, errors.New("nothing is published")
	}
	s.publisher.stop()
	return none{}, nil
}

// facts are those that were not told before.
func (s *served) facts(context.Context, none) (map[string]history, error) {
	b := s.publisher
	b.mu.Lock()
	defer b.mu.Unlock()
	told := map[string]history{}
	for name, h := range b.histories {
		told[name] = *h
		h.Facts = nil
	}
	return told, b.failed
}

// prepare writes what is there before the first client.
func (b *publisher) prepare(ctx context.Context) error {
	for _, name := range b.plan.Channels {
		for range max(1, b.plan.Before) {
			at, err := b.srv.Publish(ctx, name, server.Message{Data: b.data(0, 0)})
			if err != nil {
				return err
			}
			b.histories[name] = &history{Begin: at.String()}
		}
	}
	return nil
}

func (b *publisher) stop() {
	if b.cancel != nil {
		b.cancel()
		<-b.done
	}
}

func (b *publisher) run(ctx context.Context) {
	burst := max(1, b.plan.Burst)
	each := time.Duration(float64(time.Second) * float64(burst) / b.plan.PerSecond / float64(len(b.plan.Channels)))
	tick := time.NewTicker(each)
	defer tick.Stop()
	for i, done := 0, 0; b.plan.Most == 0 || done < b.plan.Most; done += burst {
		select {
		case <-tick.C:
			for range burst {
				b.one(b.plan.Channels[i])
				i = (i + 1) % len(b.plan.Channels)
			}
		case <-ctx.Done():
			return
		}
	}
}

// one publishes the next event of a channel.
func (b *publisher) one(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.histories[name]
	h.given++
	n := h.given
	f := fact{N: n, At: now()}
	at, err := b.srv.Publish(context.Background(), name, server.Message{Data: b.data(n, f.At)}) // not cut short: its position has to be known
	if err != nil {
		b.failed = errors.Join(b.failed, err)
		return
	}
	if b.plan.Judged > 0 && !slices.Contains(b.plan.Channels[:b.plan.Judged], name) {
		return
	}
	f.Position = at.String()
	h.Facts = append(h.Facts, f)
}

// data is an event's: its number for the oracle, and when it was published.
func (b *publisher) data(n int, at time.Duration) []byte {
	d := fmt.Sprintf(`{"n":%d,"at":%d,"text":"`, n, at)
	return []byte(d + strings.Repeat("x", max(0, b.plan.Size-len(d)-2)) + `"}`)
}
