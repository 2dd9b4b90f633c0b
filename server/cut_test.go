package server_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// TestSSECutAfterEveryByte cuts a plain stream after each of its bytes, with
// one channel and with three, and goes on as an EventSource does: with the last
// event ID it was given, whatever the block was.
func TestSSECutAfterEveryByte(t *testing.T) {
	for _, channels := range [][]string{{"a"}, {"a", "b", "c"}} {
		t.Run(fmt.Sprintf("%d channels", len(channels)), func(t *testing.T) {
			whole := false
			for cut := 0; !whole; cut++ {
				inBubbleWith(t, smallLog(8), server.Options{}, func(w *world) { whole = w.cutAt(cut, channels) })
				if t.Failed() || cut > 10_000 {
					t.Fatalf("cut after byte %d", cut)
				}
			}
		})
	}
}

// cutAt has a reader begin, lose its line after so many bytes, go on, lose that
// line, too, and go on. It reports whether all lines brought everything.
func (w *world) cutAt(cut int, channels []string) (whole bool) {
	oracles := map[string]*conformance.Oracle{}
	begin := map[string]string{}
	for _, name := range channels {
		begin[name] = w.seekEarliest(name)
		oracles[name] = conformance.NewOracle(begin[name])
	}
	say := func(name string) {
		n, payload := oracles[name].Payload()
		oracles[name].Appended(n, w.publish(name, string(payload)).String())
	}
	r := &vectorReader{world: w, channels: channels, seen: map[string][]conformance.Seen{}}
	left := 2 // connections to cut: the one that begins, and the one that is told of a gap
	w.net.CutAfter = func() int {
		if left--; left >= 0 {
			return cut
		}
		return -1
	}
	r.read(func() { // while the line lives
		for i := range 6 {
			say(channels[i%len(channels)])
			synctest.Wait()
		}
	})
	whole = r.events == 6
	if r.id == "" {
		return false // cut before the opening: it begins anew, at the latest
	}
	for i := range 12 * len(channels) { // more than the log keeps
		say(channels[i%len(channels)])
	}
	events := r.events
	r.read(func() {})
	whole = whole && r.events == events+8*len(channels)
	r.read(func() {})
	for _, name := range channels {
		verdict := oracles[name].Judge(begin[name], r.seen[name])
		if !verdict.OK() || verdict.Unreached > 0 {
			w.Errorf("channel %s: %v", name, verdict)
		}
	}
	return whole
}

// A vectorReader does what an EventSource does.
type vectorReader struct {
	*world
	channels []string
	id       string
	events   int
	seen     map[string][]conformance.Seen
}

func (r *vectorReader) read(meanwhile func()) {
	target := base + "/sse" + wireclient.Query("", r.channels...) + "&as=event"
	s, err := wireclient.SSE(r.ctx, r.http, target, r.id)
	done := make(chan struct{})
	if err == nil {
		go func() {
			defer close(done)
			for {
				it, err := s.Next()
				if err != nil {
					return
				}
				r.take(it, s.LastEventID)
			}
		}()
	} else {
		close(done)
	}
	synctest.Wait()
	meanwhile()
	synctest.Wait()
	if err == nil {
		s.Close()
	}
	r.http.CloseIdleConnections()
	<-done
}

func (r *vectorReader) take(it wireclient.Item, id string) {
	r.id = id
	switch {
	case it.Event:
		r.events++
		n, _ := conformance.Number(it.Data)
		r.seen[it.Channel] = append(r.seen[it.Channel], conformance.Seen{N: n, Position: it.Position})
	case it.Gap != nil:
		r.seen[it.Channel] = append(r.seen[it.Channel], conformance.Seen{From: it.Gap.From, To: it.Gap.To})
	}
}
