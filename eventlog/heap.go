package eventlog

import "container/heap"

// An ordered is a heap whose items know their place in it, so that one that
// changed, or is to go, is found at once.
type ordered[T any] struct {
	items  []T
	before func(a, b T) bool
	// place returns where an item keeps its index, plus one: zero is outside.
	place func(T) *int
}

// update puts an item in, or moves it to where it belongs now.
func (o *ordered[T]) update(item T) {
	if at := *o.place(item); at > 0 {
		heap.Fix(o, at-1)
	} else {
		heap.Push(o, item)
	}
}

// remove takes an item out. One that is outside stays there.
func (o *ordered[T]) remove(item T) {
	if at := *o.place(item); at > 0 {
		heap.Remove(o, at-1)
	}
}

// second returns the first item but the topmost.
func (o *ordered[T]) second() (item T, found bool) {
	switch {
	case len(o.items) < 2:
		return item, false
	case len(o.items) == 2 || o.before(o.items[1], o.items[2]):
		return o.items[1], true
	default:
		return o.items[2], true
	}
}

// The methods of heap.Interface.

func (o *ordered[T]) Len() int           { return len(o.items) }
func (o *ordered[T]) Less(i, j int) bool { return o.before(o.items[i], o.items[j]) }

func (o *ordered[T]) Swap(i, j int) {
	o.items[i], o.items[j] = o.items[j], o.items[i]
	*o.place(o.items[i]), *o.place(o.items[j]) = i+1, j+1
}

func (o *ordered[T]) Push(x any) {
	item := x.(T)
	o.items = append(o.items, item)
	*o.place(item) = len(o.items)
}

func (o *ordered[T]) Pop() any {
	last := len(o.items) - 1
	item := o.items[last]
	*o.place(item) = 0
	clear(o.items[last:]) // the array must not keep it alive
	o.items = o.items[:last]
	return item
}
