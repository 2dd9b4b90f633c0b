package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// An Order is what the events of one order come to. It is never stored by itself:
// the events are what is true, and it is made of them.
type Order struct {
	ID       string    `json:"id"`
	Item     string    `json:"item"`
	Quantity int       `json:"quantity"`
	Status   string    `json:"status"` // the type of the last event
	Placed   time.Time `json:"placed"`
	Changed  time.Time `json:"changed"`

	// Commands are the keys of the commands that made its events, which are few: if
	// one comes again, as its answer was lost, it has been obeyed already.
	Commands []string `json:"commands"`
}

// The types of events. Each says what happened, and nothing of what it means: that
// is for whoever reads them, now and in ten years.
const (
	placed    = "placed"
	paid      = "paid"
	shipped   = "shipped"
	cancelled = "cancelled"
)

// A Fact is the data of an event.
type Fact struct {
	Order    string `json:"order"`
	Item     string `json:"item,omitempty"`     // of placed
	Quantity int    `json:"quantity,omitempty"` // of placed
	Command  string `json:"command"`
}

// A Command is what somebody wants to happen. It may be refused; an event can't be.
type Command struct {
	Name     string `json:"-"` // place, pay, ship or cancel
	Key      string `json:"-"` // the same when it is said again
	Order    string `json:"order"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// decide returns the event that a command makes of an order, which is nil if there
// is none yet. It is a plain function: what is decided depends on nothing else.
func decide(o *Order, c Command) (typ string, fact Fact, err error) {
	fact = Fact{Order: c.Order, Command: c.Key}
	switch {
	case c.Name == "place":
		fact.Item, fact.Quantity = c.Item, c.Quantity
		switch {
		case o != nil:
			err = transport.Refuse("exists", "there is an order %s already", c.Order)
		case c.Order == "" || len(c.Order) > 40 || c.Item == "" || len(c.Item) > 100 || c.Quantity < 1 || c.Quantity > 1000:
			err = transport.Refuse("invalid_order", "an order has an id of up to 40 bytes, an item of up to 100, and a quantity from 1 to 1000")
		}
		return placed, fact, err
	case o == nil:
		return "", fact, transport.Refuse("no_such_order", "there is no order %q", c.Order)
	}
	allowed := map[string]struct{ from, to string }{
		"pay":    {placed, paid},
		"ship":   {paid, shipped},
		"cancel": {placed, cancelled},
	}
	step, known := allowed[c.Name]
	switch {
	case !known:
		return "", fact, transport.Refuse("no_such_command", "the commands are place, pay, ship and cancel, not %.40q", c.Name)
	case o.Status != step.from:
		return "", fact, transport.Refuse("too_late", "order %s is %s: to %s it, it has to be %s", o.ID, o.Status, c.Name, step.from)
	}
	return step.to, fact, nil
}

// apply returns what an event makes of an order. It decides nothing: what happened,
// happened.
func apply(o *Order, e *eventlog.Event) (*Order, error) {
	var fact Fact
	if err := json.Unmarshal(e.Data, &fact); err != nil {
		return nil, fmt.Errorf("the event at %v can't be read: %w", e.At, err)
	}
	if o == nil {
		o = &Order{ID: fact.Order, Item: fact.Item, Quantity: fact.Quantity, Placed: e.Time}
	}
	o.Status, o.Changed = e.Type, e.Time
	if fact.Command != "" {
		o.Commands = append(o.Commands, fact.Command)
	}
	return o, nil
}
