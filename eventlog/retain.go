package eventlog

import (
	"fmt"
	"slices"
	"strings"
)

// anyNamespace stands before the slash of patterns that hold in each namespace.
const anyNamespace = "*"

// RetainBy returns a function for the Retain option of a log that looks up how
// much is kept of a channel by pattern:
//
//	eventlog.RetainBy(map[string]eventlog.Retention{
//		"orders":         {Events: -1, Bytes: -1, Age: -1}, // for ever
//		"room:*":         {Events: -1, Bytes: -1, Age: 7 * 24 * time.Hour},
//		"acme/*":         {Events: 1000},
//		"*/audit":        {Age: 365 * 24 * time.Hour},
//	})
//
// A pattern is a channel's name, or a prefix of one and "*". Before it, and
// a slash, may stand the namespace that it is for, or "*" for each of them;
// without it is for the default one, as is one that begins with a slash. (So
// a name that has a slash is written with one before it: "/docs/readme".)
//
// Of the patterns that match, those of the channel's own namespace count before
// those of all, a name before a prefix, and the longest prefix before shorter
// ones; retentions are not joined. Where none matches it is the zero Retention,
// the log's defaults.
//
// RetainBy panics if a pattern is none: it is empty behind the slash, or has
// another "*" than at its end.
func RetainBy(patterns map[string]Retention) func(Channel) Retention {
	by := make(map[string]*retentions)
	for pattern, r := range patterns {
		namespace, name, found := strings.Cut(pattern, "/")
		if !found {
			namespace, name = DefaultNamespace, pattern
		}
		if by[namespace] == nil {
			by[namespace] = &retentions{names: make(map[string]Retention)}
		}
		prefix, isPrefix := strings.CutSuffix(name, "*")
		switch {
		case name == "" || strings.Contains(prefix, "*"):
			panic(fmt.Sprintf("eventlog: RetainBy: %q is neither a name nor a prefix and one *", pattern))
		case isPrefix:
			by[namespace].prefixes = append(by[namespace].prefixes, prefixRetention{prefix, r})
		default:
			by[namespace].names[name] = r
		}
	}
	for _, rs := range by {
		slices.SortFunc(rs.prefixes, func(a, b prefixRetention) int { return len(b.prefix) - len(a.prefix) })
	}
	return func(ch Channel) Retention {
		for _, namespace := range []string{ch.Namespace, anyNamespace} {
			if r, found := by[namespace].of(ch.Name); found {
				return r
			}
		}
		return Retention{}
	}
}

// retentions are those of one namespace, ready to be looked up.
type retentions struct {
	names    map[string]Retention
	prefixes []prefixRetention // the longest first
}

type prefixRetention struct {
	prefix string
	Retention
}

// of returns what is said of a channel. rs may be nil.
func (rs *retentions) of(name string) (r Retention, found bool) {
	if rs == nil {
		return Retention{}, false
	}
	if r, found = rs.names[name]; found {
		return r, true
	}
	for _, p := range rs.prefixes {
		if strings.HasPrefix(name, p.prefix) {
			return p.Retention, true
		}
	}
	return Retention{}, false
}
