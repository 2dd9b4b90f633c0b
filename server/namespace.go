package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A Namespace says what holds for its channels. How much of them is kept is the
// log's own option.
type Namespace struct {
	// Rules are by channel pattern: a name, or a prefix and "*". Of those that
	// match, the longest counts, and a name before a pattern; rules are not
	// joined.
	Rules map[string]Rule
}

// A Rule says what holds for the channels of a pattern. The zero value changes
// nothing.
type Rule struct {
	// Allow are actions that every client of the namespace may do, without
	// Options.Authorize being asked.
	Allow []Action
	// From says from when on a client may read a channel, by the time of its
	// events; the zero time: all of it. A client that was there before is told
	// a gap with the reason withheld. nil: all of it. It is asked whenever a
	// client begins the channel, and may block within ctx. An error refuses the
	// channel.
	From func(ctx context.Context, who Identity, ch Channel) (time.Time, error)
	// MaxLag, MaxLagBytes, MaxLagAge, LagWindow, Slow and MaxPresent are in
	// place of the options of those names, if not 0.
	MaxLag      int
	MaxLagBytes int64
	MaxLagAge   time.Duration
	LagWindow   time.Duration
	Slow        Slow
	MaxPresent  int
	// Secret says that events hold what others must not learn of, such as tokens,
	// beside something that somebody else chooses: nothing of these channels is
	// compressed, as the length would tell how much the two have in common, and no
	// shared cache keeps it.
	Secret bool
}

func (r *Rule) allows(what Action) bool { return slices.Contains(r.Allow, what) }

// rules are those of one namespace, ready to be looked up.
type rules struct {
	names    map[string]*Rule
	prefixes []prefixRule // the longest first
}

type prefixRule struct {
	prefix string
	rule   *Rule
}

func compile(namespaces map[string]Namespace) (map[string]rules, error) {
	compiled := make(map[string]rules, len(namespaces))
	for name, n := range namespaces {
		if err := (Identity{Namespace: name}).Check(); err != nil {
			return nil, fmt.Errorf("server: Options.Namespaces: %q: %w", name, err)
		}
		c := rules{names: make(map[string]*Rule)}
		for pattern, rule := range n.Rules {
			if err := rule.check(); err != nil {
				return nil, fmt.Errorf("server: Options.Namespaces: %q: %q: %w", name, pattern, err)
			}
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			switch {
			case pattern == "" || strings.Contains(prefix, "*"):
				return nil, fmt.Errorf("server: Options.Namespaces: %q: the pattern %q is neither a name nor a prefix and one *", name, pattern)
			case isPrefix:
				c.prefixes = append(c.prefixes, prefixRule{prefix, &rule})
			default:
				c.names[pattern] = &rule
			}
		}
		slices.SortFunc(c.prefixes, func(a, b prefixRule) int { return len(b.prefix) - len(a.prefix) })
		compiled[name] = c
	}
	return compiled, nil
}

var noRule Rule

// ruleOf returns the rule of a channel.
func (s *Server) ruleOf(ch Channel) *Rule {
	rules := s.rules[ch.Namespace]
	if r := rules.names[ch.Name]; r != nil {
		return r
	}
	for _, p := range rules.prefixes {
		if strings.HasPrefix(ch.Name, p.prefix) {
			return p.rule
		}
	}
	return &noRule
}

// from is core.Options.From.
func (s *Server) from(ctx context.Context, who transport.Peer, ch eventlog.Channel) (time.Time, error) {
	r := s.ruleOf(ch)
	if r.From == nil {
		return time.Time{}, nil
	}
	return r.From(ctx, identityOf(who), ch)
}

// policy is core.Options.Policy.
func (s *Server) policy(ch eventlog.Channel) core.Policy {
	r := s.ruleOf(ch)
	return core.Policy{
		MaxLag: r.MaxLag, MaxLagBytes: r.MaxLagBytes, MaxLagAge: r.MaxLagAge, LagWindow: r.LagWindow,
		Slow: r.Slow, MaxPresent: r.MaxPresent, Secret: r.Secret,
	}
}
