//go:build linux

package main

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connectLimit bounds how long it takes to become a client.
const connectLimit = 20 * time.Second

// The sources of the kinds of clients. Each client has an address of its own, as
// on a network: so there are ports enough, and what is limited by address is
// limited for one client.
const (
	goodNet = 16
	badNet  = 32
	slowNet = 48
)

// source is the address of a client: all of 127.0.0.0/8 is this machine.
func source(network, i int) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, byte(network+i>>16), byte(i>>8), byte(i))}
}

// A socketKind is what a client's socket is like.
type socketKind int

const (
	usual socketKind = iota
	// narrow takes little that nobody reads: on the loopback the kernel would
	// hold megabytes for a client that stalls, and a short run would never see
	// a write that blocks. It says that it has small segments, as links beyond
	// this machine have, so that the sender's buffer is small, too.
	narrow
)

func dial(ctx context.Context, addr string, from *net.TCPAddr, kind socketKind) (*net.TCPConn, error) {
	d := net.Dialer{
		Timeout:   connectLimit,
		LocalAddr: from,
		KeepAlive: -1, // a half-open client would be found out by its own kernel
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) { failed = prepare(int(fd), kind) })
			if err != nil {
				return err
			}
			return failed
		},
	}
	c, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func prepare(fd int, kind socketKind) error {
	// A port is chosen when the other end is known, so that one number may serve
	// several connections.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return err
	}
	if kind != narrow {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536)
}

// goDark has the kernel throw away all that comes for a connection, before TCP
// sees it: nothing is acknowledged, and nothing refused. To its peer the client
// is one whose network is gone.
func goDark(c *net.TCPConn) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}} // keep 0 bytes of each packet
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]})
	})
	if err != nil {
		return err
	}
	return failed
}

// abort closes a connection without a word of goodbye, and throws away what is
// still to be sent.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
