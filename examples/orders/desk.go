package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// A Desk takes commands, and makes events of those that are allowed.
type Desk struct {
	log   eventlog.Log
	table *Projection
}

// Do obeys a command, or says why not, and returns the order as it is then.
//
// What is allowed depends on the order as it is, and others give commands, too. So an
// event is appended on condition that nothing has happened since the state that was
// looked at: of two who pay the same order, one is told that it is paid already.
func (d *Desk) Do(ctx context.Context, c Command) (*Order, error) {
	for {
		o, at := d.table.Order(c.Order)
		if o != nil && c.Key != "" && o.Command == c.Key {
			return o, nil // it was obeyed, and its answer lost
		}
		typ, fact, err := decide(o, c)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(fact)
		if err != nil {
			return nil, err
		}
		last, _, err := d.log.Append(ctx, orders, eventlog.Batch{
			Messages: []eventlog.Message{{Type: typ, Key: c.Order, Data: data}},
			Expect:   &at,
		})
		if other, ok := errors.AsType[*eventlog.Expectation](err); ok {
			if err := d.table.Reach(ctx, other.Head); err != nil {
				return nil, err
			}
			continue // look again
		}
		if err != nil {
			return nil, err
		}
		if err := d.table.Reach(ctx, last); err != nil {
			return nil, err
		}
		o, _ = d.table.Order(c.Order)
		return o, nil
	}
}

// answer is server.Options.OnCall: a command is a call, said again under its key
// until it is answered.
func (d *Desk) answer(ctx context.Context, r server.Request) (server.Payload, error) {
	if r.Name == "rebuild" {
		d.table.Rebuild()
		return server.Payload{Data: []byte("true")}, nil
	}
	c := Command{Name: r.Name, Key: r.Key}
	if err := json.Unmarshal(r.Data, &c); err != nil {
		return server.Payload{}, transport.Refuse("invalid_order", "a command is an object like {\"order\": \"…\"}: %v", err)
	}
	o, err := d.Do(ctx, c)
	if err != nil {
		return server.Payload{}, err
	}
	data, err := json.Marshal(o)
	return server.Payload{Data: data}, err
}
