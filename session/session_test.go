package session

import (
	"errors"
	"strings"
	"testing"

	"github.com/throughline/throughline/eventlog"
)

func TestIdentityCheck(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct {
		identity Identity
		problem  string // empty: it is taken
	}{
		"nobody":              {Identity{}, ""},
		"somebody":            {Identity{Namespace: "shop/é", Subject: "ann@example.com", Claims: func() {}}, ""},
		"at the bounds":       {Identity{Namespace: long(eventlog.MaxNamespace), Subject: long(MaxSubject)}, ""},
		"a dollar inside":     {Identity{Namespace: "a$", Subject: "$"}, ""},
		"long namespace":      {Identity{Namespace: long(eventlog.MaxNamespace + 1)}, "the namespace is longer than 100 bytes"},
		"reserved namespace":  {Identity{Namespace: "$control"}, `the namespace begins with "$", which is reserved for the library`},
		"namespace of lines":  {Identity{Namespace: "a\nb"}, "the namespace is not UTF-8 or holds control characters"},
		"namespace not UTF-8": {Identity{Namespace: "\xff"}, "the namespace is not UTF-8 or holds control characters"},
		"long subject":        {Identity{Subject: long(MaxSubject + 1)}, "the subject is longer than 256 bytes"},
		"subject with C1":     {Identity{Subject: "a\u0085"}, "the subject is not UTF-8 or holds control characters"},
		"subject with DEL":    {Identity{Subject: "a\x7f"}, "the subject is not UTF-8 or holds control characters"},
		"subject not UTF-8":   {Identity{Subject: "\xff"}, "the subject is not UTF-8 or holds control characters"},
	} {
		err := test.identity.Check()
		if invalid, ok := errors.AsType[*eventlog.Invalid](err); ok != (test.problem != "") || ok && invalid.Error() != test.problem {
			t.Errorf("%s: %v, not %q", name, err, test.problem)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := NewID()
		if len(id) != 22 || strings.Trim(id, keyIDAlphabet) != "" || seen[id] || (Held{ID: id}).Check() != nil {
			t.Fatalf("%q is not an id, or not new", id)
		}
		seen[id] = true
	}
}
