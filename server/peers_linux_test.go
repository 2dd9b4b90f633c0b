package server_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/throughline/throughline/server"
)

// narrow is a connection to a world that has room for 4 KiB of what it has not read,
// as small devices have, over which something was asked.
func (w *world) narrow(ask string) *net.TCPConn {
	w.Helper()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
		return err
	}}
	conn, err := d.DialContext(w.ctx, "tcp", w.http.Transport.(elsewhere).target.Host)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: h\r\n\r\n", ask); err != nil {
		w.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// TestSlowReaderIsNotDead: one that reads all the time, slowly and through a small
// window, takes all that it missed on one line, however long that takes. To the kernel
// its window is shut for as long (TCP_USER_TIMEOUT).
func TestSlowReaderIsNotDead(t *testing.T) {
	t.Parallel() // it waits, mostly
	const peer = time.Second
	w := scene{connContext: true, o: server.Options{PeerTimeout: peer}}.play(t)
	begin := w.publish("r", `"begin"`)
	const events, each = 40, 1000
	for range events {
		w.publish("r", `"`+strings.Repeat("x", each)+`"`)
	}
	conn := w.narrow("sse?channel=r&after=" + begin.String())
	began, got := time.Now(), 0
	lines := bufio.NewScanner(slowly{conn})
	for got < events && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") && len(lines.Text()) > each {
			got++
		}
	}
	took := time.Since(began)
	if got < events {
		t.Errorf("the line ended after %d of %d events and %v: %v", got, events, took, lines.Err())
	}
	if took < 4*peer {
		t.Errorf("it took %v, which proves nothing", took)
	}
}

// slowly reads 7 kB a second.
type slowly struct{ net.Conn }

func (s slowly) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p[:min(len(p), 700)])
	time.Sleep(time.Duration(n) * time.Second / 7000)
	return n, err
}

// TestWhoTakesNothingIsCut: what lies in the kernel for one that reads nothing, when all
// was written and no deadline counts any more, lies there no longer than PeerTimeout.
func TestWhoTakesNothingIsCut(t *testing.T) {
	t.Parallel() // it waits, mostly
	const slack = 1500 * time.Millisecond
	for name, c := range map[string]struct {
		o      server.Options
		bytes  int // of the answer that it does not read
		within time.Duration
	}{
		"when all was written":    {server.Options{PeerTimeout: time.Second, WriteTimeout: time.Minute}, 10_000, time.Second},
		"when a write takes long": {server.Options{PeerTimeout: 6 * time.Second, WriteTimeout: 4 * time.Second}, 60_000, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := scene{connContext: true, o: c.o}.play(t)
			begin := w.publish("r", `"begin"`)
			w.publish("r", `"`+strings.Repeat("x", c.bytes)+`"`)
			conn := w.narrow("poll?channel=r&after=" + begin.String())
			began := time.Now()
			for time.Since(began) < c.within+slack && state(t, conn) != unix.BPF_TCP_CLOSE {
				time.Sleep(20 * time.Millisecond)
			}
			switch took := time.Since(began); {
			case took >= c.within+slack:
				t.Errorf("after %v it is still there", took)
			case took < c.within/2:
				t.Errorf("it was cut after %v", took)
			}
		})
	}
}

// state is that of a connection, as the kernel sees it.
func state(t *testing.T, conn *net.TCPConn) (state uint8) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		state = info.State
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}
