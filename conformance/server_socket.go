package conformance

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/throughline/throughline/internal/wireclient"
)

// Bytes of RFC 6455 §5.2: the bit of the last fragment, and opcodes.
const (
	wsFin    = 0x80
	wsRest   = 0
	wsText   = 1
	wsBinary = 2
	wsClose  = 8
	wsPing   = 9
	wsPong   = 10
)

// A socket is a WebSocket whose frames the suite writes and reads itself, right or
// wrong.
type socket struct {
	check  *serverCheck
	what   string // "GET /ws?channel=room"
	conn   net.Conn
	r      *bufio.Reader
	header http.Header
}

// A socketFrame is one frame, or one message.
type socketFrame struct {
	first   byte // FIN, reserved bits and opcode (RFC 6455 §5.2)
	payload []byte
}

func (f socketFrame) opcode() byte { return f.first & 0xF }

func (f socketFrame) last() bool { return f.first&wsFin != 0 }

// closing returns code and reason of a close frame (RFC 6455 §5.5.1).
func (f socketFrame) closing() (code int, reason string) {
	if len(f.payload) < 2 {
		return 1005, ""
	}
	return int(binary.BigEndian.Uint16(f.payload)), string(f.payload[2:])
}

// wsHandshake are the headers of one (RFC 6455 §4.1), and wsAccept answers it.
var wsHandshake = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}

const wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// handshake is one as it is written. It offers no extensions.
func (c *serverCheck) handshake(path string, headers ...string) string {
	lines := []string{fmt.Sprintf("GET %s%s HTTP/1.1", c.testee.Base, path), "Host: " + c.listen.Addr().String()}
	for h := range slices.Chunk(append(slices.Clone(wsHandshake), headers...), 2) {
		lines = append(lines, h[0]+": "+h[1])
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// socket does the handshake, which has to be accepted; headers are names, each
// followed by its value.
func (c *serverCheck) socket(path string, headers ...string) *socket {
	conn, err := c.dial(c.ctx)
	if err != nil {
		c.fatalf("the server can't be reached: %v", err)
	}
	c.atEnd(func() { _ = conn.Close() })
	s := &socket{check: c, what: "GET " + path, conn: conn, r: bufio.NewReader(conn)}
	s.write(c.handshake(path, headers...))
	resp, err := http.ReadResponse(s.r, nil) //nolint:bodyclose // the frames follow
	if err != nil {
		c.fatalf("%s: the handshake was not answered within %s: %v", s.what, c.waited(), err)
	}
	if accept := resp.Header.Get("Sec-WebSocket-Accept"); resp.StatusCode != http.StatusSwitchingProtocols || accept != wsAccept {
		c.fatalf("%s: the handshake was answered %d, and Sec-WebSocket-Accept %q, not 101 and %q", s.what, resp.StatusCode, accept, wsAccept)
	}
	s.header = resp.Header
	return s
}

// lineSocket begins a line of the session protocol on one.
func (c *serverCheck) lineSocket(h wireclient.Hello, headers ...string) *socket {
	s := c.socket("/ws", headers...)
	s.say(string(h.Frame()))
	return s
}

// write sends bytes, and begins to wait for what they bring. That they don't
// arrive shows when it is read.
func (s *socket) write(bytes string) {
	s.wait()
	_, _ = io.WriteString(s.conn, bytes)
}

// wait has what is read and written next fail when the check's patience is over.
func (s *socket) wait() { _ = s.conn.SetDeadline(time.Now().Add(s.check.patience())) }

// send sends one whole frame.
func (s *socket) send(opcode byte, payload string) { s.write(wsFrame(wsFin|opcode, payload)) }

// say sends a text message.
func (s *socket) say(text string) { s.send(wsText, text) }

// pong answers a ping, which is nothing that was waited for.
func (s *socket) pong(payload []byte) {
	_, _ = io.WriteString(s.conn, wsFrame(wsFin|wsPong, string(payload)))
}

// wsFrame is a masked frame with the first byte as it is given (RFC 6455 §5.2).
func wsFrame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n)) //nolint:gosec // it is smaller
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n)) //nolint:gosec // two bytes
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

// errFrame is for what no server may send.
var errFrame = errors.New("this is against RFC 6455")

// maxFrameRead is more than any frame of a clause has.
const maxFrameRead = 16 << 20

// frame reads one frame, whatever it is.
func (s *socket) frame() (f socketFrame, err error) {
	var head [2]byte
	if _, err = io.ReadFull(s.r, head[:]); err != nil {
		return f, err
	}
	f.first = head[0]
	n := uint64(head[1])
	switch {
	case n >= 0x80:
		return f, fmt.Errorf("%w (§5.1): the server masks the frame % x", errFrame, head)
	case head[0]&0x70 != 0:
		return f, fmt.Errorf("%w (§5.2): a reserved bit is set in the frame % x", errFrame, head)
	case n == 126:
		var more [2]byte
		_, err = io.ReadFull(s.r, more[:])
		n = uint64(binary.BigEndian.Uint16(more[:]))
	case n == 127:
		var more [8]byte
		_, err = io.ReadFull(s.r, more[:])
		n = binary.BigEndian.Uint64(more[:])
	}
	if err == nil && n > maxFrameRead {
		err = fmt.Errorf("a frame of %d bytes came", n)
	}
	if err != nil {
		return f, err
	}
	f.payload = make([]byte, n)
	_, err = io.ReadFull(s.r, f.payload)
	return f, err
}

// any reads one message, or a control frame. Pings are answered, and returned.
func (s *socket) any() (socketFrame, error) {
	s.wait()
	return s.piece()
}

// piece is any within the time that is left.
func (s *socket) piece() (message socketFrame, err error) {
	for begun := false; ; {
		f, err := s.frame()
		switch {
		case err != nil:
			return f, err
		case f.opcode() == wsPing:
			s.pong(f.payload)
			if !begun {
				return f, nil
			}
		case f.opcode() >= wsClose:
			if !begun || f.opcode() == wsClose {
				return f, nil
			}
		case begun == (f.opcode() != wsRest):
			return f, fmt.Errorf("%w (§5.4): the frames of a message are out of order: %x", errFrame, f.first)
		default:
			message.payload = append(message.payload, f.payload...)
			if message.first |= f.first; f.last() {
				return message, nil
			}
			begun = true
		}
	}
}

// message reads to the next message or close frame.
func (s *socket) message() (socketFrame, error) {
	for s.wait(); ; {
		if f, err := s.piece(); err != nil || f.opcode() <= wsClose {
			return f, err
		}
	}
}

// text returns the next message, which has to be a text.
func (s *socket) text() string {
	f, err := s.message()
	if err != nil {
		s.check.fatalf("%s: no further message came within %s: %v", s.what, s.check.waited(), err)
	}
	if f.opcode() != wsText {
		s.check.fatalf("%s: a frame %x %.100q came, not a text message", s.what, f.first, f.payload)
	}
	return string(f.payload)
}

// A socketEnd is how a WebSocket ended.
type socketEnd struct {
	code   int // 0: without a close frame
	reason string
	last   string // the last text before it
	err    error
}

func (e socketEnd) String() string {
	if e.err != nil {
		return fmt.Sprintf("no close frame (%v)", e.err)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", e.code, e.reason))
}

// end reads to the close frame, answers it, and has the connection end then.
func (s *socket) end() (e socketEnd) {
	s.wait()
	for {
		f, err := s.frame()
		switch {
		case err != nil:
			return socketEnd{err: err, last: e.last}
		case f.opcode() == wsPing:
			s.pong(f.payload)
		case f.opcode() == wsText:
			e.last = string(f.payload)
		case f.first == wsFin|wsClose:
			return s.closed(e, f)
		}
	}
}

func (s *socket) closed(e socketEnd, f socketFrame) socketEnd {
	payload := f.payload
	s.send(wsClose, string(payload))
	if len(payload) == 0 {
		e.code = 1005
		return e
	}
	if len(payload) < 2 || len(payload) > 125 || !utf8.Valid(payload[2:]) {
		e.err = fmt.Errorf("%w (§5.5.1): the close frame holds %q", errFrame, payload)
		return e
	}
	e.code, e.reason = f.closing()
	if rest, err := io.ReadAll(s.r); len(rest) > 0 {
		e.err = fmt.Errorf("%w (§5.5.1): %q came after the close frame", errFrame, rest)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		e.err = fmt.Errorf("%w (§7.1.1): the connection stays open after the close frames", errFrame)
	}
	return e
}

// object is a message's members.
func (s *socket) object() map[string]json.RawMessage {
	text := s.text()
	var o map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &o); err != nil || !utf8.ValidString(text) {
		s.check.fatalf("%s: the message %.200q is no JSON object", s.what, text)
	}
	return o
}

// about reads to the next message that has a member.
func (s *socket) about(member string) (o map[string]json.RawMessage) {
	for began := time.Now(); time.Since(began) < s.check.patience(); {
		if o = s.object(); o[member] != nil {
			return o
		}
	}
	s.check.fatalf("%s: no message with a member %q came within %s", s.what, member, s.check.waited())
	return nil
}
