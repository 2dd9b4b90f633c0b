package redis

import (
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/redistest"
)

// copyKeys copies a log to another prefix.
func copyKeys(t *testing.T, s *redistest.Server, from, to string) {
	t.Helper()
	c := s.Client(t)
	for _, key := range c.Keys(t.Context(), from+":*").Val() {
		if err := c.Do(t.Context(), "copy", key, to+strings.TrimPrefix(key, from), "replace").Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadsDontKeepNewsFromOthers: a bell is lost, or Redis loses history, for which
// none rings. Whoever reads meanwhile, once or all the time, learns of it, and those who
// only wait are woken all the same, within the interval of checks.
func TestReadsDontKeepNewsFromOthers(t *testing.T) {
	const every = 200 * time.Millisecond
	for name, again := range map[string]time.Duration{"one read": time.Hour, "reads all the time": every / 10} {
		for what, happen := range map[string]func(t *testing.T, s *redistest.Server, other *node){
			"history is lost": func(t *testing.T, s *redistest.Server, _ *node) {
				if err := s.Client(t).FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			},
			"a bell is lost": func(t *testing.T, s *redistest.Server, other *node) { // it is appended under other keys, which ring another
				send(t, other, "b")
				copyKeys(t, s, "q", "t")
			},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				server := redistest.Start(t, redistest.Options{})
				l := openOn(t, server, Options{Prefix: "t", CheckInterval: every})
				t.Cleanup(func() { _ = l.Close() })
				at := send(t, l, "a")
				copyKeys(t, server, "t", "q")
				other := openOn(t, server, Options{Prefix: "q"})
				t.Cleanup(func() { _ = other.Close() })
				woken := watch(t, l)
				told(t, l, at)
				time.Sleep(4 * every) // what was to be told of the beginning is told
				for len(woken) > 0 {
					<-woken
				}
				happen(t, server, other)
				if what, _ := told(t, l, at); what == "" {
					t.Fatal("who reads sees nothing new")
				}
				ended := time.After(10 * every)
				for tick := time.NewTicker(again); ; {
					select {
					case <-woken:
						tick.Stop()
						return
					case <-tick.C:
						told(t, l, at)
					case <-ended:
						t.Fatal("nobody was woken")
					}
				}
			})
		}
	}
}
