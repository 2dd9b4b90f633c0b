package sse

import (
	"context"
	"net"
	"os"
	"time"
)

// socketKey is by which a request's context has the socket of its connection.
type socketKey struct{}

// ConnContext has streams reset connections whose clients do not read, so that
// the kernel gives back at once what it holds for them, and TLS does not wait to
// say goodbye. It is made for [http.Server.ConnContext]. Without it, net/http closes such
// a connection in good order: the kernel keeps what the client has not taken
// until that gives up.
//
// It holds for HTTP/1.1 on TCP, where a stream has its connection for itself. A
// connection of HTTP/2 is shared, and never reset: there only the stream is.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	for {
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = wrapped.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		return context.WithValue(ctx, socketKey{}, tcp)
	}
	return ctx
}

// socketOf is the socket that a request has for itself, or nil.
func socketOf(ctx context.Context, http1 bool) *net.TCPConn {
	if !http1 {
		return nil
	}
	tcp, _ := ctx.Value(socketKey{}).(*net.TCPConn)
	return tcp
}

// reset ends the connection, and throws away what the kernel holds for the
// client. It has to come before a write fails: net/http closes the connection
// then, and what is closed can't be reset any more.
func (c *conn) reset() {
	_ = c.socket.SetLinger(0)
	_ = c.socket.Close()
}

// setAlarm has the connection reset when a Send takes too long. It is for
// a connection with a socket, in place of a deadline. Guarded by mu.
func (c *conn) setAlarm(deadline time.Time) {
	wait := max(time.Until(deadline), time.Nanosecond)
	if c.alarm == nil {
		c.alarm = time.AfterFunc(wait, c.reset)
	} else {
		c.alarm.Reset(wait)
	}
}

// stopAlarm returns an error if it has rung.
func (c *conn) stopAlarm() error {
	if c.alarm.Stop() {
		return nil
	}
	return os.ErrDeadlineExceeded
}
