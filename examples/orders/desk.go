package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

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
		if o != nil && slices.Contains(o.Commands, c.Key) {
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
	done, err := d.obey(ctx, r)
	if errors.Is(err, eventlog.ErrUnavailable) {
		// A full disk, say. Whether the event was appended is not known: say it again.
		err = transport.RefuseFor(time.Second, transport.CodeUnavailable, "the log can't be asked now").Because(err)
	}
	if err != nil {
		return server.Payload{}, err
	}
	data, err := json.Marshal(done)
	return server.Payload{Data: data}, err
}

func (d *Desk) obey(ctx context.Context, r server.Request) (any, error) {
	if r.Name == "rebuild" {
		began := time.Now()
		events, err := d.table.Rebuild(ctx)
		return map[string]any{"events": events, "ms": time.Since(began).Milliseconds()}, err
	}
	c := Command{Name: r.Name, Key: r.Key}
	if err := json.Unmarshal(r.Data, &c); err != nil {
		return nil, transport.Refuse("invalid_order", "a command is an object like {\"order\": \"…\"}: %v", err)
	}
	return d.Do(ctx, c)
}
