package breaker_test

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/throughline/throughline/breaker"
)

// facts is what Clients has to know, as a plain list of what happened to whom.
// Nothing is counted or kept beside it: whether somebody is kept out, for how
// long, and who keeps up, is found by going through the list each time.
type facts struct {
	o     breaker.Options
	pasts []*past // the one made last is the last
	lines []*factLine
	clock int // counts what was heard
}

// A past is what happened to one client that failed.
type past struct {
	session, identity string
	place             breaker.Place
	heard             int
	slow              []fact
	broken            map[string][]fact
}

type fact struct {
	what string // "failed", "well", "asked" if it was let in, or "heard" of another node
	at   time.Time
	trip breaker.Trip
	ago  time.Duration
}

// A factLine is a line that has not left.
type factLine struct {
	who   breaker.Client
	began time.Time
	past  *past
	trial bool
	slow  bool // it was evicted
}

func (l *factLine) String() string {
	return fmt.Sprintf("the line %s%v of %s over %s", l.who.Session, l.who.Place, l.who.Identity, l.who.Transport)
}

// A standing follows from facts.
type standing struct {
	times int       // it was closed, in a row
	until time.Time // it is
	well  time.Time // since when it is open; zero: since it was closed last it isn't
	asked bool      // somebody was let in since, who decides
	row   int       // failures in a row
	last  time.Time // a failure
}

func (f *facts) standing(list []fact, inARow int) (s standing) {
	for _, e := range list {
		closed := s.times > 0 && s.well.IsZero()
		switch {
		case e.what == "asked":
			s.asked = closed
		case e.what == "heard":
			if s.out(e.at) <= 0 || s.times < e.trip.Times {
				s = standing{times: max(s.times, e.trip.Times), until: e.at.Add(min(e.trip.For, f.o.MaxDelay) - e.ago)}
			}
		case closed && !s.asked && e.at.Before(s.until) && inARow > 1:
			// of a line from before, while it is closed
		case e.what == "well":
			s.row = 0
			if closed {
				s.well, s.asked = e.at, false
			}
		default:
			s.last = e.at
			if s.row++; closed || s.row >= inARow {
				s = f.closed(s, e.at, inARow)
			}
		}
	}
	return s
}

func (f *facts) closed(s standing, at time.Time, inARow int) standing {
	most := f.o.MaxDelay
	if inARow > 1 {
		most = max(f.o.Delay, f.o.BrokenWithin)
	}
	if !s.well.IsZero() && at.Sub(s.well) >= f.o.Forget {
		s.times = 0
	}
	delay := f.o.Delay
	for range s.times {
		delay = min(2*delay, most)
	}
	return standing{times: s.times + 1, until: at.Add(delay), last: at}
}

func (s standing) out(now time.Time) time.Duration {
	if s.times == 0 || !s.well.IsZero() || s.asked {
		return 0
	}
	return s.until.Sub(now)
}

func (s standing) old(o *breaker.Options, now time.Time) bool {
	since := s.last
	if s.times > 0 {
		since = s.until
	}
	if !s.well.IsZero() {
		since = s.well
	}
	return now.Sub(since) >= o.Forget
}

func (f *facts) slowness(p *past) standing { return f.standing(p.slow, 1) }

func (f *facts) breakage(p *past, transport string) standing {
	return f.standing(p.broken[transport], f.o.BrokenLines)
}

func (f *facts) linesOf(p *past) (n int) {
	for _, l := range f.lines {
		if l.past == p {
			n++
		}
	}
	return n
}

// over reports whether a past says nothing any more.
func (f *facts) over(p *past) bool {
	now := time.Now()
	if f.linesOf(p) > 0 || len(p.slow) > 0 && !f.slowness(p).old(&f.o, now) {
		return false
	}
	for transport := range p.broken {
		if !f.breakage(p, transport).old(&f.o, now) {
			return false
		}
	}
	return true
}

// isAway reports whether a past is of a client that is slow, and not here.
func (f *facts) isAway(p *past) bool {
	return len(p.slow) > 0 && f.slowness(p).well.IsZero() && f.linesOf(p) == 0
}

func (f *facts) forget(p *past) {
	f.pasts = slices.DeleteFunc(f.pasts, func(q *past) bool { return p == q })
}

func (f *facts) hear(p *past) {
	f.clock++
	p.heard = f.clock
}

// enter returns for how long a client has to be kept out, or its line.
func (f *facts) enter(who breaker.Client) (after time.Duration, broken []string, l *factLine) {
	now := time.Now()
	p := f.own(who)
	if p == nil {
		if p = f.inherits(who); p != nil && who.Session != "" && f.slowness(p).out(now) <= 0 {
			p.session = who.Session
		}
	}
	l = &factLine{who: who, began: now, past: p}
	if p == nil {
		f.lines = append(f.lines, l)
		return 0, nil, l
	}
	if len(p.slow) > 0 {
		if after = f.slowness(p).out(now); after > 0 {
			return max(time.Millisecond, after), nil, nil
		}
		p.slow = append(p.slow, fact{what: "asked", at: now})
		l.trial = f.slowness(p).asked
	}
	if who.Session != "" && p.broken[who.Transport] != nil {
		if after = f.breakage(p, who.Transport).out(now); after > 0 {
			for _, transport := range []string{"sse", "ws"} {
				if f.breakage(p, transport).out(now) > 0 {
					broken = append(broken, transport)
				}
			}
			return max(time.Millisecond, after), broken, nil
		}
		p.broken[who.Transport] = append(p.broken[who.Transport], fact{what: "asked", at: now})
	}
	f.hear(p)
	f.lines = append(f.lines, l)
	return 0, nil, l
}

// own returns what happened to a client itself.
func (f *facts) own(who breaker.Client) (found *past) {
	for _, p := range slices.Clone(f.pasts) {
		switch {
		case p.session != who.Session || who.Session == "" && who.Place.Channel == "":
		case who.Session != "" && f.over(p):
			f.forget(p)
		case who.Session != "":
			return p
		case p.identity == who.Identity && p.place.From <= who.Place.To && who.Place.From <= p.place.To && p.place.Channel == who.Place.Channel && !f.over(p):
			if found == nil || f.isLikelier(p, found, who.Place.To) {
				found = p
			}
		}
	}
	return found
}

// isLikelier: of several pasts, a client's own is one of which nobody is here, and of these the
// one that ends where the client is.
func (f *facts) isLikelier(p, other *past, to uint64) bool {
	here, others := f.linesOf(p), f.linesOf(other)
	apart := func(p *past) float64 { return math.Abs(float64(p.place.To) - float64(to)) }
	return here < others || here == others && apart(p) < apart(other)
}

// inherits returns what a client answers for that has no past: if more of
// its identity are slow and away than keep up, the last of these.
func (f *facts) inherits(who breaker.Client) *past {
	var away []*past
	for _, p := range f.pasts {
		if p.identity == who.Identity && f.isAway(p) && !f.over(p) {
			away = append(away, p)
		}
	}
	keepUp := 0
	for _, l := range f.lines {
		if l.who.Identity == who.Identity && !l.trial && !l.slow {
			keepUp++
		}
	}
	if len(away) <= keepUp {
		return nil
	}
	return away[len(away)-1]
}

// pastOf returns the past of a line, which begins if there was none.
func (f *facts) pastOf(l *factLine) *past {
	if !slices.Contains(f.pasts, l.past) {
		l.past = nil
	}
	for _, p := range f.pasts {
		if l.past == nil && p.session == l.who.Session && p.session != "" {
			l.past = p
		}
	}
	if l.past == nil {
		l.past = f.newPast(l.who)
	}
	f.hear(l.past)
	return l.past
}

func (f *facts) newPast(who breaker.Client) *past {
	f.makeRoom()
	p := &past{session: who.Session, identity: who.Identity, place: who.Place, broken: map[string][]fact{}}
	f.pasts = append(f.pasts, p)
	f.hear(p)
	return p
}

// another takes note of what another node says.
func (f *facts) another(t breaker.Trip, ago time.Duration) {
	if min(t.For, f.o.MaxDelay) <= ago {
		return
	}
	who := breaker.Client{Session: t.Session, Identity: t.Identity, Place: t.Place}
	p := f.own(who)
	if p == nil {
		p = f.newPast(who)
	}
	before := f.slowness(p)
	p.slow = append(p.slow, fact{what: "heard", at: time.Now(), trip: t, ago: ago})
	if f.slowness(p) != before {
		p.place = t.Place
	}
}

// makeRoom forgets two that are over, if they are those of which nothing was
// heard for longest, and then such as aren't.
func (f *facts) makeRoom() {
	quiet := func(p, q *past) int { return p.heard - q.heard }
	for n := 0; n < 2 && len(f.pasts) > 0 && f.over(slices.MinFunc(f.pasts, quiet)); n++ {
		f.forget(slices.MinFunc(f.pasts, quiet))
	}
	for len(f.pasts) >= f.o.MaxRecords {
		f.forget(slices.MinFunc(f.pasts, quiet))
	}
}

func (f *facts) tooSlow(l *factLine, at breaker.Place) breaker.Trip {
	p := f.pastOf(l)
	p.place = at
	p.slow = append(p.slow, fact{what: "failed", at: time.Now()})
	l.trial, l.slow = false, true
	is := f.slowness(p)
	return breaker.Trip{Session: p.session, Identity: p.identity, Place: at, Times: is.times, For: time.Until(is.until)}
}

func (f *facts) keepsUp(l *factLine) {
	if !l.trial {
		return
	}
	l.trial = false
	if f.slowness(l.past).asked {
		l.past.slow = append(l.past.slow, fact{what: "well", at: time.Now()})
	}
}

func (f *facts) leave(l *factLine, broken bool) (tripped bool) {
	now := time.Now()
	broken = broken && now.Sub(l.began) < f.o.BrokenWithin
	transport := l.who.Transport
	counts := broken || slices.Contains(f.pasts, l.past) && l.past.broken[transport] != nil
	if l.who.Session != "" && counts {
		p := f.pastOf(l)
		before := f.breakage(p, transport)
		what := "well"
		if broken {
			what = "failed"
		}
		p.broken[transport] = append(p.broken[transport], fact{what: what, at: now})
		tripped = broken && !f.breakage(p, transport).until.Equal(before.until)
	}
	f.lines = slices.DeleteFunc(f.lines, func(o *factLine) bool { return o == l })
	return tripped
}

func (f *facts) known() breaker.Known {
	n := breaker.Known{Records: len(f.pasts)}
	for _, p := range f.pasts {
		switch s := f.slowness(p); {
		case len(p.slow) == 0:
		case s.out(time.Now()) > 0:
			n.Open++
		case s.asked && f.linesOf(p) > 0:
			n.Trials++
		}
	}
	return n
}
