//go:build unix

package cluster

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/throughline/throughline/conformance"
)

// add adds the next event of a channel.
func (l *line) add(position string, data []byte) error {
	var p struct {
		N  int
		By string
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	l.oracle.Appended(p.N, position)
	l.facts = append(l.facts, fact{p.N, p.By, position})
	l.at[position] = p.N
	return nil
}

// head is the last position.
func (l *line) head() string {
	if len(l.facts) == 0 {
		return l.begin
	}
	return l.facts[len(l.facts)-1].position
}

// holds reports whether a position is one of the channel's.
func (l *line) holds(position string) bool {
	_, event := l.at[position]
	return event || position == l.begin
}

// judge holds what everybody says against what the log held: in each era, and at the
// end, which is the last of them.
func (r *run) judge() {
	for _, e := range r.eras {
		for _, channel := range channels {
			r.judgeEra(e, channel)
		}
	}
	r.judgePublishes()
	for _, c := range r.clients {
		for _, channel := range c.channels {
			r.judgeClient(c, channel)
		}
	}
}

// judgeEra: what producers say is there once, in their order.
func (r *run) judgeEra(e *era, channel string) {
	last, seen := map[string]int{}, map[int]bool{}
	for _, f := range e.events[channel].facts {
		if seen[f.n] {
			r.faultf("number %d is twice in %s, as it was before %s", f.n, channel, e.name)
		}
		seen[f.n] = true
		if f.by != "" && f.n < last[f.by] {
			r.faultf("number %d of %q comes after its number %d in %s, as it was before %s", f.n, f.by, last[f.by], channel, e.name)
		}
		last[f.by] = f.n
	}
}

// judgePublishes: what was acknowledged is where it was said to be, in some era; and at
// the end, if nothing was lost since.
func (r *run) judgePublishes() {
	for _, s := range r.said.all {
		if !s.acknowledged {
			continue
		}
		r.count("publishes acknowledged")
		in := slices.IndexFunc(r.eras, func(e *era) bool { return e.events[s.channel].at[s.position] == s.n })
		switch {
		case in < 0:
			r.faultf("number %d of %q was acknowledged at %s of %s, and never was there", s.n, s.by, s.position, s.channel)
		case s.began.After(r.lostLast) && r.eras[len(r.eras)-1].events[s.channel].at[s.position] != s.n:
			r.faultf("number %d of %q was acknowledged at %s of %s after the last loss, and is not there", s.n, s.by, s.position, s.channel)
		}
	}
}

// judgeClient: between two of its gaps, a client was told the truth of one era, later
// ones after earlier ones, and in the end it is where the log is.
func (r *run) judgeClient(c *client, channel string) {
	all := c.seen[channel]
	at, from := r.begin[channel], 0 // of the eras
	var before *item                // the gap
	for i := 0; ; {
		end := i
		for end < len(all) && all[end].To == "" {
			end++
		}
		part := all[i:end]
		last := end == len(all)
		found, ok := r.eraOf(c, channel, at, before, part, from, last)
		if !ok {
			return
		}
		from = found
		r.counts["events delivered"] += len(part)
		if last {
			return
		}
		gap := all[end]
		if from, ok = r.justified(c, channel, gap, from); !ok {
			return
		}
		at, i, before = gap.To, end+1, &gap
	}
}

// eraOf finds the first era, from one on, to which a part of what a client got is true;
// the last part has to be all there is in the last era.
func (r *run) eraOf(c *client, channel, at string, before *item, part []item, from int, last bool) (found int, ok bool) {
	seen := make([]conformance.Seen, len(part))
	for i := range part {
		seen[i] = part[i].Seen
	}
	if last {
		from = len(r.eras) - 1
	}
	var said string
	for i := from; i < len(r.eras); i++ {
		v := r.eras[i].events[channel].oracle.Judge(at, seen)
		if v.OK() && (!last || v.Unreached == 0) {
			return i, true
		}
		said += fmt.Sprintf("\n\tin era %d, before %s: %v", i, r.eras[i].name, v)
	}
	over := "nothing"
	if before != nil {
		at = fmt.Sprintf("%s (told instead of %s over %s)", at, before.From, before.over)
	}
	if len(part) > 0 {
		over = part[len(part)-1].over
	}
	r.faultf("%s, %s, from %s on (%d events, the last over %s; the rest: %v) is true to no era:%s", c.name, channel, at, len(part), over, last, said)
	return 0, false
}

// justified reports whether a gap had to be told: the position is none of the history
// in which it ends.
func (r *run) justified(c *client, channel string, gap item, from int) (to int, ok bool) {
	r.counts["gaps "+gap.reason]++
	if gap.reason != "rewritten" {
		r.faultf("%s is told of a gap %q in %s from %s to %s", c.name, gap.reason, channel, gap.From, gap.To)
		return 0, false
	}
	var said string
	for i, e := range r.eras {
		l := e.events[channel]
		said += fmt.Sprintf("; era %d, before %s, has the one: %v, the other: %v", i, e.name, l.holds(gap.From), l.holds(gap.To))
		if i >= from && l.holds(gap.To) && !l.holds(gap.From) {
			return i, true
		}
	}
	r.faultf("%s over %s is told that %s was rewritten from %s to %s, which it was not%s", c.name, gap.over, channel, gap.From, gap.To, said)
	return 0, false
}

// vanished counts what the log lost.
func (r *run) vanished() (n int) {
	for i, e := range r.eras[1:] {
		for _, channel := range channels {
			for _, f := range r.eras[i].events[channel].facts {
				if _, still := e.events[channel].at[f.position]; !still {
					n++
				}
			}
		}
	}
	return n
}
