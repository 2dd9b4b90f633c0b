package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// orders is the channel that all events of orders are in. One channel has one order,
// so that what was decided first is the same for everybody.
var orders = eventlog.Channel{Name: "orders"}

// saveEvery is how often at most the table is written to its file. What is lost of
// it is made again.
const saveEvery = time.Second

// A Table is what the log comes to, up to a position.
type Table struct {
	At     eventlog.Position `json:"position"`
	Orders map[string]*Order `json:"orders"`
	Events int               `json:"events"` // of which it is made
}

// A Projection keeps a table up to date. The file spares it from reading the whole
// log at each start, and holds nothing that the log doesn't: delete it, and it is
// made again.
type Projection struct {
	log  eventlog.Log
	file string

	mu      sync.Mutex
	table   Table         // guarded by mu
	moved   chan struct{} // guarded by mu: closes when the table has moved on
	rebuild bool          // guarded by mu
	wake    chan struct{} // holds one: there may be something to read
}

// NewProjection returns one that is as new as the log. If its file is of another log,
// or none, that takes reading all of it.
func NewProjection(ctx context.Context, log eventlog.Log, file string) (*Projection, error) {
	p := &Projection{log: log, file: file, moved: make(chan struct{}), wake: make(chan struct{}, 1)}
	p.table.Orders = map[string]*Order{}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &p.table)
	}
	if err != nil {
		p.rebuild = true
		if !errors.Is(err, fs.ErrNotExist) {
			slog.Warn("the table can't be read: it is made again", "err", err)
		}
	}
	return p, p.catchUp(ctx)
}

// Run follows the log until ctx is done.
func (p *Projection) Run(ctx context.Context) error {
	defer p.log.Watch(orders, p.ask)()
	p.ask()
	saved := time.Now()
	for {
		select {
		case <-ctx.Done():
			return p.save()
		case <-p.wake:
		}
		if err := p.catchUp(ctx); err != nil {
			if !errors.Is(err, eventlog.ErrUnavailable) {
				return err
			}
			time.AfterFunc(time.Second, p.ask) // the log is away: the table stands still
		}
		if time.Since(saved) >= saveEvery {
			saved = time.Now()
			if err := p.save(); err != nil {
				return err
			}
		}
	}
}

func (p *Projection) ask() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// catchUp applies what came after the table's position.
func (p *Projection) catchUp(ctx context.Context) error {
	for {
		at, err := p.begin(ctx)
		if err != nil {
			return err
		}
		page, err := p.log.Read(ctx, orders, at, eventlog.Limit{})
		if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
			// The table is of another log than this one.
			slog.Warn("the table does not belong to this log: it is made again", "err", lost)
			p.Rebuild()
			continue
		}
		if err != nil {
			return err
		}
		if err := p.apply(&page); err != nil || !page.More() {
			return err
		}
	}
}

// begin returns where to read on, which is the beginning of the log for a table that
// is to be made again.
func (p *Projection) begin(ctx context.Context) (eventlog.Position, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rebuild {
		return p.table.At, nil
	}
	at, err := p.log.Seek(ctx, orders, eventlog.Start{Earliest: true})
	if err != nil {
		return at, err
	}
	p.table, p.rebuild = Table{At: at, Orders: map[string]*Order{}}, false
	return at, nil
}

func (p *Projection) apply(page *eventlog.Page) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rebuild {
		return nil // of the table that was
	}
	for i := range page.Events {
		e := &page.Events[i]
		o, err := apply(p.table.Orders[e.Key], e)
		if err != nil {
			return err
		}
		p.table.Orders[e.Key] = o
	}
	p.table.At = page.Next
	p.table.Events += len(page.Events)
	close(p.moved)
	p.moved = make(chan struct{})
	return nil
}

// Rebuild forgets the table, and has it made again from the log.
func (p *Projection) Rebuild() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rebuild = true
	p.ask()
}

// Order returns an order, or nil, and the position that this is the state at.
func (p *Projection) Order(id string) (*Order, eventlog.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.table.Orders[id]
	if o != nil {
		copied := *o
		o = &copied
	}
	return o, p.table.At
}

// All returns the orders, in the order in which they were placed, the position that this is the state at,
// and how many events made it.
func (p *Projection) All() (all []Order, at eventlog.Position, events int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all = make([]Order, 0, len(p.table.Orders))
	for o := range maps.Values(p.table.Orders) {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b Order) int { return cmp.Or(a.Placed.Compare(b.Placed), cmp.Compare(a.ID, b.ID)) })
	return all, p.table.At, p.table.Events
}

// Reach waits until the table is as new as a position, or ctx is done.
func (p *Projection) Reach(ctx context.Context, at eventlog.Position) error {
	for {
		p.mu.Lock()
		there, moved := !p.rebuild && p.table.At.Offset >= at.Offset, p.moved
		p.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// save writes the table to its file: all of it or nothing.
func (p *Projection) save() error {
	p.mu.Lock()
	text, err := json.Marshal(&p.table)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(p.file+".new", p.file)
}
