package faultproxy

import (
	"fmt"
	"slices"
	"time"
)

const (
	// maxLog is how many entries are kept.
	maxLog = 10_000
	// maxNamed is how many bytes of a request's first line an entry shows.
	maxNamed = 200
)

// An Entry says one thing that was done.
type Entry struct {
	At      time.Time
	Conn    int    // which connection of a client, from 1 in the order they came; 0: none
	Request string // its method and target, or "" between two
	What    string // in words
}

// String returns the entry as a line of a history.
func (e Entry) String() string {
	return fmt.Sprintf("%s conn %d %s: %s", e.At.Format("15:04:05.000"), e.Conn, e.Request, e.What)
}

// Log returns what was done, in order: all of it, or the newest 9,000 entries and
// more.
func (p *Proxy) Log() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

func (p *Proxy) note(conn int, request, what string) {
	if len(request) > maxNamed {
		request = request[:maxNamed] + "…"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.log) == maxLog {
		p.log = slices.Delete(p.log, 0, maxLog/10)
	}
	p.log = append(p.log, Entry{At: time.Now(), Conn: conn, Request: request, What: what})
}
