package eventlog_test

import (
	"testing"

	"github.com/throughline/throughline/eventlog"
)

// TestRetainBy: the namespace's own patterns count before those of all, a name
// before a prefix, and longer prefixes before shorter ones.
func TestRetainBy(t *testing.T) {
	n := func(events int) eventlog.Retention { return eventlog.Retention{Events: events} }
	retain := eventlog.RetainBy(map[string]eventlog.Retention{
		"room:42":  n(1),
		"room:*":   n(2),
		"room:4*":  n(3),
		"/a/b":     n(4),
		"acme/*":   n(5),
		"acme/x":   n(6),
		"*/audit":  n(7),
		"*/audit*": n(8),
		"acme/a/*": n(9),
	})
	for _, c := range []struct {
		namespace, name string
		want            int
	}{
		{"", "room:42", 1},
		{"", "room:421", 3},
		{"", "room:", 2},
		{"", "room", 0},
		{"", "a/b", 4},
		{"a", "b", 0},
		{"acme", "room:42", 5},
		{"acme", "x", 6},
		{"acme", "xx", 5},
		{"acme", "a/b", 9},
		{"acme", "audit", 5},
		{"", "audit", 7},
		{"other", "audit", 7},
		{"other", "auditor", 8},
		{"other", "room:42", 0},
	} {
		if got := retain(eventlog.Channel{Namespace: c.namespace, Name: c.name}); got != n(c.want) {
			t.Errorf("%q in %q has %+v, not that of %d events", c.name, c.namespace, got, c.want)
		}
	}
}

// TestRetainByRefuses: what is no pattern shows when the program starts.
func TestRetainByRefuses(t *testing.T) {
	for _, pattern := range []string{"", "*x", "a*b", "**", "acme/", "/"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken", pattern)
				}
			}()
			eventlog.RetainBy(map[string]eventlog.Retention{pattern: {}})
		}()
	}
}
