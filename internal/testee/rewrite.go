package testee

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Said is one thing that crosses the wire: a block of a stream without the
// empty line that ends it, a text message of a WebSocket, or the body of any
// other request or response.
type Said struct {
	Path  string // the last element of the request's: "sse", "ws", "poll", "up"
	Plain bool   // not by the session protocol
	Text  string
}

// A Rewriter says what crosses the wire in place of what was said. Nil leaves it
// as it is.
type Rewriter struct {
	Down func(Said) []string // what the server says
	Up   func(Said) []string // what the client says
}

// Handler makes a server one whose words are changed.
func (rw Rewriter) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rw.Down != nil {
			r.Header.Del("Accept-Encoding") // what is to be changed has to be readable
		}
		said := Said{Path: r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], Plain: r.URL.Query().Has("channel")}
		if rw.Up != nil && r.Body != nil && said.Path != "ws" {
			body, _ := io.ReadAll(r.Body)
			said.Text = string(body)
			body = []byte(strings.Join(rw.Up(said), ""))
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Set("Content-Length", strconv.Itoa(len(body)))
		}
		out := &rewritten{ResponseWriter: w, rw: rw, said: said}
		defer out.end()
		next.ServeHTTP(out, r)
	})
}

// rewritten is a response of which each piece is changed before it goes out.
type rewritten struct {
	http.ResponseWriter
	rw     Rewriter
	said   Said
	status int
	held   []byte
	lent   bool // the connection is not ours any more
}

// Unwrap is for http.ResponseController.
func (w *rewritten) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *rewritten) streams() bool { return w.said.Path == "sse" && w.status < 300 }

// WriteHeader keeps the header of what isn't a stream until its body is known.
func (w *rewritten) WriteHeader(status int) {
	w.status = status
	if w.streams() || w.rw.Down == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *rewritten) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.rw.Down == nil {
		return w.ResponseWriter.Write(p)
	}
	w.held = append(w.held, p...)
	for w.streams() {
		block, rest, whole := bytes.Cut(w.held, []byte("\n\n"))
		if !whole {
			break
		}
		w.held = slices.Clone(rest)
		for _, text := range w.down(block) {
			if _, err := io.WriteString(w.ResponseWriter, text+"\n\n"); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// FlushError is for http.ResponseController: what isn't a stream goes out at its
// end.
func (w *rewritten) FlushError() error {
	if w.rw.Down != nil && !w.streams() {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *rewritten) down(text []byte) []string {
	said := w.said
	said.Text = string(text)
	return w.rw.Down(said)
}

// end writes what isn't a stream.
func (w *rewritten) end() {
	if w.lent || w.rw.Down == nil || w.status == 0 || w.streams() {
		return
	}
	body := strings.Join(w.down(w.held), "")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = io.WriteString(w.ResponseWriter, body)
}

// Hijack lends the connection, with what goes over it changed.
func (w *rewritten) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, _, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.lent = true
	changed := &rewrittenConn{Conn: c, rw: w.rw, said: w.said}
	return changed, bufio.NewReadWriter(bufio.NewReader(changed), bufio.NewWriter(changed)), nil
}

// rewrittenConn changes text messages, in whole frames.
type rewrittenConn struct {
	net.Conn
	rw   Rewriter
	said Said

	mu     sync.Mutex
	out    []byte // guarded by mu: less than a frame
	headed bool   // guarded by mu: the answer to the handshake is out

	in, ready []byte // of the one reader: less than a frame, and frames
}

func (c *rewrittenConn) Write(p []byte) (int, error) {
	if c.rw.Down == nil {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, p...)
	var ready []byte
	if !c.headed {
		header, rest, whole := bytes.Cut(c.out, []byte("\r\n\r\n"))
		if !whole {
			return len(p), nil
		}
		ready = append(bytes.Clone(header), "\r\n\r\n"...)
		c.out, c.headed = bytes.Clone(rest), true
	}
	ready, c.out = c.change(ready, c.out, c.rw.Down)
	if _, err := c.Conn.Write(ready); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *rewrittenConn) Read(p []byte) (int, error) {
	if c.rw.Up == nil {
		return c.Conn.Read(p)
	}
	for len(c.ready) == 0 {
		buffer := make([]byte, 4096)
		n, err := c.Conn.Read(buffer)
		c.ready, c.in = c.change(c.ready, append(c.in, buffer[:n]...), c.rw.Up)
		if err != nil && len(c.ready) == 0 {
			return 0, err
		}
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// change appends the whole frames of raw to ready, text messages changed, and
// returns what is left (RFC 6455 §5.2).
func (c *rewrittenConn) change(ready, raw []byte, with func(Said) []string) (_, rest []byte) {
	for {
		f, size := cutFrame(raw)
		if size == 0 {
			return ready, raw
		}
		if f.head != 0x81 {
			ready = append(ready, raw[:size]...)
		} else {
			said := c.said
			said.Text = string(f.payload)
			for _, text := range with(said) {
				ready = appendFrame(ready, text, f.masked)
			}
		}
		raw = raw[size:]
	}
}

type wsFrame struct {
	head    byte
	masked  bool
	payload []byte
}

// longestFrame is more than any message here has.
const longestFrame = 16 << 20

// cutFrame returns the first frame of raw; size is 0 if it isn't whole.
func cutFrame(raw []byte) (f wsFrame, size int) {
	if len(raw) < 2 {
		return f, 0
	}
	f.head, f.masked = raw[0], raw[1]&0x80 != 0
	length, at := int(raw[1]&0x7f), 2
	switch {
	case length == 126 && len(raw) >= 4:
		length, at = int(binary.BigEndian.Uint16(raw[2:])), 4
	case length == 127 && len(raw) >= 10:
		length, at = int(binary.BigEndian.Uint64(raw[2:])), 10 //nolint:gosec // of our own tests
	case length >= 126:
		return f, 0
	}
	if length < 0 || length > longestFrame {
		return wsFrame{}, len(raw) // nothing to change: it goes on as it is
	}
	var mask [4]byte
	if f.masked {
		if len(raw) < at+4 {
			return f, 0
		}
		copy(mask[:], raw[at:])
		at += 4
	}
	if len(raw) < at+length {
		return f, 0
	}
	f.payload = bytes.Clone(raw[at : at+length])
	for i := range f.payload {
		f.payload[i] ^= mask[i%4]
	}
	return f, at + length
}

// appendFrame appends a text message, masked by a key of zeros if at all.
func appendFrame(dst []byte, text string, masked bool) []byte {
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	dst = append(dst, 0x81)
	switch n := len(text); {
	case n < 126:
		dst = append(dst, bit|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, bit|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, bit|127), uint64(n))
	}
	if masked {
		dst = append(dst, 0, 0, 0, 0)
	}
	return append(dst, text...)
}
