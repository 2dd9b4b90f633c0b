package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// near is the server without the proxy, which would take what a slow reader
// doesn't.
func (c *serverCheck) near() *site {
	s := *c.site
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.direct(ctx) }}
	s.http = &http.Client{Transport: transport}
	c.atEnd(transport.CloseIdleConnections)
	return &s
}

// deaf opens a line of the clause's form past the proxy, and reads nothing of
// it.
func (c *serverCheck) deaf(channel, after string) net.Conn {
	conn, err := c.direct(c.ctx)
	if err != nil {
		c.fatalf("dial: %v", err)
	}
	c.atEnd(func() { _ = conn.Close() })
	h := wireclient.HelloFor(after, channel)
	plain := strings.HasPrefix(c.form.name, "plain")
	path := "/" + c.form.carrier
	if plain {
		path += wireclient.Query(after, channel)
	}
	switch {
	case c.form.carrier == "ws":
		request := c.handshake(path)
		if !plain {
			request += wsFrame(wsFin|wsText, string(h.Frame()))
		}
		_, err = io.WriteString(conn, request)
	case plain:
		_, err = fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: %s\r\n\r\n", c.testee.Base, path, c.listen.Addr())
	default:
		_, err = fmt.Fprintf(conn, "POST %s%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", c.testee.Base, path, c.listen.Addr(), len(h.Frame()), h.Frame())
	}
	if err != nil {
		c.fatalf("the request could not be sent: %v", err)
	}
	c.settle()
	return conn
}

// Of what is published to slow readers: far more than a network holds.
const (
	slowEvents = 300
	slowSize   = 8 << 10
)

func (c *serverCheck) stalledReaderHoldsUpNobody() {
	begin := c.publish(busyRoom, "0")
	for range 3 {
		c.deaf(busyRoom, begin)
	}
	r := c.read(busyRoom, begin)
	r.opening()
	for n := 1; n <= slowEvents/3; n++ {
		began := time.Now()
		m := saidAtLength(n, slowSize)
		at := c.publishMessage(busyRoom, m)
		r.event(at, string(m.Data))
		if took := time.Since(began); took > time.Second {
			c.fatalf("event %d took %v to another reader", n, took)
		}
	}
}

func (c *serverCheck) stalledReaderIsBrokenOff() {
	begin := c.publish(busyRoom, "0")
	conn := c.deaf(busyRoom, begin)
	t := c.traffic(slowEvents, slowSize, c.site)
	<-t.done
	time.Sleep(time.Minute)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := io.Copy(io.Discard, conn)
	switch {
	case n > slowEvents*slowSize/4:
		c.errorf("a reader that read nothing for a minute found %d of the %d bytes that were published", n, slowEvents*slowSize)
	case isTimeout(err):
		c.errorf("a reader that read nothing for a minute, and takes no more than 2s for a write, was not broken off")
	}
	f := c.follower(begin)
	f.follow(f.all(t), c.always)
	f.gotAll(t)
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func (c *serverCheck) slowReaderIsToldWhy() {
	begin := c.publish(busyRoom, "0")
	near := c.near()
	f := c.follower(begin)
	stream, err := f.opened(c.ctx, c.form, near)
	if err != nil {
		c.fatalf("%s was not accepted: %v", c.form.name, err)
	}
	c.atEnd(stream.Close)
	t := c.traffic(6*slowEvents, slowSize/2, c.site)
	for n := 0; ; n++ {
		told, over := c.slowly(stream, f)
		if over {
			if told != "slow_consumer 7000" {
				c.errorf("after %d events its line ended with %q, not with \"slow_consumer\" and the delay of 7000 ms", n, told)
			}
			break
		}
		if t.over() {
			c.fatalf("it fell behind for %d events, by far more than 10, and was not ended", n)
		}
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(7 * time.Second)
	at := f.at
	f.follow(f.more(100, t), c.always)
	if at == f.at {
		c.errorf("nothing came when it was back")
	}
	f.inOrder(t)
}

// slowly takes one thing, and returns how the line ended if it did.
func (c *serverCheck) slowly(stream wireclient.Stream, f *follower) (told string, over bool) {
	if sse, ok := stream.(*wireclient.SSEStream); ok && c.form.needs == PlainSSE {
		b, err := sse.Parser.Next()
		switch {
		case errors.Is(err, io.EOF):
			return f.told.Code, true
		case err != nil:
			return err.Error(), true
		case b.HasData:
			_ = f.take(wireclient.Item{Event: true, Position: b.ID, Data: []byte(b.Data)})
		case b.Retry != "":
			f.told.Code = "slow_consumer " + b.Retry // the only word of a plain stream
		}
		return "", false
	}
	it, err := stream.Next()
	switch {
	case err != nil && strings.Contains(err.Error(), `4001`) && strings.Contains(err.Error(), "slow_consumer 7000"):
		return "slow_consumer 7000", true
	case err != nil:
		return err.Error(), true
	case it.Close != nil:
		return fmt.Sprint(it.Close.Code, " ", it.Close.After), true
	}
	if err := f.take(it); err != nil {
		return err.Error(), true
	}
	return "", false
}

// inOrder checks what came so far as gotAll does.
func (f *follower) inOrder(t *traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, it := range f.got {
		if it.Gap != nil || i >= len(t.at) || it.Position != t.at[i] || numberOf(it) != i+1 {
			f.check.fatalf("%.200s came after number %d", inWords(it), i)
		}
	}
}

// peerOf opens a WebSocket of the clause's form, by hand.
func (c *serverCheck) peerOf(channel string) *socket {
	if c.form.needs == PlainWS {
		return c.socket("/ws" + wireclient.Query("", channel))
	}
	s := c.lineSocket(wireclient.HelloFor("", channel))
	return s
}

func (c *serverCheck) deadPeerIsBrokenOff() {
	const heartbeat, peer = 5 * time.Second, 4 * time.Second
	alive := c.peerOf(busyRoom)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := alive.any(); err != nil {
				ended <- err
				return
			}
		}
	}()
	dead := c.peerOf(busyRoom)
	var pinged time.Time
	for {
		_ = dead.conn.SetReadDeadline(time.Now().Add(c.patience()))
		f, err := dead.frame()
		if err != nil {
			switch took := time.Since(pinged); {
			case isTimeout(err):
				c.errorf("a WebSocket that answers nothing was not broken off")
			case pinged.IsZero():
				c.errorf("a WebSocket was broken off before a ping came: %v", err)
			case took < peer || took > 2*peer+heartbeat:
				c.errorf("a WebSocket that answers nothing was broken off %v after the first ping, not about %v", took, peer)
			}
			break
		}
		if f.opcode() == wsPing && pinged.IsZero() {
			pinged = time.Now()
		}
		if f.opcode() == wsClose {
			code, reason := f.closing()
			c.errorf("a WebSocket that answers nothing was closed with the words %d %q", code, reason)
		}
		if !pinged.IsZero() && time.Since(pinged) > time.Minute {
			c.errorf("a minute after the first ping, a WebSocket that answers nothing goes on")
			break
		}
	}
	time.Sleep(time.Minute)
	select {
	case err := <-ended:
		c.errorf("a WebSocket that answers pings was ended: %v", err)
	default:
	}
}

func (c *serverCheck) anyFrameIsASignOfLife() {
	s := c.peerOf(busyRoom)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := s.frame(); err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 30 {
		time.Sleep(2 * time.Second)
		s.say(`{"unsubscribe":["no such"]}`)
	}
	select {
	case err := <-ended:
		c.errorf("a WebSocket that speaks, but answers no ping, was ended: %v", err)
	default:
	}
}
