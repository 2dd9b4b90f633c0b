package session

import (
	"bytes"
	"container/heap"
	"strings"
	"time"
)

// A leaseKey is a session.
type leaseKey struct{ namespace, id string }

// A lease is what a Memory holds of one session.
type lease struct {
	// Static after newLease.
	namespace, id string
	line          uint64
	subject       string
	info          []byte
	channels      []string
	lasts         time.Duration

	// Guarded by the mutex of its Memory.
	present bool          // it is among the members of its channels
	renewed time.Duration // by the clock of the Memory
	due     time.Duration // nothing is to be done about it before
	place   int           // in Memory.due
}

// newLease makes copies: what a node claims may be parts of a whole request.
func newLease(held Held, l Lease) *lease {
	fresh := &lease{
		namespace: strings.Clone(held.Namespace), id: strings.Clone(held.ID), line: held.Line,
		subject: strings.Clone(l.Subject), info: bytes.Clone(l.Info), lasts: l.For,
		channels: make([]string, len(l.Channels)),
	}
	for i, name := range l.Channels {
		fresh.channels[i] = strings.Clone(name)
	}
	return fresh
}

func (l *lease) key() leaseKey { return leaseKey{l.namespace, l.id} }

// ends is when it runs out, unless it is renewed.
func (l *lease) ends() time.Duration { return l.renewed + l.lasts }

// size is about how many bytes it takes, with its places in channels.
func (l *lease) size() int64 {
	n := 400 + len(l.namespace) + len(l.id) + len(l.subject) + len(l.info)
	for _, name := range l.channels {
		n += 64 + len(name)
	}
	return int64(n)
}

// A dueHeap holds leases, on top the one that is to be looked at first. Each
// knows its place.
type dueHeap []*lease

// put puts a lease in, or moves it to where it belongs now.
func (d *dueHeap) put(l *lease, due time.Duration) {
	l.due = due
	if l.place < len(*d) && (*d)[l.place] == l {
		heap.Fix(d, l.place)
	} else {
		heap.Push(d, l)
	}
}

// remove takes a lease out.
func (d *dueHeap) remove(l *lease) { heap.Remove(d, l.place) }

// The methods of heap.Interface.

func (d dueHeap) Len() int           { return len(d) }
func (d dueHeap) Less(i, j int) bool { return d[i].due < d[j].due }

func (d dueHeap) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *dueHeap) Push(x any) {
	l := x.(*lease)
	l.place = len(*d)
	*d = append(*d, l)
}

func (d *dueHeap) Pop() any {
	last := len(*d) - 1
	l := (*d)[last]
	(*d)[last] = nil // the array must not keep it alive
	*d = (*d)[:last]
	return l
}
