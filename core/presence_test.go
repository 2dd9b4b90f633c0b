package core

import (
	"testing"

	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// TestWatchThatMissedAVersion: who has not seen the version before the last is
// told the whole (P10.2), who has the difference.
func TestWatchThatMissedAVersion(t *testing.T) {
	r := &roster{most: 10, known: make(chan struct{})}
	w := &watch{roster: r, name: "r"}
	see := func(ids ...string) {
		members := []session.Member{}
		for _, id := range ids {
			members = append(members, session.Member{ID: id})
		}
		r.see(members, len(members))
	}
	told := func() *transport.Presence {
		f := w.next()
		if f == nil {
			t.Fatal("nothing was told")
		}
		return f.Presence
	}
	see("a")
	if p := told(); p.Members == nil {
		t.Errorf("the first: %+v", p)
	}
	see("a", "b")
	if p := told(); p.Members != nil || len(p.Joined) != 1 {
		t.Errorf("the next: %+v", p)
	}
	see("a", "b", "c") // while its reader is slow
	see("b", "c")
	if p := told(); len(p.Members) != 2 {
		t.Errorf("who missed one: %+v", p)
	}
}
