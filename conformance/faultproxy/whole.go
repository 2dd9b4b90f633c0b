package faultproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// The faults of this file need a whole request or answer.

// maxHeld bounds a request or an answer that is held as a whole.
const maxHeld = 16 << 20

// BufferResponse holds the answer until it is complete. So do nginx with
// proxy_buffering and boxes that scan for viruses: of a stream nothing comes
// while it lasts. An upgrade passes.
type BufferResponse struct {
	// MaxBytes and MaxWait bound what is held, and how long from the request
	// on; then the client is answered 504. Defaults: 16 MiB, and no bound.
	MaxBytes int
	MaxWait  time.Duration
}

func (f BufferResponse) apply(x *exchange) {
	if f.MaxBytes <= 0 {
		f.MaxBytes = maxHeld
	}
	var state atomic.Int32 // 0, then for good: 1 it is passed on, 2 it is given up
	giveUp := func(why string) {
		if state.CompareAndSwap(0, 2) {
			x.giveUp(http.StatusGatewayTimeout, why)
		}
	}
	x.down.shaper = &held{
		max:  f.MaxBytes,
		full: func() { giveUp(fmt.Sprintf("the answer has more than %d bytes", f.MaxBytes)) },
		free: func() bool { return state.CompareAndSwap(0, 1) || state.Load() == 1 },
	}
	x.upgraded = func() { x.down.shaper = prompt{} }
	if f.MaxWait > 0 {
		x.later(f.MaxWait, func() { giveUp(fmt.Sprintf("the answer took more than %v", f.MaxWait)) })
	}
}

// giveUp answers in place of the server, and ends the connection.
func (x *exchange) giveUp(status int, why string) {
	x.c.end(verdict{
		answer: Answer{Status: status}.bytes(x.request.Method, true),
		client: Orderly, server: Orderly, why: why,
	})
}

// HTTP10 passes the request on as HTTP/1.0, and the answer as 1.0, too; then the
// connection closes. So does nginx as it was configured by default for most
// of its life: no upgrades, no chunks. A server that answers in chunks all the
// same has the connection reset.
type HTTP10 struct{}

func (HTTP10) apply(x *exchange) {
	chunked := x.body.kind == inChunks
	body, ok := x.collect()
	if !ok {
		return
	}
	without := []string{"Connection", "Keep-Alive", "Upgrade", "Transfer-Encoding", "Trailer", "TE", "Expect"}
	with := []string{"Connection: close"}
	if chunked {
		body, _ = io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(body)))
		with = append(with, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	head := rewriteHead(x.head.p, func(line string) string {
		return line[:strings.LastIndexByte(line, ' ')] + " HTTP/1.0"
	}, without, with)
	x.sendWhole(append(head, body...))
	x.upgrade, x.last = false, true
	x.rewrite = func(head []byte, resp *http.Response) ([]byte, error) {
		if len(resp.TransferEncoding) > 0 {
			return nil, errors.New("it answers a request of HTTP/1.0 in chunks")
		}
		return rewriteHead(head, func(line string) string {
			_, status, _ := strings.Cut(line, " ")
			return "HTTP/1.0 " + status
		}, []string{"Connection", "Keep-Alive"}, []string{"Connection: close"}), nil
	}
}

// Duplicate sends the request twice, on two connections; the client gets the
// first answer. So do proxies that ask the next server when one takes too long,
// and clients whose answer was lost. The answer that the client doesn't get
// is read to its end, but no longer than Options.Timeout after the other's.
type Duplicate struct {
	Apart  time.Duration // how much later the second is sent
	Second bool          // the client gets the second answer
}

func (f Duplicate) apply(x *exchange) {
	body, ok := x.collect()
	if !ok {
		return
	}
	request := slices.Concat(x.head.p, body)
	x.sendWhole(request)
	wait := f.Apart
	if f.Second {
		wait = 0
		x.up.shaper = &stalled{hold: f.Apart}
	}
	x.c.p.live.Go(func() { x.sendCopy(request, wait) })
}

// sendCopy sends a request once more, and drops its answer.
func (x *exchange) sendCopy(request []byte, wait time.Duration) {
	p := x.c.p
	if !p.sleep(wait) {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.options.Timeout)
	defer cancel()
	conn, err := p.options.Dial(ctx)
	if err != nil {
		p.note(x.c.number, x.name, "copy: dial: "+err.Error())
		return
	}
	done := make(chan struct{})
	defer close(done)
	p.live.Go(func() {
		defer func() { _ = conn.Close() }()
		select {
		case <-x.finished: // at Close at the latest
			p.sleepUntil(p.options.Timeout, done)
		case <-done:
		}
	})
	_ = conn.SetWriteDeadline(time.Now().Add(p.options.Timeout))
	_, err = conn.Write(request)
	if err == nil {
		err = p.readCopy(conn, x)
	}
	if err != nil {
		p.note(x.c.number, x.name, "copy: "+err.Error())
	}
}

// readCopy reads an answer and drops it.
func (p *Proxy) readCopy(r io.Reader, x *exchange) error {
	resp, err := http.ReadResponse(bufio.NewReader(r), x.request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	p.note(x.c.number, x.name, fmt.Sprintf("copy: answered %d, with a body of %d bytes", resp.StatusCode, n))
	return err
}

// sleep waits, and reports whether the proxy is still open.
func (p *Proxy) sleep(d time.Duration) bool { return p.sleepUntil(d, nil) }

// sleepUntil is a sleep that done cuts short.
func (p *Proxy) sleepUntil(d time.Duration, done <-chan struct{}) bool {
	if d <= 0 {
		return p.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	case <-p.ctx.Done():
	}
	return p.ctx.Err() == nil
}

// collect reads the body of the request, as it comes. If it can't, it has ended
// the connection.
func (x *exchange) collect() (body []byte, ok bool) {
	if strings.EqualFold(x.request.Header.Get("Expect"), "100-continue") {
		if _, err := x.c.write(x.c.client, []byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			x.broke("the proxy", err)
			return nil, false
		}
		x.head.p = rewriteHead(x.head.p, sameLine, []string{"Expect"}, nil)
	}
	all := &collected{held{max: maxHeld, full: func() {
		x.c.end(both(Reset, "the request is too long to be held"))
	}}}
	f := flow{c: x.c, from: x.c.client, shaper: all}
	if err := f.run(x.body, time.Now(), nil); err != nil {
		x.broke("the client", err)
		return nil, false
	}
	return all.buf, true
}

// sendWhole has a request passed on in place of what came.
func (x *exchange) sendWhole(request []byte) {
	x.head.p, x.body = request, &framing{}
}
