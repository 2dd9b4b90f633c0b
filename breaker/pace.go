package breaker

import "time"

// A Distance is how far a reader is behind the head of what it reads.
type Distance struct {
	Events uint64
	Bytes  int64         // estimated
	Age    time.Duration // of the newest event that it has, while there are newer ones
}

// Limits are how far a reader may be behind. It is too slow when it was farther
// behind for a whole Window and did not come closer meanwhile. A zero limit
// does not limit.
type Limits struct {
	Events uint64
	Bytes  int64
	Age    time.Duration
	Window time.Duration
}

// over returns by which measures d is beyond the limits.
func (l *Limits) over(d Distance) [3]bool {
	return [3]bool{
		l.Events > 0 && d.Events > l.Events,
		l.Bytes > 0 && d.Bytes > l.Bytes,
		l.Age > 0 && d.Age > l.Age,
	}
}

// Within reports whether a distance is within the limits.
func (l *Limits) Within(d Distance) bool { return l.over(d) == [3]bool{} }

// A Pace watches one reader, each measure of its distance by itself. The zero
// value is one that has just begun. It is not for concurrent use.
type Pace struct {
	measures [3]measure
}

// A measure of a distance that is over its limit.
type measure struct {
	since time.Time // when it was closer than ever before; zero: it is within the limit
	least int64     // how close that was
	moved bool      // the head moved on while the reader was excused: how close counts from now on
}

// TooSlow takes the distance as it is now, when the reader has taken something,
// and reports whether the reader is too slow. To come closer than ever
// before, by however little, begins a new window.
func (p *Pace) TooSlow(d Distance, l Limits, now time.Time) bool {
	slow := false
	over := l.over(d)
	for i, value := range [3]int64{int64(min(d.Events, 1<<62)), d.Bytes, int64(d.Age)} {
		m := &p.measures[i]
		switch {
		case !over[i]:
			*m = measure{}
		case m.since.IsZero() || value < m.least:
			*m = measure{since: now, least: value}
		case m.moved:
			m.least, m.moved = value, false
		case now.Sub(m.since) >= l.Window:
			slow = true
		}
	}
	return slow
}

// Since returns when the window began that counts for longest now; the zero time:
// the reader is within its limits.
func (p *Pace) Since() (first time.Time) {
	for i := range p.measures {
		if since := p.measures[i].since; !since.IsZero() && (first.IsZero() || since.Before(first)) {
			first = since
		}
	}
	return first
}

// Excuse takes for how long the reader got nothing through no fault of its own.
// That time does not count, nor does how far the head went on meanwhile; what
// counted before still does, so that who is too slow is so beside a log that
// fails now and then, too.
func (p *Pace) Excuse(d time.Duration) {
	for i := range p.measures {
		if m := &p.measures[i]; !m.since.IsZero() {
			m.since, m.moved = m.since.Add(d), true
		}
	}
}
