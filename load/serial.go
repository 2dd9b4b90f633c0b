//go:build linux

package main

import (
	"context"
	"time"

	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

// serialPrefix is put before the name of a transport for that of the build
// that is bad on purpose.
const serialPrefix = "serial-"

// serialTransports are the server's own, over an engine that writes to all
// clients from one goroutine. The gates must not let it pass.
func serialTransports(ctx context.Context) map[string]func(transport.Engine) server.Transport {
	f := &funnel{jobs: make(chan job)}
	go f.run(ctx)
	wrap := func(e transport.Engine) transport.Engine { return &serialEngine{e, f} }
	return map[string]func(transport.Engine) server.Transport{
		serialPrefix + sse.Name: func(e transport.Engine) server.Transport {
			return sse.New(wrap(e), sse.Options{Retry: time.Second})
		},
		serialPrefix + ws.Name:       func(e transport.Engine) server.Transport { return ws.New(wrap(e), ws.Options{}) },
		serialPrefix + longpoll.Name: func(e transport.Engine) server.Transport { return longpoll.New(wrap(e), longpoll.Options{}) },
	}
}

// A funnel is the one goroutine.
type funnel struct{ jobs chan job }

// A job is one Send.
type job struct {
	conn     transport.Conn
	items    []transport.Item
	deadline time.Time
	done     chan sent
}

type sent struct {
	more bool
	err  error
}

func (f *funnel) run(ctx context.Context) {
	for {
		select {
		case j := <-f.jobs:
			more, err := j.conn.Send(j.items, j.deadline)
			j.done <- sent{more, err}
		case <-ctx.Done():
			return
		}
	}
}

// A serialEngine has the Sends of its connections go through the funnel.
type serialEngine struct {
	transport.Engine
	funnel *funnel
}

func (e *serialEngine) Attach(ctx context.Context, peer transport.Peer, hello transport.Hello, c transport.Conn) (transport.Session, error) {
	return e.Engine.Attach(ctx, peer, hello, &serialConn{c, e.funnel})
}

type serialConn struct {
	transport.Conn
	funnel *funnel
}

// Send implements [transport.Conn]. The deadline counts from when the write
// begins: waiting for others is not this client's fault.
func (c *serialConn) Send(items []transport.Item, deadline time.Time) (bool, error) {
	patience := time.Until(deadline)
	done := make(chan sent, 1)
	c.funnel.jobs <- job{conn: c.Conn, items: items, deadline: time.Now().Add(patience), done: done}
	s := <-done
	return s.more, s.err
}
