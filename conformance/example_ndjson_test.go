package conformance_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// A transport of one's own, whole: one JSON object a line (NDJSON), at
// GET {base}/ndjson?channel=C&after=P. What follows is all that an author
// writes: the codec, the Conn, the handler; then the client half, for the
// suite; then one line that mounts it.

// ndjson is the codec: how events and frames look.
type ndjson struct{}

func (ndjson) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	return append(transport.AppendEventJSON(dst, channel, e), '\n')
}

func (ndjson) AppendFrame(dst []byte, f *transport.Frame) []byte {
	return append(transport.AppendFrameJSON(dst, f), '\n')
}

// ndjsonConn is the Conn: it writes to one response.
type ndjsonConn struct {
	w  http.ResponseWriter
	rc *http.ResponseController

	mu     sync.Mutex
	closed bool // guarded by mu: the response isn't touched any more
}

func (c *ndjsonConn) Send(items []transport.Item, deadline time.Time) (more bool, err error) {
	if err := c.setDeadline(deadline); err != nil {
		return false, err
	}
	for _, item := range items {
		var line []byte
		if item.Run != nil {
			line = item.Run.As(ndjson{}).Bytes // made once for all clients
		} else {
			line = item.Frame.As(ndjson{})
		}
		if _, err := c.w.Write(line); err != nil {
			return false, err
		}
	}
	if err := c.rc.Flush(); err != nil {
		return false, err
	}
	return true, c.setDeadline(time.Time{}) // over HTTP/2 a deadline that passes ends the stream
}

func (c *ndjsonConn) setDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return transport.ErrClosed
	}
	return c.rc.SetWriteDeadline(t)
}

func (c *ndjsonConn) Close(transport.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		_ = c.rc.SetWriteDeadline(time.Unix(1, 0)) // a write in progress fails
	}
}

// over is called when the handler returns: Close may still be called then.
func (c *ndjsonConn) over() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// ndjsonHandler is the adapter: it attaches, and waits for Done, as it lends its
// ResponseWriter.
type ndjsonHandler struct{ engine transport.Engine }

func (h ndjsonHandler) Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = "ndjson"
	hello, err := transport.PlainHello(r, 1, r.URL.Query().Get("after"))
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	c := &ndjsonConn{w: w, rc: http.NewResponseController(w)}
	defer c.over()
	session, err := h.engine.Attach(r.Context(), peer, hello, c)
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	select {
	case <-session.Done():
	case <-r.Context().Done():
		session.Detach(r.Context().Err())
		c.Close(transport.Reason{Code: transport.CodeLeft})
		<-session.Done()
	}
}

// readNDJSON is the client half.
func readNDJSON(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:1/ndjson?channel="+ask.Channels[0]+"&after="+ask.After, nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var body struct{ Error struct{ Code string } }
		err := json.NewDecoder(resp.Body).Decode(&body)
		return errorsOr(err, &transport.Refusal{Reason: transport.Reason{Code: body.Error.Code}})
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := takeNDJSON(lines.Bytes(), received); err != nil {
			return err
		}
	}
	return lines.Err()
}

func takeNDJSON(line []byte, received func(conformance.Received)) error {
	var o struct {
		Channel, Position, Type, Encoding string
		Data                              json.RawMessage
		Gap                               *struct{ From, To, Reason string }
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	r := conformance.Received{Channel: o.Channel, Position: o.Position, Event: o.Data != nil, Type: o.Type, JSON: o.Data}
	switch {
	case o.Gap != nil:
		r.Position, r.From, r.To, r.Reason = o.Gap.To, o.Gap.From, o.Gap.To, o.Gap.Reason
	case o.Encoding == "base64": // a payload that isn't shown as JSON comes as Data
		var text string
		if err := json.Unmarshal(o.Data, &text); err != nil {
			return err
		}
		r.JSON = nil
		r.Data, _ = base64.StdEncoding.DecodeString(text)
	case o.Position == "":
		return nil // a heartbeat or a goodbye
	}
	received(r)
	return nil
}

func errorsOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func TestNDJSON(t *testing.T) {
	conformance.TestTransport(t, conformance.Transport{
		Mount: func(engine transport.Engine) http.Handler {
			h := ndjsonHandler{engine}
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Serve(w, r, transport.Peer{}) })
		},
		Client:     readNDJSON,
		OneChannel: true,
	})
}

// TestNDJSONIsMounted beside the server's own, with its checks and rights.
func TestNDJSONIsMounted(t *testing.T) {
	srv, err := server.New(server.Options{
		Transports: map[string]func(transport.Engine) server.Transport{
			"ndjson": func(engine transport.Engine) server.Transport { return ndjsonHandler{engine} },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(srv)
	defer func() { _ = srv.Close(); ts.Close() }()
	r, err := http.Get(ts.URL + "/realtime/ndjson?channel=room")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	lines.Scan() // the opening
	if _, err := srv.Publish(t.Context(), "room", server.Message{Type: "said", Data: []byte(`"hello"`)}); err != nil {
		t.Fatal(err)
	}
	if lines.Scan(); !strings.Contains(lines.Text(), `"data":"hello"`) {
		t.Errorf("%q came, %v", lines.Text(), lines.Err())
	}
	req, _ := http.NewRequest(http.MethodGet, ts.URL+"/realtime/ndjson?channel=room", nil)
	req.Header.Set("Origin", "https://evil.example.com")
	if r, err := http.DefaultClient.Do(req); err != nil || r.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign page: %v, %v", r, err)
	}
	_, err = server.New(server.Options{Transports: map[string]func(transport.Engine) server.Transport{"sse": nil}})
	if err == nil || !strings.Contains(err.Error(), "Transports") {
		t.Errorf("a name that is taken: %v", err)
	}
}
