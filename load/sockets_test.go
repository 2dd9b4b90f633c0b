//go:build linux

package main

import (
	"net"
	"testing"
	"time"
)

// TestTheKernelTellsWhatItHolds: also for a connection that no process has any
// more, which is what a close in good order leaves behind for a client that does
// not read.
func TestTheKernelTellsWhatItHolds(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if all, err := socketsOf(port); err != nil || len(all) != 0 {
		t.Fatalf("before: %v, %v", all, err)
	}
	client, err := dial(t.Context(), ln.Addr().String(), source(slowNet, 5), usual)
	if err != nil {
		t.Fatal(err)
	}
	defer abort(client)
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := server.Write(make([]byte, 32<<20)); err == nil {
		t.Fatal("32 MiB were taken by nobody")
	}
	_ = server.Close()
	all, err := socketsOf(port)
	if err != nil || len(all) != 1 || all[0].owned || all[0].bytes == 0 || all[0].peer.String() != "127.48.0.5" {
		t.Errorf("of a connection that was closed: %+v, %v", all, err)
	}
	abort(client)
	if all, err := socketsOf(port); err != nil || len(all) != 0 {
		t.Errorf("after: %+v, %v", all, err)
	}
}

func TestHalfAMessageIsAnError(t *testing.T) {
	for _, b := range [][]byte{
		{200, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, // longer than what there is
		{4, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},   // shorter than a header
	} {
		if all, _, err := appendSockets(nil, b, 1); err == nil {
			t.Errorf("% x: %v", b, all)
		}
	}
}
