package server

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the kernel keeps for a client beside those that are
// on their way to it.
const unsent = 16 << 10

// prepare has the kernel keep little for a peer, and notice the death of one to which
// nothing was sent for so long: by then four probes go out within PeerTimeout. So those
// begin only when nothing of ours would come.
func prepare(tcp *net.TCPConn, raw syscall.RawConn, idle, within time.Duration) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: within / 4, Count: 4})
	}
	return err
}

// takenBy returns how many bytes of what was sent to a peer it has acknowledged, and
// whether it has not yet acknowledged all. The error says that the connection is closed.
func takenBy(raw syscall.RawConn) (taken uint64, waiting bool, err error) {
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.Segs_out == 0 {
			return // a kernel before 4.2 says nothing of it
		}
		taken, waiting = info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
	})
	return taken, waiting, err
}
