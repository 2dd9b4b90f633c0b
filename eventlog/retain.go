package eventlog

import (
	"fmt"
	"slices"
	"strings"
)

// anyNamespace stands before the slash of patterns that hold in each namespace.
const anyNamespace = "*"

// RetainBy returns a function for the Retain option of a log that looks up how
// much is kept of a channel by pattern, as [ByPattern] does:
//
//	eventlog.RetainBy(map[string]eventlog.Retention{
//		"orders":         {Events: -1, Bytes: -1, Age: -1}, // for ever
//		"room:*":         {Events: -1, Bytes: -1, Age: 7 * 24 * time.Hour},
//		"acme/*":         {Events: 1000},
//		"*/audit":        {Age: 365 * 24 * time.Hour},
//	})
//
// Where no pattern matches it is the zero Retention, the log's defaults.
func RetainBy(patterns map[string]Retention) func(Channel) Retention { return ByPattern(patterns) }

// ByPattern returns a function that looks up what holds for a channel by pattern.
//
// A pattern is a channel's name, or a prefix of one and "*". Before it, and
// a slash, may stand the namespace that it is for, or "*" for each of them;
// without it is for the default one, as is one that begins with a slash. (So
// a name that has a slash is written with one before it: "/docs/readme".)
//
// Of the patterns that match, those of the channel's own namespace count before
// those of all, a name before a prefix, and the longest prefix before shorter
// ones; what they say is not joined. Where none matches it is the zero value.
//
// ByPattern panics if a pattern is none: it is empty behind the slash, or has
// another "*" than at its end.
func ByPattern[T any](patterns map[string]T) func(Channel) T {
	by := make(map[string]*rules[T])
	for pattern, rule := range patterns {
		namespace, name, found := strings.Cut(pattern, "/")
		if !found {
			namespace, name = DefaultNamespace, pattern
		}
		if by[namespace] == nil {
			by[namespace] = &rules[T]{names: make(map[string]T)}
		}
		prefix, isPrefix := strings.CutSuffix(name, "*")
		switch {
		case name == "" || strings.Contains(prefix, "*"):
			panic(fmt.Sprintf("eventlog: %q is neither a name nor a prefix and one *", pattern))
		case isPrefix:
			by[namespace].prefixes = append(by[namespace].prefixes, prefixRule[T]{prefix, rule})
		default:
			by[namespace].names[name] = rule
		}
	}
	for _, rs := range by {
		slices.SortFunc(rs.prefixes, func(a, b prefixRule[T]) int { return len(b.prefix) - len(a.prefix) })
	}
	return func(ch Channel) (rule T) {
		for _, namespace := range []string{ch.Namespace, anyNamespace} {
			if r, found := by[namespace].of(ch.Name); found {
				return r
			}
		}
		return rule
	}
}

// rules are those of one namespace, ready to be looked up.
type rules[T any] struct {
	names    map[string]T
	prefixes []prefixRule[T] // the longest first
}

type prefixRule[T any] struct {
	prefix string
	rule   T
}

// of returns what is said of a channel. rs may be nil.
func (rs *rules[T]) of(name string) (rule T, found bool) {
	if rs == nil {
		return rule, false
	}
	if rule, found = rs.names[name]; found {
		return rule, true
	}
	for _, p := range rs.prefixes {
		if strings.HasPrefix(name, p.prefix) {
			return p.rule, true
		}
	}
	return rule, false
}
