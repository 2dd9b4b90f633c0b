package faultproxy

import (
	"net/http"
	"slices"
	"strings"
)

// A Rule says which requests get a fault. What is left zero matches all.
type Rule struct {
	Method string
	Path   string // how the path ends
	Header string // the name of a header that is present, other than Host
	// Match is asked last, without a lock held. The request has no body, and is
	// the proxy's own copy.
	Match func(*http.Request) bool

	// Skip is how many matching requests pass to the rules that follow first.
	Skip int
	// Times is how many requests get the fault then. Default: all.
	Times int
	// Fault is what they get. Nil: they pass unchanged, whatever later rules
	// say.
	Fault Fault
}

// A rule is a Rule with its counts, which Proxy.mu guards.
type rule struct {
	Rule
	skipped, used int
}

// Add adds a rule. Of several that match a request the one added first
// decides; one that is used up is passed over. Remove leaves requests that have begun
// as they are, and may be called twice.
func (p *Proxy) Add(r Rule) (remove func()) {
	added := &rule{Rule: r}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, added)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.rules = slices.DeleteFunc(p.rules, func(r *rule) bool { return r == added })
	}
}

// choose returns what a request gets, and nil if it passes unchanged.
func (p *Proxy) choose(req *http.Request) Fault {
	p.mu.Lock()
	rules := slices.Clone(p.rules)
	p.mu.Unlock()
	for _, r := range rules {
		if r.matches(req) && p.take(r) {
			return r.Fault
		}
	}
	return nil
}

func (r *Rule) matches(req *http.Request) bool {
	switch {
	case r.Method != "" && r.Method != req.Method,
		!strings.HasSuffix(req.URL.Path, r.Path),
		r.Header != "" && len(req.Header.Values(r.Header)) == 0:
		return false
	}
	if f, picky := r.Fault.(interface{ fits(*http.Request) bool }); picky && !f.fits(req) {
		return false
	}
	return r.Match == nil || r.Match(req)
}

// take counts a request that matches, and reports whether it is the rule's.
func (p *Proxy) take(r *rule) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !slices.Contains(p.rules, r), r.Times > 0 && r.used >= r.Times:
		return false
	case r.skipped < r.Skip:
		r.skipped++
		return false
	}
	r.used++
	return true
}
