//go:build !linux

package server

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Heartbeats and the deadlines of writes are all there is.
const peersTell = false

func prepare(*net.TCPConn, syscall.RawConn, time.Duration, time.Duration) error {
	return errors.ErrUnsupported
}

func giveUpAfter(syscall.RawConn, time.Duration) {}

func takenBy(syscall.RawConn) (taken uint64, waiting bool, err error) {
	return 0, false, errors.ErrUnsupported
}
