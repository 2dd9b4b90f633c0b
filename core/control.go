package core

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// Control is the channel in which the nodes that share a log tell each other
// what is to be done about clients. No client can be of its namespace.
var Control = eventlog.Channel{Namespace: "$throughline", Name: "control"}

// A Target says whose lines are meant: those of a session, or of a subject, in
// a namespace. One of Session and Subject is set, or both.
type Target struct {
	Namespace string `json:"namespace,omitempty"`
	Session   string `json:"session,omitempty"`
	Subject   string `json:"subject,omitempty"`
}

// An Order is what is to be done about clients, on all nodes. It reaches those
// who have a line when it is carried out, and nobody else.
type Order struct {
	Do      string `json:"do"` // one of the constants below
	Target  Target `json:"target"`
	Channel string `json:"channel,omitempty"` // to subscribe or unsubscribe
	// Why ends a connection.
	Why transport.Reason `json:"why,omitzero"`
	// Trip is of a client that another node has evicted.
	Trip *breaker.Trip `json:"trip,omitempty"`
}

// What an order may be.
const (
	DoSubscribe   = "subscribe"
	DoUnsubscribe = "unsubscribe"
	DoDisconnect  = "disconnect"
	DoReauthorize = "reauthorize"
	doKeepOut     = "keep out"
)

// Order has something done about clients, here and on all other nodes of the
// log. It returns when the log has it. Errors are those of
// [eventlog.Log.Append].
func (e *Engine) Order(ctx context.Context, o Order) error {
	if o.Target.Session == "" && o.Target.Subject == "" {
		return errors.New("core: the target is nobody: it needs a session or a subject")
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, _, err = e.o.Log.Append(ctx, Control, eventlog.Batch{Messages: []eventlog.Message{{Type: o.Do, Data: data}}})
	return err
}

// control follows the channel of orders.
type control struct {
	engine *Engine
	stop   func() // of the watch

	worker // of follow

	// Owned by the worker, once start has returned.
	at     eventlog.Position
	missed bool // orders may have been missed
}

// startControl begins to follow. If the log can't be asked now, what it was told
// until it can is taken for missed.
func startControl(e *Engine) *control {
	c := &control{engine: e}
	c.start(c.follow, e.live.Done)
	c.seek()
	c.stop = e.o.Log.Watch(Control, c.ask)
	c.ask()
	return c
}

func (c *control) close() {
	c.stop()
	c.end()
}

// seek begins at the head. It reports whether that is known.
func (c *control) seek() bool {
	ctx, cancel := context.WithTimeout(c.engine.ctx, c.engine.o.ReadTimeout)
	defer cancel()
	at, err := c.engine.seekLog(ctx, Control, eventlog.Start{})
	c.missed = c.missed || err != nil
	c.at = at
	return err == nil
}

// follow carries out what is new.
func (c *control) follow() {
	if c.at.IsZero() && !c.seek() {
		c.later()
		return
	}
	if c.missed {
		c.missed = false
		c.engine.reauthorize(func(*line) bool { return true })
	}
	for more := true; more && !c.over.Load(); {
		var err error
		if more, err = c.read(); err != nil {
			c.later()
			return
		}
	}
}

func (c *control) later() {
	if c.engine.ctx.Err() == nil {
		time.AfterFunc(c.engine.o.RetryDelay, c.ask)
	}
}

func (c *control) read() (more bool, err error) {
	ctx, cancel := context.WithTimeout(c.engine.ctx, c.engine.o.ReadTimeout)
	defer cancel()
	began := time.Now()
	page, err := c.engine.o.Log.Read(ctx, Control, c.at, eventlog.Limit{})
	c.engine.askedLog("read", Control, began, err)
	if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
		c.at = lost.To
		c.engine.o.Logger.Info("orders missed", "reason", string(lost.Reason))
		c.engine.reauthorize(func(*line) bool { return true }) // what the lost orders said is not known
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for i := range page.Events {
		var o Order
		if err := json.Unmarshal(page.Events[i].Data, &o); err != nil {
			c.engine.o.Logger.Warn("bad order", "error", err)
			continue
		}
		if o.Trip != nil {
			c.engine.clients.Hear(*o.Trip, time.Since(page.Events[i].Time))
			continue
		}
		c.engine.carryOut(&o)
	}
	c.at = page.Next
	return page.More(), nil
}

// carryOut does what an order says to the lines that are here.
func (e *Engine) carryOut(o *Order) {
	meant := func(l *line) bool { return !l.probe && o.Target.means(&l.client) }
	switch o.Do {
	case DoDisconnect:
		e.sessions.disconnect(o) // first: who hears the goodbye is back at once, perhaps
		for _, l := range e.matching(meant) {
			l.sayGoodbye(o.Why)
		}
	case DoReauthorize:
		e.reauthorize(meant)
	case DoSubscribe:
		for _, l := range e.matching(meant) {
			if l.version > 0 {
				l.order(func() { l.give(o.Channel) })
			}
		}
	case DoUnsubscribe:
		for _, l := range e.matching(meant) {
			l.order(func() {
				l.takeAway(o.Channel, transport.Refuse(transport.CodeRemoved, "this server took the channel away"))
			})
		}
	}
}

func (t *Target) means(who *Client) bool {
	return who.Namespace == t.Namespace &&
		(t.Session == "" || who.Session == t.Session) &&
		(t.Subject == "" || who.Subject == t.Subject)
}

// matching returns the lines that are meant.
func (e *Engine) matching(meant func(*line) bool) (lines []*line) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for l := range e.lines {
		if meant(l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// reauthorize asks Authorize again for all that those who are meant have.
func (e *Engine) reauthorize(meant func(*line) bool) {
	for _, l := range e.matching(meant) {
		l.askRights()
	}
}
