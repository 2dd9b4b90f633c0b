package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connectLimit bounds how long it takes to become a client.
const connectLimit = 10 * time.Second

// A client is one WebSocket of the drain.
type client struct {
	fd     int
	parser frameParser
	next   int    // the number of the event that comes next
	why    string // why the connection has ended, or empty
}

// connect makes a WebSocket, says hello, and waits until the server is ready.
func connect(p plan) (*client, error) {
	conn, err := net.DialTimeout("tcp", p.Addr, connectLimit)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // the client has the file under another number
	if err := conn.SetDeadline(time.Now().Add(connectLimit)); err != nil {
		return nil, err
	}
	frames, err := shakeHands(conn, p)
	if err != nil {
		return nil, err
	}
	c := &client{}
	c.parser.feed(frames, nil)
	c.fd, err = duplicate(conn)
	return c, err
}

// shakeHands returns what the server sent of frames until it was ready.
func shakeHands(conn net.Conn, p plan) ([]byte, error) {
	request := "GET " + p.Path + " HTTP/1.1\r\nHost: " + p.Addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := conn.Write([]byte(request)); err != nil {
		return nil, err
	}
	response, frames, err := readUntil(conn, nil, "\r\n\r\n")
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(response, []byte("HTTP/1.1 101 ")) {
		return nil, fmt.Errorf("no WebSocket: %.200q", response)
	}
	if p.Hello != "" {
		if _, err := conn.Write(appendClientFrame(nil, []byte(p.Hello))); err != nil {
			return nil, err
		}
	}
	if p.Ready != "" {
		before, after, err := readUntil(conn, frames, p.Ready)
		return append(before, after...), err
	}
	return frames, nil
}

// readUntil reads until something has come, and returns all up to its end, and
// what has come after it.
func readUntil(conn net.Conn, have []byte, wanted string) (before, after []byte, err error) {
	const most = 64 << 10
	buf := make([]byte, 4096)
	for len(have) < most {
		if i := bytes.Index(have, []byte(wanted)); i >= 0 {
			end := i + len(wanted)
			return have[:end:end], have[end:], nil
		}
		n, err := conn.Read(buf)
		if err != nil {
			return nil, nil, fmt.Errorf("waiting for %q after %.200q: %w", wanted, have, err)
		}
		have = append(have, buf[:n]...)
	}
	return nil, nil, errors.New("the server says too much")
}

// duplicate returns another number for a connection's file, which the runtime's
// poller knows nothing of. It does not block, as the connection's own doesn't.
func duplicate(conn net.Conn) (fd int, err error) {
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return 0, errors.New("this connection has no file")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}
