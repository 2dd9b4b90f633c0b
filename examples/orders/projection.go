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

// saveEvery is how long after a change the table is written to its file. What is lost of
// it is made again.
const saveEvery = time.Second

// shape is counted up when tables come to hold something else: one of another shape
// is made again.
const shape = 2

// A Table is what the log comes to, up to a position.
type Table struct {
	Shape  int               `json:"shape"`
	At     eventlog.Position `json:"position"`
	Orders map[string]*Order `json:"orders"`
	Events int               `json:"events"` // of which it is made
}

// apply moves the table on over a page that was read after its position.
func (t *Table) apply(page *eventlog.Page) error {
	for i := range page.Events {
		e := &page.Events[i]
		o, err := apply(t.Orders[e.Key], e)
		if err != nil {
			return err
		}
		t.Orders[e.Key] = o
	}
	t.At = page.Next
	t.Events += len(page.Events)
	return nil
}

// A Projection keeps a table up to date. The file spares it from reading the whole
// log at each start, and holds nothing that the log doesn't: delete it, and it is
// made again.
type Projection struct {
	log  eventlog.Log
	file string

	making sync.Mutex // one table is made again at a time
	mu     sync.Mutex
	table  *Table        // guarded by mu
	moved  chan struct{} // guarded by mu: closes when the table has moved on
	wake   chan struct{} // holds one: there may be something to read
}

// NewProjection returns one that is as new as the log. If its file is of another log,
// or none, that takes reading all of it.
func NewProjection(ctx context.Context, log eventlog.Log, file string) (*Projection, error) {
	p := &Projection{log: log, file: file, table: &Table{}, moved: make(chan struct{}), wake: make(chan struct{}, 1)}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, p.table)
	}
	if err == nil && p.table.Shape == shape {
		return p, p.catchUp(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		slog.Warn("the table can't be read: it is made again", "shape", p.table.Shape, "err", err)
	}
	_, err = p.Rebuild(ctx)
	return p, err
}

// Run follows the log until ctx is done.
func (p *Projection) Run(ctx context.Context) error {
	defer p.log.Watch(orders, p.ask)()
	p.ask()
	var due <-chan time.Time // when to save what has changed; nil: nothing has
	for {
		select {
		case <-ctx.Done():
			return p.save()
		case <-due:
			due = nil
			if err := p.save(); err != nil {
				return err
			}
			continue
		case <-p.wake:
		}
		if err := p.catchUp(ctx); err != nil {
			if !errors.Is(err, eventlog.ErrUnavailable) {
				return err
			}
			time.AfterFunc(time.Second, p.ask) // the log is away: the table stands still
		}
		if due == nil {
			due = time.After(saveEvery)
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
		p.mu.Lock()
		table, at := p.table, p.table.At
		p.mu.Unlock()
		page, err := p.log.Read(ctx, orders, at, eventlog.Limit{})
		if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
			// The table is of another log than this one.
			slog.Warn("the table does not belong to this log: it is made again", "err", lost)
			_, err := p.Rebuild(ctx)
			return err
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		if p.table == table { // and not one that was made again meanwhile
			err = table.apply(&page)
			p.hasMoved()
		}
		p.mu.Unlock()
		if err != nil || !page.More() {
			return err
		}
	}
}

// hasMoved wakes who waits for the table to move. It is called with mu held.
func (p *Projection) hasMoved() {
	close(p.moved)
	p.moved = make(chan struct{})
}

// Rebuild makes the table again from the log, and says of how many events. The new
// one is made beside the old one, and takes its place when it has reached the log's
// head: nobody sees half a table.
func (p *Projection) Rebuild(ctx context.Context) (events int, err error) {
	p.making.Lock()
	defer p.making.Unlock()
	begin, err := p.log.Seek(ctx, orders, eventlog.Start{Earliest: true})
	if err != nil {
		return 0, err
	}
	made := &Table{Shape: shape, At: begin, Orders: map[string]*Order{}}
	if err := p.toHead(ctx, made); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Now the old one stands still: with what came meanwhile, the new one is as new.
	if err := p.toHead(ctx, made); err != nil {
		return 0, err
	}
	p.table = made
	p.hasMoved()
	return made.Events, nil
}

// toHead moves a table that nobody else has on to the log's head.
func (p *Projection) toHead(ctx context.Context, t *Table) error {
	for {
		page, err := p.log.Read(ctx, orders, t.At, eventlog.Limit{})
		if err != nil {
			return err
		}
		if err := t.apply(&page); err != nil || !page.More() {
			return err
		}
	}
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
		there, moved := p.table.At.Offset >= at.Offset, p.moved
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
	text, err := json.Marshal(p.table)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(p.file+".new", p.file)
}
