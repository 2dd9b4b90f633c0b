package server_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/throughline/throughline/server"
)

// narrow is a connection to a world that has room for 4 KiB of what it has not read,
// as small devices have, over which something was asked.
func (w *world) narrow(ask, how string) *net.TCPConn {
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
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: h\r\nConnection: %s\r\n\r\n", ask, how); err != nil {
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
	conn := w.narrow("sse?channel=r&after="+begin.String(), "keep-alive")
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
	const peer, slack = time.Second, 1500 * time.Millisecond
	w := scene{connContext: true, o: server.Options{PeerTimeout: peer}}.play(t)
	w.publish("r", `"begin"`)
	w.publish("r", `"`+strings.Repeat("x", 10_000)+`"`)
	took := w.untilGone(w.narrow("poll?channel=r&after=earliest", "keep-alive"), peer+slack)
	if took < peer {
		t.Errorf("it was cut after %v", took)
	}
}

// TestWhatAClosedConnectionHolds: a server that has closed a connection knows nothing of it
// any more, and what its client does not take lies there no longer than three times
// PeerTimeout all the same.
func TestWhatAClosedConnectionHolds(t *testing.T) {
	t.Parallel() // it waits, mostly
	const peer, slack = 2 * time.Second, 3 * time.Second
	w := scene{connContext: true, o: server.Options{PeerTimeout: peer}}.play(t)
	w.publish("r", `"begin"`)
	w.publish("r", `"`+strings.Repeat("x", 10_000)+`"`)
	took := w.untilGone(w.narrow("poll?channel=r&after=earliest", "close"), 3*peer+slack)
	if took < 2*peer {
		t.Errorf("it was cut after %v: it was not closed before", took)
	}
}

// TestStreamsAreNotGivenUp: while a stream is under way the system leaves it to us whom to
// cut. An answer it gives up by itself.
func TestStreamsAreNotGivenUp(t *testing.T) {
	const peer = 7 * time.Second
	for _, c := range []struct {
		carrier, how string
		want         time.Duration
	}{
		{"sse", "keep-alive", 0},
		{"ws", "Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 0},
		{"poll", "keep-alive", 3 * peer},
	} {
		t.Run(c.carrier, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			last := &lastAccepted{Listener: l}
			w := scene{connContext: true, o: server.Options{PeerTimeout: peer}, listener: last}.play(t)
			at := w.publish("r", "1")
			w.narrow(c.carrier+"?channel=r&wait=20s&after="+at.String(), c.how)
			w.until(5*time.Second, func() bool { return connections(t, w.srv, c.carrier) == 1 })
			time.Sleep(100 * time.Millisecond) // a stream's handler stays
			raw, err := last.conn.Load().SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			err = raw.Control(func(fd uintptr) {
				ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
				if got := time.Duration(ms) * time.Millisecond; got != c.want || err != nil {
					t.Errorf("it is given up after %v, not %v: %v", got, c.want, err)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A lastAccepted remembers the connection that it has accepted last.
type lastAccepted struct {
	net.Listener
	conn atomic.Pointer[net.TCPConn]
}

func (l *lastAccepted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.conn.Store(c.(*net.TCPConn))
	}
	return c, err
}

// untilGone waits until the system has no socket any more at the server's end of
// a connection, and returns how long that took.
func (w *world) untilGone(conn *net.TCPConn, within time.Duration) time.Duration {
	w.Helper()
	ends := fmt.Sprintf(":%04X 0100007F:%04X ", conn.RemoteAddr().(*net.TCPAddr).Port, conn.LocalAddr().(*net.TCPAddr).Port)
	began, seen, missed := time.Now(), false, 0
	for ; !seen || missed < 5; time.Sleep(10 * time.Millisecond) { // a table that changes is read with holes
		table, err := os.ReadFile("/proc/thread-self/net/tcp") // a thread may be in a network of its own
		if err != nil {
			w.Fatal(err)
		}
		if missed++; strings.Contains(string(table), ends) {
			seen, missed = true, 0
		}
		if time.Since(began) > within {
			w.Fatalf("after %v it is still there, or never was: %v", time.Since(began), seen)
		}
	}
	return time.Since(began)
}
