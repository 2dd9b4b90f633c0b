package model

// A reason says why a position is lost.
type reason uint8

const (
	exact reason = iota
	trimmed
	rewritten
)

func (w reason) String() string { return [...]string{"", "trimmed", "rewritten"}[w] }

// samePlace reports whether the marks of two places are equal.
func (r *Rules) samePlace(a, b place) bool {
	switch {
	case a.id == 0 || b.id == 0:
		return false
	case r.FixedPlace, r.OffsetOnly:
		return true
	case r.NumberedGenerations:
		return a.num == b.num
	}
	return a.id == b.id
}

// sameEvent reports whether the marks of two events are equal.
func (r *Rules) sameEvent(a, b uint8) bool { return r.OffsetOnly || a == b }

func (r *Rules) same(a, b pos) bool {
	if a.off != b.off {
		return false
	}
	if a.off == 0 {
		return r.samePlace(a.at, b.at)
	}
	return r.sameEvent(a.id, b.id)
}

// validPlaces is how many places before the first event are exact.
func (r *Rules) validPlaces() int {
	switch {
	case r.PlaceExactLonger:
		return exactNow + 1
	case r.PlaceExactShorter:
		return exactNow - 1
	}
	return exactNow
}

// keptPlaces is how many are in the state. Those that a weak rule forgets too
// soon are kept as the truth.
func (r *Rules) keptPlaces() int { return max(exactNow, r.validPlaces()) }

// bornPlaces is how many of those a channel keeps at its birth.
func (r *Rules) bornPlaces() int {
	if r.BirthPlaceForgotten {
		return 1
	}
	return r.validPlaces()
}

func (l *log) headOffset() uint8 { return l.base + l.n }

// readable is how many of the retained events may be read.
func (l *log) readable(r *Rules) uint8 {
	if r.ReadableBeforeConfirmed {
		return l.n
	}
	return max(l.ok, l.base) - l.base
}

// has reports whether an event is in the log, or may be among those trimmed.
func (l *log) has(p pos) bool {
	return p.off < l.base || p.off <= l.headOffset() && l.identityAt(p.off-l.base) == p.id
}

// confirm makes what is up to an event readable, if it is that event which has
// its offset.
func (l *log) confirm(r *Rules, p pos) (done bool) {
	if p.off <= max(l.ok, l.base) || p.off > l.headOffset() || !r.ConfirmByOffset && !l.has(p) {
		return false
	}
	l.ok = p.off
	return true
}

// at returns the position before the retained entry i, which may be one past
// the last.
func (l *log) at(i uint8) pos {
	switch {
	case i > 0:
		return pos{off: l.base + i, id: l.entries[i-1].id, log: l.made}
	case l.base > 0:
		return pos{off: l.base, id: l.baseID, log: l.made}
	case l.born:
		return pos{at: l.births[0]}
	}
	return pos{at: l.gens[0]}
}

func (l *log) head() pos { return l.at(l.n) }

// identityAt is the truth about at(i).
func (l *log) identityAt(i uint8) uint8 {
	if i > 0 {
		return l.entries[i-1].id
	}
	return l.baseID
}

// append adds an event, with the producer's number or 0. A full log trims its
// oldest.
func (l *log) append(r *Rules, id, seq uint8) {
	if !l.born {
		l.born = true
		copy(l.births[:], l.gens[:r.keptPlaces()])
	}
	if l.n == maxEntries {
		l.trim()
	}
	l.entries[l.n] = entry{id: id, prev: l.identityAt(l.n)}
	l.n++
	if !l.confirms {
		l.ok = l.headOffset()
	}
	l.silent = 0
	l.taken |= 1 << seq &^ 1
	l.last = max(l.last, seq)
}

// trim drops the oldest event.
func (l *log) trim() {
	l.base, l.baseID = l.base+1, l.entries[0].id
	copy(l.entries[:], l.entries[1:])
	l.n--
	l.entries[l.n] = entry{}
}

// droppable reports whether a rise drops the name.
func (l *log) droppable(r *Rules) bool {
	if !l.born || l.n > 0 || l.watched || l.last > 0 && !r.ProducerNameDropped {
		return false
	}
	switch {
	case r.NameDroppedSooner:
		return true
	case r.NameKeptLonger:
		return l.silent >= 2
	}
	return l.silent >= 1 // written before the previous rise
}

// drop forgets the name. life is the identity of what may come.
func (l *log) drop(life uint8) {
	*l = log{made: l.made, life: life, baseID: life, gens: l.gens, taken: l.taken, watched: l.watched, forgot: l.forgot, confirms: l.confirms}
}

// rise begins a generation. The caller dropped the name if it was time.
func (l *log) rise(r *Rules, g place) {
	copy(l.gens[1:r.keptPlaces()], l.gens[:])
	l.gens[0] = g
	if l.born {
		l.silent = min(l.silent+1, 2)
	}
	l.checked = false
}

// holdsPlace reports whether a place before the first event is exact.
func (l *log) holdsPlace(r *Rules, p place) bool {
	valid, n := &l.gens, r.validPlaces()
	if l.born {
		valid, n = &l.births, r.bornPlaces()
	}
	for _, v := range valid[:n] {
		if r.samePlace(v, p) {
			return true
		}
	}
	return false
}

// locate returns the index of the first retained entry after a position, or why
// it is lost.
func (l *log) locate(r *Rules, p pos) (i uint8, why reason) {
	switch {
	case p.off > l.headOffset(), r.AboveReadableIsLost && p.off > l.base+l.readable(r), p.off == 0 && !l.holdsPlace(r, p.at):
		return 0, rewritten
	case p.off < l.base && p.off > 0 && p.log != l.made && !r.MarkOfAnyLog:
		return 0, rewritten
	case p.off < l.base:
		return 0, trimmed
	case p.off == 0:
		return 0, exact
	case p.off == l.base && r.TrimmedUnchecked:
		return 0, exact
	case p.off == l.base && r.TrimmedMarkForgotten:
		return 0, rewritten
	}
	i = p.off - l.base
	if !r.sameEvent(l.identityAt(i), p.id) {
		return 0, rewritten
	}
	return i, exact
}

// to returns where a reader that lost its position goes on. After a rewrite that
// is the head, and not the readable one: if a copy came back that lags with what
// was confirmed, a client may have had what lies between.
func (l *log) to(r *Rules, why reason) (p pos, identity uint8) {
	i := l.n
	switch {
	case why == trimmed:
		i = 0
	case r.GapToReadableHead:
		i = l.readable(r)
	}
	return l.at(i), l.identityAt(i)
}

// owes reports whether this log holds all that comes after a client's position,
// in truth: then nothing can justify a gap. The position is
//   - an event that it has, or the last trimmed,
//   - or the place before the first, of the same life of the channel, nothing of
//     which is trimmed; and when the channel came, or now if it is unborn, it was
//     not older than the place of the generation before,
//   - or the last event of a name that was dropped though a client's node had
//     checked it, and nothing since is trimmed.
func (l *log) owes(c *client) bool {
	if c.pos.off > 0 {
		for i := range l.n + 1 {
			if l.base+i == c.pos.off && l.identityAt(i) == c.after {
				return true
			}
		}
		return l.base == 0 && l.forgot > 0 && l.forgot == c.after
	}
	valid := &l.gens
	if l.born {
		valid = &l.births
	}
	known := c.pos.at.id == valid[0].id || c.pos.at.id == valid[1].id
	return c.after == l.life && l.base == 0 && known
}
