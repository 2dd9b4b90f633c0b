package core

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

const (
	// smallestPage is what a line reads at least, if it reads anything.
	smallestPage = 4 << 10
	// firstPage is what a line that catches up gets first, to see how fast it is: a
	// modem takes some seconds for it.
	firstPage = 16 << 10
	// growAfter is how many pages of a size a line takes before they grow.
	growAfter = 16
	// sharesOfPages is into how many pages what is left of the room is divided,
	// so that there is something left for who comes next.
	sharesOfPages = 16
)

// pages are the room for what was read for lines that lag, and is on its way to
// them: one budget of bytes for all. Live lines share what they read, and don't
// wait for it.
type pages struct {
	mu      sync.Mutex
	left    int               // guarded by mu; below zero if events are larger than pages
	waiting list.List         // guarded by mu: of waiters, in order
	known   map[*line]*waiter // guarded by mu: those that wait, or have not taken yet what they were given
}

// A waiter is a line that could not be given room at once.
type waiter struct {
	line  *line
	most  int           // bytes that it wants
	place *list.Element // in pages.waiting; nil: it has its turn
	size  int           // bytes that are its own then
}

func newPages(bytes int) *pages { return &pages{left: bytes, known: make(map[*line]*waiter)} }

// take gives a line room for a page of at most so many bytes. If it is 0, the line
// is asked to work again when it has its turn. What it is given then is its own,
// so that a line which is busy meanwhile keeps nobody else waiting.
func (p *pages) take(l *line, most int) (size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.known[l]
	switch {
	case w != nil && w.place != nil:
		return 0
	case w != nil:
		delete(p.known, l)
		return w.size
	case p.left < smallestPage || p.waiting.Len() > 0:
		w = &waiter{line: l, most: most}
		w.place = p.waiting.PushBack(w)
		p.known[l] = w
		return 0
	}
	return p.cut(most)
}

// cut takes a page from what is left. There are few sizes, so that lines share
// what is read.
func (p *pages) cut(most int) (size int) {
	for size = min(most, smallestPage); 2*size <= min(most, p.left/sharesOfPages); size *= 2 {
	}
	p.left -= size
	return size
}

// give takes room back; below zero, an event was larger than its page.
func (p *pages) give(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left += size
	p.next()
}

// leave forgets a line that waits no more.
func (p *pages) leave(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.known[l]
	if w == nil {
		return
	}
	delete(p.known, l)
	if w.place != nil {
		p.waiting.Remove(w.place)
	}
	p.left += w.size
	p.next()
}

// next gives those who wait longest their turn, while there is room.
func (p *pages) next() {
	for first := p.waiting.Front(); first != nil && p.left >= smallestPage; first = p.waiting.Front() {
		w := p.waiting.Remove(first).(*waiter) //nolint:forcetypeassert // it holds nothing else
		w.place, w.size = nil, p.cut(w.most)
		w.line.ask()
	}
}

// firstPage is the size of a line's first page.
func (e *Engine) firstPage() int { return min(e.o.PageBytes, firstPage) }

// room is how many bytes a line may read that lags. If it is 0, it waits for more.
func (l *line) room() int {
	if l.taken == 0 {
		l.taken = l.engine.pages.take(l, l.page)
		l.waits = l.taken == 0
	}
	return l.taken
}

// stopWaiting leaves the queue for room, if nothing is left that needs it.
func (l *line) stopWaiting() {
	needs := func(s *subscription) bool { return s.dirty.Load() && s.lags() }
	if l.waits && !slices.ContainsFunc(l.subs, needs) {
		l.waits = false
		l.engine.pages.leave(l)
	}
}

// release gives back what the line held.
func (l *line) release() {
	if l.taken > 0 {
		l.engine.pages.give(l.taken)
		l.taken = 0
	}
}

// fitPage makes the line's pages smaller if one took long, so that the slowest
// meet their deadline as well, and larger if it didn't. What lies in the buffers on
// the way goes at once and shows nothing, so there have to be many of a size before
// they grow.
func (l *line) fitPage(took time.Duration) {
	o := &l.engine.o
	switch {
	case took > o.WriteTimeout/4:
		l.page = max(min(smallestPage, o.PageBytes), l.page/2)
	case took < o.WriteTimeout/16 && l.volume >= growAfter*l.page:
		l.page = min(o.PageBytes, 2*l.page)
	}
}
