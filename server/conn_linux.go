package server

import (
	"errors"
	"math"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peersTell says that this system tells what peers take.
const peersTell = true

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
	if several, _ := tcp.MultipathTCP(); several {
		err = errors.Join(err, errors.New("the system tells of one path only, and there are several (MPTCP)"))
	}
	return err
}

// giveUpAfter has the kernel break a connection by itself when its peer has not
// acknowledged for so long what was sent; 0: when it has tried for a quarter of an hour.
func giveUpAfter(raw syscall.RawConn, d time.Duration) {
	_ = raw.Control(func(fd uintptr) { // what fails is closed
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(min(d.Milliseconds(), math.MaxInt32)))
	})
}

// takenBy returns how many bytes of what was sent to a peer it has acknowledged, and
// whether it has not yet acknowledged all. The error says that the connection is closed,
// or, [errors.ErrUnsupported], that the system doesn't tell.
func takenBy(raw syscall.RawConn) (taken uint64, waiting bool, err error) {
	closed := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err != nil {
			return
		}
		taken, waiting = info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
		if waiting && info.Segs_out == 0 { // before Linux 4.2, and in gVisor
			err = errors.ErrUnsupported
		}
	})
	if closed != nil {
		err = closed
	}
	return taken, waiting, err
}
