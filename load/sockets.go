//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel holds for the sockets of one port, as sock_diag(7) tells it:
// also for those that no process has any more, which /proc/PID/fd never shows.

// Of linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	skMemInfo        = 7 // INET_DIAG_SKMEMINFO
	allStates        = 0xFFF
	listening        = 10
)

// diagRequest is struct inet_diag_req_v2 behind its header.
type diagRequest struct {
	header                     unix.NlMsghdr
	family, protocol, ext, pad uint8
	states                     uint32
	id                         [48]byte
}

// A socket is one of the server's, as the kernel has it.
type socket struct {
	peer  net.IP
	bytes int64 // that it holds, bookkeeping and what it has set aside included
	owned bool  // a process has it
}

// socketsOf lists those of a port of this machine, but for the one that listens.
func socketsOf(port int) ([]socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("missing: sock_diag of the kernel: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	r := diagRequest{family: unix.AF_INET, protocol: unix.IPPROTO_TCP, ext: 1 << (skMemInfo - 1), states: allStates &^ (1 << listening)}
	r.header = unix.NlMsghdr{Len: uint32(unsafe.Sizeof(r)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}
	request := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var all []socket
	for buf := make([]byte, 64<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, err
		}
		over := false
		if all, over, err = appendSockets(all, buf[:n], port); over || err != nil {
			return all, err
		}
	}
}

// appendSockets reads the messages of one datagram. over: there are no more.
func appendSockets(all []socket, b []byte, port int) (_ []socket, over bool, err error) {
	const header = 16
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint32(b))
		if size < header || size > len(b) {
			return all, false, errors.New("sock_diag sent half a message")
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return all, true, nil
		case unix.NLMSG_ERROR:
			return all, true, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(b[header:]))))
		}
		if s, ok := readSocket(b[header:size], port); ok {
			all = append(all, s)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return all, false, nil
}

// readSocket reads a struct inet_diag_msg and its attributes.
func readSocket(b []byte, port int) (s socket, ok bool) {
	const body, inode = 72, 68
	if len(b) < body || int(binary.BigEndian.Uint16(b[4:])) != port {
		return s, false
	}
	s.peer = net.IP(append([]byte(nil), b[24:28]...))
	s.owned = binary.NativeEndian.Uint32(b[inode:]) != 0
	for a := b[body:]; len(a) >= 4; {
		size := int(binary.NativeEndian.Uint16(a))
		if size < 4 || size > len(a) {
			break
		}
		if binary.NativeEndian.Uint16(a[2:]) == skMemInfo {
			s.bytes = held(a[4:size])
		}
		a = a[min(len(a), (size+3)&^3):]
	}
	return s, true
}

// held sums up what of SK_MEMINFO is memory: what came, what is set aside, what is
// to be sent, options, and the backlog.
func held(info []byte) (bytes int64) {
	for _, i := range []int{0, 4, 5, 6, 7} {
		if len(info) >= 4*i+4 {
			bytes += int64(binary.NativeEndian.Uint32(info[4*i:]))
		}
	}
	return bytes
}
