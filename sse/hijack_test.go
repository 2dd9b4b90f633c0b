package sse

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/conform"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/transport"
)

// A hijackedConn writes SSE past net/http, as a later, leaner adapter may: an
// idle one then costs no handler goroutine and no buffers. It stands here to
// prove that the contract leaves room for it: nothing but the adapter changes
// (docs/adr/003).
type hijackedConn struct {
	net.Conn
	begun  bool
	closed atomic.Bool
}

// Send implements [transport.Conn]: one write for the whole batch, in one chunk
// (RFC 9112 §7.1).
func (c *hijackedConn) Send(items []transport.Item, deadline time.Time) (bool, error) {
	if c.closed.Load() {
		return false, transport.ErrClosed
	}
	var body, out []byte
	last := false
	for _, item := range items {
		switch {
		case item.Run != nil:
			body = append(body, item.Run.As(plainCodec{named: true}).Bytes...)
		case item.Frame.Kind == transport.FrameClose:
			last = true
		default:
			body = append(body, item.Frame.As(plainCodec{named: true})...)
		}
	}
	if !c.begun {
		c.begun = true
		out = append(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	}
	if len(body) > 0 {
		out = fmt.Appendf(out, "%x\r\n%s\r\n", len(body), body)
	}
	if last {
		out = append(out, "0\r\n\r\n"...)
	}
	_ = c.SetWriteDeadline(deadline)
	_, err := c.Write(out)
	return true, err
}

// Close implements [transport.Conn].
func (c *hijackedConn) Close(transport.Reason) {
	if !c.closed.Swap(true) {
		_ = c.Conn.Close()
	}
}

func serveHijacked(engine transport.Engine, w http.ResponseWriter, r *http.Request) {
	hello, err := plainHello(r)
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	raw, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	_ = raw.SetDeadline(time.Time{})
	c := &hijackedConn{Conn: raw}
	session, err := engine.Attach(context.Background(), transport.Peer{Transport: Name}, hello, c)
	if err != nil {
		refuseHijacked(raw, err)
		return
	}
	go func() { // notices that the client left; there are ways without a goroutine
		_, err := io.Copy(io.Discard, raw)
		session.Detach(err)
		c.Close(transport.Reason{Code: transport.CodeLeft})
	}()
}

func refuseHijacked(raw net.Conn, err error) {
	defer raw.Close()
	refusal, _ := err.(*transport.Refusal) //nolint:errorlint // Attach returns nothing else
	body := append(transport.AppendReasonJSON([]byte(`{"error":`), refusal.Reason), '}')
	_, _ = fmt.Fprintf(raw, "HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestContractHoldsForAHijackedResponse(t *testing.T) {
	conformance.TestTransport(t, conformance.Transport{
		Mount: func(engine transport.Engine) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveHijacked(engine, w, r) })
		},
		Client: func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
			s, err := wireclient.SSE(ctx, hc, "http://127.0.0.1:1/sse"+wireclient.Query(ask.After, ask.Channels...), "")
			return conform.Drain(s, err, received)
		},
		OneChannel: true,
		Plain:      true,
		Hijacks:    true,
	})
}
