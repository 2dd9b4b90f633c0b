package conformance

import (
	"fmt"
	"strings"
	"time"
)

// A Verdict is what is found in a history.
type Verdict struct {
	Lost      int      // events that never came, without a gap
	Repeated  int      // events that came twice or late
	Invented  int      // events that were never published, or not there
	Missing   int      // events that gaps stand for
	Unreached int      // events after the last one received
	Faults    []string // in words, the first few
}

// OK reports whether the law was kept. Unreached events and gaps are no faults.
func (v Verdict) OK() bool { return v.Lost+v.Repeated+v.Invented == 0 && len(v.Faults) == 0 }

func (v Verdict) String() string {
	return fmt.Sprintf("lost %d, repeated or reordered %d, invented %d, in gaps %d, unreached %d %v",
		v.Lost, v.Repeated, v.Invented, v.Missing, v.Unreached, v.Faults)
}

// maxFaults is how many are put into words.
const maxFaults = 5

// Judge finds what is wrong with a history. Of each reader: it has every event
// between two that it was handed, once, in order and as it was published, or
// first a gap; each gap begins where the reader was, ends at a position of the
// channel, and stands for nothing that the log had to hold yet; and who rested is
// at the end. So all readers, over whatever form, live or later, were told the
// same. Judge changes nothing, and finds the same each time.
//
// An event of which nobody knows whether it was published is in the channel if any
// reader was handed it. If none was, no gap may name its position.
//
// A gap may be said without a loss only by a log that may have forgotten the
// name of the channel ([Forgotten]).
func (h *History) Judge() Verdict {
	j := &judgement{ledger: newLedger(), cursors: map[string]*cursor{}}
	j.prepare(h)
	for i := range h.Entries {
		j.at(i, &h.Entries[i])
		j.entry(&h.Entries[i])
	}
	return j.Verdict
}

// A judgement is one run of Judge.
type judgement struct {
	Verdict
	*ledger
	cursors map[string]*cursor
	index   int // of the entry under judgement
	present *Entry
}

// at goes to an entry.
func (j *judgement) at(i int, e *Entry) { j.index, j.present = i, e }

// A cursor is where a reader is.
type cursor struct {
	at    int
	text  string // the position it was told for that, if it is known
	began bool   // it was told where it is
	start string
	floor int // with the start "latest": the end at the time
	over  string
}

func (j *judgement) fault(format string, args ...any) {
	if len(j.Faults) == maxFaults {
		return
	}
	where := fmt.Sprintf("item %d", j.index)
	if e := j.present; e != nil && e.By != "" {
		where = fmt.Sprintf("%d, after %v, %s", j.index, e.Time.Round(time.Millisecond), e.By)
		if c := j.cursors[e.By]; c != nil && c.over != "" {
			where += " over " + c.over
		}
	}
	j.Faults = append(j.Faults, where+": "+fmt.Sprintf(format, args...))
}

// prepare lays out the places, with what became known of each at any time.
func (j *judgement) prepare(h *History) {
	for i := range h.Entries {
		e := &h.Entries[i]
		j.at(i, e)
		p := j.of(e.N)
		switch {
		case e.What == Published && p != nil:
			j.fault("number %d is published twice: the history is no history", e.N)
		case e.What == Published:
			j.add(place{n: e.N, digest: e.Digest, kind: e.Type})
		case e.What == HistoryLost:
			j.add(place{there: true})
		case p == nil:
		case e.What == Acknowledged:
			p.there = true
			j.settle(p, e)
		case e.What == Refused:
			p.refused = true
		case e.What == Handed && !p.refused && e.Digest == p.digest && p.position == "":
			p.there = true
			j.settle(p, e)
		}
	}
}

// of returns the place of a number, if there is one.
func (j *judgement) of(n int) *place {
	if at, known := j.numbers[n]; known {
		return &j.places[at-1]
	}
	return nil
}

// settle notes where an event is.
func (j *judgement) settle(p *place, e *Entry) {
	if p.position != "" && p.position != e.Position {
		j.Invented++
		j.fault("number %d is acknowledged at %q, and is at %q as well", p.n, e.Position, p.position)
		return
	}
	if other, taken := j.positions[e.Position]; taken && other.place != j.numbers[p.n] {
		j.Invented++
		j.fault("%q is the position of number %d and of %s", e.Position, p.n, j.named(other.place))
		return
	}
	p.position = e.Position
	j.positions[e.Position] = spot{place: j.numbers[p.n], event: true}
}

func (j *judgement) entry(e *Entry) {
	switch e.What {
	case Published, HistoryLost:
		j.now++
		if e.What == HistoryLost {
			j.lost, j.unborn = j.now, j.now
		}
	case Dropped:
		j.drop(e)
	case Forgotten:
		j.unborn, j.stale = j.now, e.Before
	case LineBegan:
		j.line(e)
	case Opened:
		j.opening(j.cursor(e), e)
	case Handed:
		j.event(j.cursor(e), e)
	case GapTold:
		j.gap(j.cursor(e), e)
	case Rested:
		j.rest(j.cursor(e))
	}
}

func (j *judgement) drop(e *Entry) {
	at := min(j.numbers[e.N], j.now)
	switch e.Reason {
	case "", "trimmed":
		j.dropped = max(j.dropped, at)
	case "unencodable":
		if at > 0 {
			j.places[at-1].excused = e.Reason
		}
	default:
		for i := range j.places[:at] {
			j.places[i].excused = e.Reason
		}
	}
}

func (j *judgement) cursor(e *Entry) *cursor {
	c := j.cursors[e.By]
	if c == nil {
		c = &cursor{}
		j.cursors[e.By] = c
	}
	return c
}

// line begins a line: from a start, or where the reader is.
func (j *judgement) line(e *Entry) {
	c := j.cursor(e)
	c.over = e.Over
	if isStart(e.Position) || e.Position == "" {
		start, _, _ := strings.Cut(e.Position, "=") // last=1
		*c = cursor{start: start, over: e.Over}
		for at := j.now; at > 0 && c.floor == 0; at-- {
			if j.places[at-1].there {
				c.floor = at
			}
		}
	}
}

// begin has a reader that asked for a start be at a place.
func (j *judgement) begin(c *cursor, at int) {
	if c.began {
		return
	}
	c.began = true
	c.at = at
	if c.start == "earliest" {
		if first, ok := j.kept(0, at, ""); ok {
			j.Lost += j.count(first-1, at)
			j.fault("it asked for the earliest and begins after %s, though %s had to be there", j.named(at), j.named(first))
		}
	} else if c.start != "last" && at < c.floor {
		j.Repeated++
		j.fault("it asked for the latest and begins after %s, before %s", j.named(at), j.named(c.floor))
	}
}

func (j *judgement) opening(c *cursor, e *Entry) {
	s, known := j.place(e.Position, j.nameless(c), e.Time)
	if !known {
		j.Invented++
		j.fault("it is told the position %q, which is none of the channel's", e.Position)
		return
	}
	if s.place > j.now {
		j.Invented++
		j.fault("it is told the position of %s before that was published", j.named(s.place))
	}
	if !c.began {
		j.begin(c, s.place)
		c.text = e.Position
		return
	}
	if lost := j.count(c.at, s.place); lost > 0 {
		j.Lost += lost
		j.fault("it is moved from %s to %s, past %d events, without a gap", j.named(c.at), j.named(s.place), lost)
	}
	if s.place < c.at && j.count(s.place, c.at) > 0 {
		j.Repeated++
		j.fault("it is moved back from %s to %s", j.named(c.at), j.named(s.place))
	}
	c.at, c.text = s.place, e.Position
}

// nameless reports whether a reader may be told an unknown position because the
// channel has, or had, no name.
func (j *judgement) nameless(c *cursor) bool {
	switch {
	case c.began:
		return c.at <= j.unborn && j.count(c.at, j.unborn) == 0
	case c.start == "earliest", c.start == "last":
		return true
	}
	return c.floor <= j.unborn
}

func (j *judgement) event(c *cursor, e *Entry) {
	p := j.of(e.N)
	switch {
	case p == nil, j.numbers[e.N] > j.now && !j.trusting:
		j.Invented++
		j.fault("number %d at %q was never published", e.N, e.Position)
		return
	case p.refused:
		j.Invented++
		j.fault("number %d was refused, and is handed over", e.N)
		return
	case p.digest != e.Digest, e.Type != "" && p.kind != e.Type:
		j.Invented++
		j.fault("number %d is not as it was published: digest %q, type %q, not %q, %q", e.N, e.Digest, e.Type, p.digest, p.kind)
		return
	case p.position != e.Position:
		j.Invented++
		j.fault("number %d at %q was published at %q", e.N, e.Position, p.position)
		return
	}
	at := j.numbers[e.N]
	j.begin(c, at-1)
	if at <= c.at {
		j.Repeated++
		j.fault("number %d comes after %s", e.N, j.named(c.at))
		return
	}
	if lost := j.count(c.at, at-1); lost > 0 {
		j.Lost += lost
		j.fault("number %d comes right after %s: %d are missing, and no gap was told", e.N, j.named(c.at), lost)
	}
	c.at, c.text = at, e.Position
}

func (j *judgement) gap(c *cursor, e *Entry) {
	from, ok := j.positions[e.From]
	if !ok || from.place != c.at || c.text != "" && c.text != e.From {
		j.fault("a gap from %q, but it was at %s, %q", e.From, j.named(c.at), c.text)
	}
	to, known := j.place(e.To, e.Reason == "rewritten" && c.at <= j.unborn && !j.trusting, e.Time)
	if !known || to.place < c.at || to.place > j.now {
		j.fault("a gap to %q, which is no later position", e.To)
		return
	}
	j.Missing += j.count(c.at, to.place)
	if !j.trusting {
		j.justify(from, to, e.Reason)
	}
	c.at, c.text = to.place, e.To
}

// justify finds what a gap stands for that was no loss when it was told.
func (j *judgement) justify(from, to spot, reason string) {
	if reason == "rewritten" {
		lost := from.place < j.lost && to.place >= j.lost
		if !lost && !j.isStale(from) {
			j.fault("it is told that the history after %s was rewritten, which it was not", j.named(from.place))
		}
		return
	}
	if at, ok := j.kept(from.place, to.place, reason); ok {
		j.fault("a gap %q from %s to %s, though %s was still there", reason, j.named(from.place), j.named(to.place), j.named(at))
	} else if j.count(from.place, to.place) == 0 {
		j.fault("a gap %q after %s, though nothing is missing", reason, j.named(from.place))
	}
}

func (j *judgement) rest(c *cursor) {
	if n := j.count(c.at, j.now); n > 0 || !c.began {
		j.Unreached += n
		j.fault("it rested, and is still at %s, %d events behind the end", j.named(c.at), n)
	}
}
