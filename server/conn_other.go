//go:build !linux

package server

import (
	"net"
	"time"
)

// noticeDeath does nothing: heartbeats and the deadlines of writes are all there
// is.
func noticeDeath(*net.TCPConn, time.Duration, time.Duration) error { return nil }
