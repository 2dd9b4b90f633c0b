//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"
)

// A carrier is one way to read a channel.
type carrier string

const (
	plainSSE   carrier = "plain SSE"
	sessionSSE carrier = "session SSE"
	plainWS    carrier = "plain ws"
	sessionWS  carrier = "session ws"
	polls      carrier = "polls"
)

var (
	allCarriers   = []carrier{plainWS, plainSSE, sessionWS, polls, sessionSSE}
	plainCarriers = []carrier{plainWS, plainSSE, polls}
)

// name is the last element of its path.
func (c carrier) name() string {
	switch c {
	case plainSSE, sessionSSE:
		return "sse"
	case plainWS, sessionWS:
		return "ws"
	}
	return "poll"
}

func (c carrier) session() bool { return c == sessionSSE || c == sessionWS }

// base is where servers are mounted.
const base = "/realtime/"

// An inquiry is what a client asks a server for.
type inquiry struct {
	Carrier carrier
	Prefix  string // of the carrier's name
	Channel string
	After   string // a position, a start, or nothing
	Token   string // of a session
	Line    int
}

// path is that of the request.
func (q inquiry) path() string {
	p := base + q.Prefix + q.Carrier.name()
	if q.Carrier.session() {
		return p
	}
	p += "?channel=" + q.Channel
	if q.After != "" {
		p += "&after=" + q.After
	}
	if q.Carrier == polls {
		p += "&wait=50s"
	}
	return p
}

// hello is what a session's line begins with.
func (q inquiry) hello() []byte {
	channel := fmt.Sprintf(`{"channel":%q}`, q.Channel)
	if q.After != "" {
		channel = fmt.Sprintf(`{"channel":%q,"after":%q}`, q.Channel, q.After)
	}
	return fmt.Appendf(nil, `{"hello":{"version":1,"line":%d,"token":%q,"channels":[%s]}}`, q.Line, q.Token, channel)
}

// request is all that is sent to begin.
func (q inquiry) request() []byte {
	const host = " HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	switch q.Carrier {
	case plainWS, sessionWS:
		b := []byte("GET " + q.path() + host + "Upgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if q.Carrier == sessionWS {
			b = appendFrame(b, opText, q.hello())
		}
		return b
	case sessionSSE:
		hello := q.hello()
		return append([]byte("POST "+q.path()+host+"Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(hello))+"\r\n\r\n"), hello...)
	}
	return []byte("GET " + q.path() + host + "\r\n")
}

// A line is one connection that brings items.
type line interface {
	next() (item, error)
}

// readBuffer is what a client reads at once; there may be 10,000 of them.
const readBuffer = 2048

// open sends a request and returns its line.
func open(c net.Conn, q inquiry) (line, error) {
	if _, err := c.Write(q.request()); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, readBuffer)
	if q.Carrier == polls {
		return &pollLine{conn: c, r: r, q: q, asked: true}, nil
	}
	h, err := readHead(r)
	if err != nil {
		return nil, err
	}
	if q.Carrier.name() == "ws" {
		if h.status != 101 {
			return nil, h.refused(r)
		}
		return &wsLine{conn: c, r: r}, nil
	}
	if h.status != 200 {
		return nil, h.refused(r)
	}
	if h.chunked {
		r = bufio.NewReaderSize(httputil.NewChunkedReader(r), readBuffer)
	}
	return &sseLine{r: r, session: q.Carrier.session()}, nil
}

// A head is what a client has to know of a response's.
type head struct {
	status  int
	length  int // -1: not told
	chunked bool
}

func readHead(r *bufio.Reader) (head, error) {
	h := head{length: -1}
	first, err := r.ReadString('\n')
	if err != nil {
		return h, err
	}
	if _, err := fmt.Sscanf(first, "HTTP/1.1 %d", &h.status); err != nil {
		return h, fmt.Errorf("no response: %.100q", first)
	}
	for {
		text, err := r.ReadString('\n')
		if err != nil {
			return h, err
		}
		text = strings.TrimSpace(text)
		if text == "" {
			return h, nil
		}
		name, value, _ := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			h.length, err = strconv.Atoi(value)
		case "transfer-encoding":
			h.chunked = value == "chunked"
		}
		if err != nil {
			return h, err
		}
	}
}

func (h head) body(r *bufio.Reader, buf []byte) ([]byte, error) {
	if h.chunked {
		b, err := io.ReadAll(httputil.NewChunkedReader(r))
		if err == nil {
			_, err = r.ReadString('\n') // after the last chunk
		}
		return b, err
	}
	if h.length < 0 {
		return io.ReadAll(r)
	}
	if cap(buf) < h.length {
		buf = make([]byte, h.length)
	}
	buf = buf[:h.length]
	_, err := io.ReadFull(r, buf)
	return buf, err
}

// refused tells why a response is no line.
func (h head) refused(r *bufio.Reader) error {
	b, err := h.body(r, nil)
	if err != nil {
		return err
	}
	var body struct {
		Error struct {
			Code  string
			After int64
		}
	}
	if json.Unmarshal(b, &body) == nil && body.Error.Code != "" {
		return &ended{body.Error.Code, time.Duration(body.Error.After) * time.Millisecond}
	}
	return fmt.Errorf("status %d: %.100q", h.status, b)
}

// Opcodes of RFC 6455 §5.2.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// appendFrame appends a masked frame of less than 64 KiB, as clients must send
// them. The mask is zero, so the payload stays as it is.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	if n := len(payload); n < 126 {
		dst = append(dst, 0x80|op, 0x80|byte(n), 0, 0, 0, 0)
	} else {
		dst = append(dst, 0x80|op, 0x80|126, byte(n>>8), byte(n), 0, 0, 0, 0)
	}
	return append(dst, payload...)
}

// A wsLine is a WebSocket.
type wsLine struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

func (l *wsLine) next() (item, error) {
	for {
		op, payload, err := l.frame()
		if err != nil {
			return item{}, err
		}
		switch op {
		case opText:
			return parse(payload)
		case opPing:
			_, err := l.conn.Write(appendFrame(nil, opPong, payload))
			return item{Kind: isBeat}, err
		case opClose:
			return item{}, closed(payload)
		default:
			return item{}, fmt.Errorf("a frame of opcode %d", op)
		}
	}
}

// frame reads one whole frame. Servers neither mask nor split them.
func (l *wsLine) frame() (op byte, payload []byte, err error) {
	h := make([]byte, 10)
	if _, err := io.ReadFull(l.r, h[:2]); err != nil {
		return 0, nil, err
	}
	size := uint64(h[1] & 0x7F)
	switch size {
	case 126:
		_, err = io.ReadFull(l.r, h[2:4])
		size = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(l.r, h[2:10])
		size = binary.BigEndian.Uint64(h[2:])
	}
	if err != nil {
		return 0, nil, err
	}
	if h[0]&0xF0 != 0x80 || h[1]&0x80 != 0 || size > 1<<20 {
		return 0, nil, fmt.Errorf("a frame that begins with % x", h)
	}
	if uint64(cap(l.buf)) < size {
		l.buf = make([]byte, size)
	}
	_, err = io.ReadFull(l.r, l.buf[:size])
	return h[0] & 0xF, l.buf[:size], err
}

// closed reads a close frame's payload (PROTOCOL P4.5).
func closed(b []byte) error {
	if len(b) < 2 {
		return errors.New("a close frame without a code")
	}
	code, delay, _ := strings.Cut(string(b[2:]), " ")
	ms, _ := strconv.Atoi(delay)
	return &ended{fmt.Sprintf("%d %s", binary.BigEndian.Uint16(b), code), time.Duration(ms) * time.Millisecond}
}

// An sseLine is a stream of Server-Sent Events (WHATWG HTML §9.2.6), with at
// most one line of data in a block.
type sseLine struct {
	r       *bufio.Reader
	session bool

	id, data, kind []byte // of the block so far
	any            bool
	long           []byte        // a line that is longer than the buffer
	retry          time.Duration // what the server said last
}

func (l *sseLine) next() (item, error) {
	l.id, l.data, l.kind, l.any = l.id[:0], l.data[:0], l.kind[:0], false
	for {
		text, err := l.text()
		if err != nil {
			return item{}, err
		}
		if len(text) == 0 {
			if l.any {
				return l.block()
			}
			continue
		}
		l.any = true
		name, value, _ := strings.Cut(string(text), ": ") // a copy; what has no space is a comment
		switch name {
		case "id":
			l.id = append(l.id, value...)
		case "data":
			l.data = append(l.data, value...)
		case "event":
			l.kind = append(l.kind, value...)
		case "retry":
			ms, _ := strconv.Atoi(value)
			l.retry = time.Duration(ms) * time.Millisecond
		}
	}
}

// text is one line. At the end of a stream it is when to return that was said
// last, as with an EventSource.
func (l *sseLine) text() ([]byte, error) {
	text, err := l.r.ReadSlice('\n')
	for l.long = l.long[:0]; errors.Is(err, bufio.ErrBufferFull); {
		l.long = append(l.long, text...)
		text, err = l.r.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) && l.retry > 0 {
		return nil, &ended{"the end of a stream", l.retry}
	}
	if err != nil {
		return nil, err
	}
	if len(l.long) > 0 {
		text = append(l.long, text...)
	}
	return text[:len(text)-1], nil
}

func (l *sseLine) block() (item, error) {
	switch {
	case len(l.data) > 0 && (l.session || string(l.kind) == "throughline.gap"):
		return parse(l.data)
	case len(l.data) > 0:
		it := item{Kind: isEvent, Position: l.id}
		err := it.payload(l.data)
		return it, err
	case len(l.id) > 0:
		return item{Kind: isOpening, Position: l.id}, nil
	}
	return item{Kind: isBeat}, nil
}

// A pollLine asks again and again over one connection.
type pollLine struct {
	conn  net.Conn
	r     *bufio.Reader
	q     inquiry
	asked bool // an answer is under way
	buf   []byte
	came  []item // of the last answer, what was not handed over
}

func (l *pollLine) next() (item, error) {
	for len(l.came) == 0 {
		if !l.asked {
			if _, err := l.conn.Write(l.q.request()); err != nil {
				return item{}, err
			}
		}
		l.asked = false
		if err := l.answer(); err != nil {
			return item{}, err
		}
	}
	it := l.came[0]
	l.came = l.came[1:]
	return it, nil
}

func (l *pollLine) answer() error {
	h, err := readHead(l.r)
	if err != nil {
		return err
	}
	if h.status != 200 {
		return h.refused(l.r)
	}
	if l.buf, err = h.body(l.r, l.buf); err != nil {
		return err
	}
	var a struct {
		Events    []json.RawMessage
		Gaps      []object
		Positions map[string]string
	}
	if err := json.Unmarshal(l.buf, &a); err != nil {
		return err
	}
	for _, g := range a.Gaps {
		it, err := g.item()
		if err != nil {
			return err
		}
		l.came = append(l.came, it)
	}
	for _, e := range a.Events {
		it, err := parse(e)
		if err != nil {
			return err
		}
		l.came = append(l.came, it)
	}
	l.q.After = a.Positions[l.q.Channel]
	if len(l.came) == 0 {
		l.came = append(l.came, item{Kind: isOpening, Position: []byte(l.q.After)})
	}
	return nil
}
