package server

import (
	"context"
	"net"
	"time"

	"github.com/throughline/throughline/sse"
)

// ConnContext has dead clients noticed, on whatever carrier. It is made for
// [http.Server.ConnContext]:
//
//	hs := &http.Server{Handler: srv, ConnContext: srv.ConnContext, ReadHeaderTimeout: 5 * time.Second}
//
// On Linux it does three things for each connection, which hold for all that is
// served on it:
//
//   - It is cut when nothing of what was sent was acknowledged, or taken by a client
//     that doesn't read, for Options.PeerTimeout and up to a quarter more. Without that
//     the kernel tries again for about 15 minutes, so a client whose network is gone
//     stays connected as long: a stream (SSE) has no other way to notice. (Not so for
//     MPTCP, of which the kernel tells one path only.)
//   - TCP_USER_TIMEOUT is set to three times that, while no stream of ours is under
//     way on it: what lies untaken when it is closed is kept no longer.
//   - TCP_NOTSENT_LOWAT is set to 16 KiB. It bounds what the kernel takes for a client
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
	ctx = sse.ConnContext(ctx, c)
	if !peersTell {
		return ctx
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = prepare(tcp, raw, s.idle(), s.o.PeerTimeout)
	}
	if err != nil {
		s.peers.untold(err) // it is closed, mostly
		return ctx
	}
	return s.peers.watch(ctx, tcp, raw)
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
