package session

import (
	"slices"
	"sort"
	"strings"
)

// chunkSize is how many members a chunk has before it is split. A join or
// a leave moves that many pointers at most.
const chunkSize = 512

// members are the leases that are present in one channel, in order of their
// ids. They stand in chunks, none of which is empty, so that joining a large
// channel does not move all of it.
type members struct {
	chunks [][]*lease
	total  int
}

// place returns where a lease of that id is, or belongs.
func (m *members) place(id string) (chunk, at int, found bool) {
	// The last chunk that doesn't begin after it, or the first.
	chunk = max(0, sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i][0].id > id })-1)
	if chunk == len(m.chunks) {
		return chunk, 0, false
	}
	at, found = slices.BinarySearchFunc(m.chunks[chunk], id, func(l *lease, id string) int { return strings.Compare(l.id, id) })
	return chunk, at, found
}

// add puts a lease in, if it isn't yet.
func (m *members) add(l *lease) {
	chunk, at, found := m.place(l.id)
	switch {
	case found:
		return
	case chunk == len(m.chunks):
		m.chunks = append(m.chunks, nil)
	}
	m.total++
	c := slices.Insert(m.chunks[chunk], at, l)
	m.chunks[chunk] = c
	if len(c) > chunkSize {
		half := len(c) / 2
		m.chunks = slices.Insert(m.chunks, chunk+1, slices.Clone(c[half:]))
		clear(c[half:])
		m.chunks[chunk] = c[:half]
	}
}

// remove takes a lease out, if it is in.
func (m *members) remove(l *lease) {
	chunk, at, found := m.place(l.id)
	if !found {
		return
	}
	m.total--
	m.chunks[chunk] = slices.Delete(m.chunks[chunk], at, at+1)
	if len(m.chunks[chunk]) == 0 {
		m.chunks = slices.Delete(m.chunks, chunk, chunk+1)
	}
}

// first returns the first n members.
func (m *members) first(n int) []Member {
	if n <= 0 {
		return nil
	}
	list := make([]Member, 0, min(n, m.total))
	for _, chunk := range m.chunks {
		for _, l := range chunk {
			if len(list) == n {
				return list
			}
			list = append(list, Member{ID: l.id, Subject: l.subject, Info: l.info})
		}
	}
	return list
}
