package wireclient

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// ReadAhead is how many bytes of messages a WSStream reads before they are asked
// for. Browsers do that, too: so a client that is asked for nothing answers
// pings, and one that is given more than it takes does not.
const ReadAhead = 16 << 10

// WS opens a WebSocket; a hello, if there is one, is sent first.
func WS(ctx context.Context, hc *http.Client, target string, h *Hello) (*WSStream, error) {
	c, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{HTTPClient: hc})
	if err != nil {
		if resp != nil && resp.StatusCode >= 400 {
			return nil, refused(resp)
		}
		return nil, err
	}
	c.SetReadLimit(16 << 20)
	s := &WSStream{ctx: ctx, c: c}
	s.changed = sync.NewCond(&s.mu)
	s.mu.Lock() // s.Close may run at once
	s.unbind = context.AfterFunc(ctx, s.Close)
	s.mu.Unlock()
	go s.read()
	if h == nil {
		return s, nil
	}
	if h.Credentials != "" {
		err = s.SendCredentials(h.Credentials)
	}
	if err == nil {
		err = s.Send(h.Frame())
	}
	return s, err
}

// A WSStream is one WebSocket.
type WSStream struct {
	ctx    context.Context
	c      *websocket.Conn
	unbind func() bool

	mu      sync.Mutex
	changed *sync.Cond
	ahead   [][]byte // guarded by mu: messages that nobody asked for yet
	bytes   int      // guarded by mu: of them
	err     error    // guarded by mu: how it ended
	closed  bool     // guarded by mu
}

func (s *WSStream) read() {
	for {
		_, text, err := s.c.Read(s.ctx)
		s.mu.Lock()
		if err != nil {
			s.err = err
			s.changed.Broadcast()
			s.mu.Unlock()
			return
		}
		s.ahead = append(s.ahead, text)
		s.bytes += len(text)
		s.changed.Broadcast()
		for s.bytes > ReadAhead && !s.closed {
			s.changed.Wait()
		}
		s.mu.Unlock()
	}
}

// Send sends a text frame.
func (s *WSStream) Send(frame []byte) error { return s.c.Write(s.ctx, websocket.MessageText, frame) }

// SendCredentials shows who it is (PROTOCOL P6.21).
func (s *WSStream) SendCredentials(text string) error {
	frame, _ := json.Marshal(map[string]string{"credentials": text})
	return s.Send(frame)
}

// Next implements [Stream]. The error of a close frame is that of the library.
func (s *WSStream) Next() (Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ahead) == 0 && s.err == nil {
		s.changed.Wait()
	}
	if len(s.ahead) == 0 {
		return Item{}, s.err
	}
	text := s.ahead[0]
	s.ahead = s.ahead[1:]
	s.bytes -= len(text)
	s.changed.Broadcast()
	return parse(text)
}

// Leave ends the line by a close frame, as programs do that have read enough, and
// waits a few seconds for the server's.
func (s *WSStream) Leave() {
	_ = s.c.Close(websocket.StatusNormalClosure, "")
	s.Close()
}

// Close implements [Stream]. It cuts the connection off, which counts against
// WebSockets if it comes again and again (PROTOCOL P8.5).
func (s *WSStream) Close() {
	s.mu.Lock()
	s.unbind()
	s.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	_ = s.c.CloseNow()
}
