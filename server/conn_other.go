//go:build !linux

package server

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// prepare does nothing: heartbeats and the deadlines of writes are all there is.
func prepare(*net.TCPConn, syscall.RawConn, time.Duration, time.Duration) error {
	return errors.ErrUnsupported
}

func takenBy(syscall.RawConn) (taken uint64, waiting bool, err error) {
	return 0, false, errors.ErrUnsupported
}
