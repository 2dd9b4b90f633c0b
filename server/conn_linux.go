package server

import (
	"math"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the kernel keeps for a client beside those that are
// on their way to it.
const unsent = 16 << 10

// noticeDeath has the kernel break a connection whose peer has not acknowledged
// for so long what was sent, or has not taken it.
//
// To a connection that is idle the same time applies as soon as one keep-alive
// probe was lost, which Go sends every 15 s: one packet, where it would
// otherwise have taken nine. So those begin only when nothing of ours would come.
func noticeDeath(tcp *net.TCPConn, within, idle time.Duration) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	ms := int(min(within.Milliseconds(), math.MaxInt32))
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms); failed == nil {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
		}
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle})
	}
	return err
}
