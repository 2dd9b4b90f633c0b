//go:build linux

package main

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDarkClientsAcknowledgeNothing shows that a client that went dark is
// half-open to its server: nothing arrives, and nothing says so.
func TestDarkClientsAcknowledgeNothing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := dial(t.Context(), ln.Addr().String(), source(badNet, 1), narrow)
	if err != nil {
		t.Fatal(err)
	}
	defer abort(c)
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if unacked(t, s) {
		t.Error("a client that is well acknowledges nothing")
	}
	if err := goDark(c); err != nil {
		t.Fatal(err)
	}
	if !unacked(t, s) {
		t.Error("a dark client acknowledges")
	}
	if hungUp(s.(*net.TCPConn)) {
		t.Error("the server was told")
	}
}

// unacked writes a byte, and reports whether it is still not acknowledged after
// a while.
func unacked(t *testing.T, s net.Conn) bool {
	t.Helper()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for deadline := now() + 500*time.Millisecond; now() < deadline; pause(t.Context(), 10*time.Millisecond) {
		raw, err := s.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var info *unix.TCPInfo
		if err := raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || info == nil {
			t.Fatalf("the kernel does not tell (TCP_INFO): %v", err)
		}
		if info.Unacked == 0 {
			return false
		}
	}
	return true
}
