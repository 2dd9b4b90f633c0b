package server

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/throughline/throughline/sse"
)

// ConnContext has the kernel notice dead clients. It is made for
// [http.Server.ConnContext]:
//
//	hs := &http.Server{Handler: srv, ConnContext: srv.ConnContext, ReadHeaderTimeout: 5 * time.Second}
//
// On Linux it sets two options of each connection, which hold for all that is
// served on it:
//
//   - TCP_USER_TIMEOUT to Options.PeerTimeout. What was sent and is not
//     acknowledged for so long, or not taken because the client doesn't read,
//     breaks the connection. Without it the kernel tries again for about 15
//     minutes, so a client whose network is gone stays connected as long: a
//     stream (SSE) has no other way to notice.
//   - TCP_NOTSENT_LOWAT to 16 KiB. It bounds what the kernel takes for a client
//     beyond what is on its way: one that reads nothing swallows 3.9 MB before
//     a write blocks, and so before Options.WriteTimeout begins; with it,
//     148 KB.
//
// Everywhere it has streams reset the connection of a client that is evicted
// because it takes nothing, as WebSockets do by themselves, so that what the
// kernel holds for it is given back at once ([sse.ConnContext]).
//
// Elsewhere than on Linux, and for connections that are not TCP, that is all: there
// is what WebSockets answer to pings, and the deadlines of writes.
//
// A program that has a ConnContext of its own calls this one from it.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	tcp, ok := underTLS(c).(*net.TCPConn)
	if !ok {
		return ctx
	}
	if err := noticeDeath(tcp, s.o.PeerTimeout, s.idle()); err != nil {
		s.o.Logger.Debug("no peer timeout", slog.Any("error", err)) // it is closed, mostly
	}
	return sse.ConnContext(ctx, c)
}

// idle is longer than any connection of ours is silent while it is used.
func (s *Server) idle() time.Duration {
	return max(2*time.Minute, s.o.PeerTimeout+max(s.o.Heartbeat, s.o.MaxWait))
}

// underTLS returns the connection that others are made of: a *tls.Conn and its
// like say which by NetConn.
func underTLS(c net.Conn) net.Conn {
	for {
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = wrapped.NetConn()
	}
}
