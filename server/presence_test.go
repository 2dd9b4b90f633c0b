package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// A roll is what a client knows of who is present.
type roll struct {
	version string
	total   int
	members map[string]string // subjects by id; nil if they are not known
}

// take takes a frame as PROTOCOL P10.2 says.
func (r *roll) take(t *testing.T, p *wireclient.Presence) {
	t.Helper()
	r.version, r.total = p.Version, p.Total
	switch {
	case p.Members != nil:
		r.members = make(map[string]string)
	case p.Joined == nil && p.Left == nil:
		r.members = nil
		return
	case r.members == nil:
		t.Fatalf("a difference came to who knows no members: %+v", p)
	}
	for _, m := range slices.Concat(p.Members, p.Joined) {
		r.members[m.ID] = m.Subject
	}
	for _, id := range p.Left {
		delete(r.members, id)
	}
	if len(r.members) != r.total {
		t.Errorf("P10.2: %d members, and a total of %d", len(r.members), r.total)
	}
}

func (r *roll) subjects() []string {
	list := []string{}
	for _, subject := range r.members {
		list = append(list, subject)
	}
	slices.Sort(list)
	return list
}

// watch reads a stream's presence frames until the subjects are these, and
// returns how long that took and what came in between.
func (r *roll) until(w *world, s wireclient.Stream, want ...string) (took time.Duration, frames int) {
	w.Helper()
	began := time.Now()
	for !slices.Equal(r.subjects(), want) || r.version == "" {
		it, err := s.Next()
		if err != nil {
			w.Fatalf("waiting for %q, at %q: %v", want, r.subjects(), err)
		}
		if it.Presence != nil {
			r.take(w.T, it.Presence)
			frames++
		}
		if time.Since(began) > 10*time.Minute {
			w.Fatalf("waiting for %q: still %q", want, r.subjects())
		}
	}
	return time.Since(began), frames
}

// presenceStream opens a line that watches the presence of r, on any carrier.
func (w *world) presenceStream(hc *http.Client, carrier string, channels ...wireclient.Channel) wireclient.Stream {
	w.Helper()
	h := wireclient.Hello{Version: 1, Line: 1, Channels: channels, Presence: []wireclient.Watch{{Channel: "r"}}}
	if carrier != "poll" {
		s, _ := w.line(hc, carrier, h)
		return s
	}
	s := wireclient.NewPollStream(w.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
		for i := range h.Channels {
			if p := at[h.Channels[i].Channel]; p != "" {
				h.Channels[i].After = p
			}
		}
		a, err := wireclient.SessionPoll(ctx, hc, base+"/poll?wait=25s", h)
		if err != nil {
			return nil, err
		}
		if a.Open.Token != "" {
			h.Token = a.Open.Token
		}
		for _, it := range a.Items {
			if it.Presence != nil {
				h.Presence[0].Seen = it.Presence.Version
			}
		}
		return a, nil
	})
	w.Cleanup(s.Close)
	return s
}

// presenceLine opens a line that is in r, and reads on by itself.
func (w *world) presenceLine(subject, carrier string) wireclient.Stream {
	w.Helper()
	h := wireclient.Channel{Channel: "r", Paused: carrier != "poll"}
	if carrier != "poll" {
		s, _ := w.line(w.as(subject), carrier, wireclient.Hello{Line: 1, Channels: []wireclient.Channel{h}})
		return s
	}
	s := w.presenceStream(w.as(subject), carrier, h)
	go func() {
		for _, err := s.Next(); err == nil; _, err = s.Next() {
		}
	}()
	return s
}

// TestPresence: who comes is seen, who goes is seen within the stated time, and
// a change of carrier is not.
func TestPresence(t *testing.T) {
	for _, watcher := range sessionCarriers {
		for _, node := range []string{"the same node", "another node"} {
			t.Run(watcher+" "+node, func(t *testing.T) {
				o := server.Options{Authorize: allow, Authenticate: byHeader}
				inBubble(t, o, func(w *world) {
					o.Store = w.store
					home := w.as
					if node == "another node" {
						_, hc := w.node(o)
						home = func(subject string) *http.Client { return &http.Client{Transport: withHeader{hc.Transport, subject}} }
					}
					r := roll{}
					s := w.presenceStream(w.as("watcher"), watcher)
					r.until(w, s)
					channels := []wireclient.Channel{{Channel: "r", Paused: true}}
					ann, open := w.line(home("ann"), "ws", wireclient.Hello{Line: 1, Channels: channels})
					if took, _ := r.until(w, s, "ann"); took < 2*time.Second || took > 7*time.Second {
						t.Errorf("P10.5: seen after %v", took)
					}
					// To another carrier, and through a short loss of network.
					ann2, _ := w.line(home("ann"), "sse", wireclient.Hello{Line: 2, Token: open.Token, Channels: channels})
					ann.Close()
					time.Sleep(time.Minute)
					ann2.Close()
					time.Sleep(10 * time.Second)
					ann, _ = w.line(home("ann"), "ws", wireclient.Hello{Line: 3, Token: open.Token, Channels: channels})
					w.line(home("bob"), "sse", wireclient.Hello{Line: 1, Channels: channels})
					if _, frames := r.until(w, s, "ann", "bob"); frames != 1 && watcher != "poll" {
						t.Errorf("P10.5: %d frames for one who joined: a change of carrier showed", frames)
					}
					ann.Close() // the tab is killed
					if took, _ := r.until(w, s, "bob"); took < 15*time.Second || took > 25*time.Second {
						t.Errorf("P10.5: gone after %v", took)
					}
				})
			})
		}
	}
}

// A farStore takes a while for each answer, as one on a network.
type farStore struct {
	session.Store
	takes time.Duration
}

func (s farStore) Release(ctx context.Context, held session.Held, idle time.Duration) (bool, error) {
	time.Sleep(s.takes)
	return s.Store.Release(ctx, held, idle)
}

func (s farStore) Present(ctx context.Context, ch server.Channel, most int) ([]session.Member, int, error) {
	time.Sleep(s.takes)
	return s.Store.Present(ctx, ch, most)
}

// TestPresenceEndsInTime: whenever between two looks of the nodes a line breaks, its
// session is present for the grace, and nowhere after it and two intervals (P10.5).
func TestPresenceEndsInTime(t *testing.T) {
	for _, interval := range []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second, 5 * time.Second} {
		t.Run(interval.String(), func(t *testing.T) {
			grace := 3 * interval
			o := server.Options{Authorize: allow, Authenticate: byHeader, PresenceGrace: grace, PresenceInterval: interval}
			inBubble(t, o, func(w *world) {
				o.Store = farStore{w.store, interval / 20}
				_, hc := w.node(o)
				far := &http.Client{Transport: withHeader{hc.Transport, "watcher"}}
				least, most := time.Hour, time.Duration(0)
				for n := range 60 {
					watcher := w.as("watcher")
					if n%2 == 1 {
						watcher = far
					}
					carrier := sessionCarriers[n%3]
					time.Sleep(interval * time.Duration(n%7) / 7) // so that the nodes look at other times
					r := roll{}
					s := w.presenceStream(watcher, "ws")
					r.until(w, s)
					ann := w.presenceLine("ann", carrier)
					r.until(w, s, "ann")
					time.Sleep(time.Minute + interval*time.Duration(n)/60)
					ann.Close()
					took, _ := r.until(w, s)
					if took < grace || took > grace+2*interval {
						t.Errorf("%s, node %d: gone after %v", carrier, n%2, took)
					}
					least, most = min(least, took), max(most, took)
					s.Close()
				}
				t.Logf("gone after %v to %v, of %v to %v", least, most, grace, grace+2*interval)
			})
		})
	}
}

// TestPresenceOfPolls: a session that polls is present without a break.
func TestPresenceOfPolls(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader}, func(w *world) {
		s := w.presenceStream(w.as("watcher"), "ws")
		r := roll{}
		r.until(w, s)
		poller := w.presenceStream(w.as("ann"), "poll", wireclient.Channel{Channel: "r"})
		stop := make(chan struct{})
		go func() {
			for range 200 {
				w.publish("r", "1") // so that many polls are answered
				time.Sleep(500 * time.Millisecond)
			}
			close(stop)
		}()
		go func() {
			for {
				if _, err := poller.Next(); err != nil {
					return
				}
			}
		}()
		r.until(w, s, "ann")
		<-stop
		poller.Close()
		if _, frames := r.until(w, s); frames != 1 {
			t.Errorf("%d frames for one who left: it was not present all the time", frames)
		}
	})
}

// TestPresenceSeen: a poll waits while the version it presents is what there is,
// and its answer doesn't repeat it (P10.3); a stream begins with a snapshot.
func TestPresenceSeen(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader}, func(w *world) {
		h := wireclient.Hello{Version: 1, Line: 1, Presence: []wireclient.Watch{{Channel: "r"}}}
		poll := func() (told []*wireclient.Presence, took time.Duration) {
			begin := time.Now()
			a, err := wireclient.SessionPoll(w.ctx, w.as("ann"), base+"/poll?wait=25s", h)
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range a.Items {
				if it.Presence != nil {
					told = append(told, it.Presence)
				}
			}
			return told, time.Since(begin)
		}
		first, took := poll()
		if len(first) != 1 || took > time.Second {
			t.Fatalf("the first poll was told %v after %v", first, took)
		}
		h.Presence[0].Seen = first[0].Version
		if told, took := poll(); len(told) > 0 || took < 20*time.Second {
			t.Errorf("a poll that knows it was told %v after %v", told, took)
		}
		s, _ := w.line(w.as("ann"), "sse", h)
		if it := w.next(s); it.Presence == nil || it.Presence.Version != first[0].Version {
			t.Errorf("a stream begins with %+v", it)
		}
	})
}

// TestPresenceChangesInFlight: on a WebSocket what is watched, and where one is
// present, changes by frames.
func TestPresenceChangesInFlight(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader}, func(w *world) {
		ann, _ := w.line(w.as("ann"), "ws", wireclient.Hello{Line: 1})
		ws := ann.(*wireclient.WSStream)
		send := func(frame string) {
			t.Helper()
			if err := ws.Send([]byte(frame)); err != nil {
				t.Fatal(err)
			}
		}
		send(`{"presence":[{"channel":"r"},{"channel":"\u0001"}]}`)
		it := w.next(ann)
		if it.Presence == nil || it.Presence.End == nil || it.Presence.End.Code != "bad_channel" {
			t.Errorf("P10.4: %+v", it)
		}
		r := roll{}
		r.until(w, ann)
		time.Sleep(3 * time.Second)
		send(`{"subscribe":[{"channel":"r"}]}`)
		r.until(w, ann, "ann")
		send(`{"unsubscribe":["r"]}`)
		r.until(w, ann)
		send(`{"presence":[]}`)
		send(`{"subscribe":[{"channel":"r"}]}`)
		time.Sleep(10 * time.Second)
		w.publish("r", "1")
		for it := w.next(ann); !it.Event; it = w.next(ann) {
			if it.Presence != nil {
				t.Errorf("P10.1: %+v came though nothing is watched", it.Presence)
			}
		}
	})
}

// TestPresenceNeedsARight, is asked for again with the others, and shows what
// OnConnect gave.
func TestPresenceNeedsARight(t *testing.T) {
	var allowed atomic.Bool
	o := server.Options{
		Authorize: func(_ context.Context, _ server.Identity, what server.Action, _ server.Channel) error {
			if what == server.Presence && !allowed.Load() {
				return errors.New("no")
			}
			return nil
		},
		OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
			return server.Welcome{Info: json.RawMessage(`{"colour":"red"}`)}, nil
		},
		Authenticate: byHeader,
	}
	inBubble(t, o, func(w *world) {
		s, _ := w.line(w.http, "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}, Presence: []wireclient.Watch{{Channel: "r"}}})
		w.next(s)
		if it := w.next(s); it.Presence == nil || it.Presence.End == nil || it.Presence.End.Code != "forbidden" {
			t.Errorf("P10.4: %+v", it)
		}
		allowed.Store(true)
		s, _ = w.line(w.as("ann"), "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}, Presence: []wireclient.Watch{{Channel: "r"}}})
		time.Sleep(3 * time.Second)
		var members []wireclient.Member
		for len(members) == 0 {
			if it := w.next(s); it.Presence != nil {
				members = slices.Concat(it.Presence.Members, it.Presence.Joined)
			}
		}
		if string(members[0].Info) != `{"colour":"red"}` {
			t.Errorf("P10.2: %+v", members)
		}
		allowed.Store(false)
		if err := w.srv.Reauthorize(w.ctx, server.Target{Subject: "ann"}); err != nil {
			t.Fatal(err)
		}
		for {
			if it := w.next(s); it.Presence != nil && it.Presence.End != nil {
				break
			}
		}
		w.publish("r", "1")
		if it := w.next(s); string(it.Data) != "1" {
			t.Errorf("P10.4: the channel's events: %+v", it)
		}
	})
}

// TestManyArePresent: above a size there are counts only, and the members come
// back when there are fewer.
func TestManyArePresent(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader, MaxPresent: 3}, func(w *world) {
		s := w.presenceStream(w.as("watcher"), "sse")
		r := roll{}
		r.until(w, s)
		claim := func(n int) {
			for i := range n {
				held := session.Held{ID: fmt.Sprint("s", i), Line: 1}
				if err := w.store.Claim(w.ctx, held, session.Lease{Channels: []string{"r"}, For: time.Hour, Subject: fmt.Sprint(i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		claim(3)
		r.until(w, s, "0", "1", "2")
		claim(4)
		for r.total != 4 {
			if it := w.next(s); it.Presence != nil {
				r.take(t, it.Presence)
			}
		}
		if r.members != nil {
			t.Errorf("P10.2: members of a channel that has too many: %+v", r.members)
		}
		if _, err := w.store.Release(w.ctx, session.Held{ID: "s1", Line: 1}, 0); err != nil {
			t.Fatal(err)
		}
		r.until(w, s, "0", "2", "3")
	})
}
