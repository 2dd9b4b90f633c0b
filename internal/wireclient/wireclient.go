// Package wireclient reads what the carriers send, for tests: each carrier
// plainly and by the session protocol, one line at a time. It knows
// PROTOCOL.md and nothing of the server.
package wireclient

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// An Item is one thing that came: exactly one of Open, Event, Opening, Gap,
// End, Beat, Close, Presence, Refresh, Published and Reply says what it is.
type Item struct {
	Channel  string
	Position string // of an event or opening
	Type     string
	Data     []byte // of an event: the payload as published
	JSON     bool   // Data is the payload as JSON: a text is a JSON string
	Gap      *Gap
	End      *Reason
	Close    *Reason
	Open     *Open
	Presence *Presence
	Refresh  *Refresh
	Event    bool
	Opening  bool
	Beat     bool

	Published []Outcome // what answers a batch
	Reply     *Reply    // what answers a call
}

// Gap, Reason and Open are the objects of PROTOCOL §§2, 8, 6.
type (
	Gap    struct{ From, To, Reason string }
	Reason struct {
		Code, Class, Message string
		After                int64
		Versions             []int
		Instead              []string // transports, with broken_carrier
	}
	Open struct {
		Version    int
		Line       uint64
		Heartbeat  int64
		Remembered int64
		Limit      int64
		Token      string
	}
	// Refresh is the object of P6.22.
	Refresh struct{ Left int64 }
	// Presence is the object of §10.
	Presence struct {
		Version         string
		Total           int
		Members, Joined []Member
		Left            []string
		End             *Reason
	}
	// Member is a session that is present.
	Member struct {
		ID, Subject string
		Info        json.RawMessage
	}
)

// A Hello is what a session's line begins with.
type Hello struct {
	Version  int       `json:"version"`
	Token    string    `json:"token"`
	Line     uint64    `json:"line"`
	Probe    bool      `json:"probe,omitempty"`
	Channels []Channel `json:"channels,omitempty"`
	Presence []Watch   `json:"presence,omitempty"`

	// Credentials go in a frame before it, on a WebSocket.
	Credentials string `json:"-"`
}

// A Watch asks for a channel's presence.
type Watch struct {
	Channel string `json:"channel"`
	Seen    string `json:"seen,omitempty"`
}

// A Channel is one that a hello asks for.
type Channel struct {
	Channel string `json:"channel"`
	After   string `json:"after,omitempty"`
	Paused  bool   `json:"paused,omitempty"`
	Filter  any    `json:"filter,omitempty"`
}

// Frame returns the hello as it crosses the wire.
func (h Hello) Frame() []byte {
	b, _ := json.Marshal(map[string]Hello{"hello": h})
	return b
}

// HelloFor asks for channels after a position.
func HelloFor(after string, channels ...string) Hello {
	h := Hello{Version: 1, Line: 1}
	for _, name := range channels {
		h.Channels = append(h.Channels, Channel{Channel: name, After: after})
	}
	return h
}

// A Stream is one line.
type Stream interface {
	// Next returns the next item. io.EOF is an end in good order.
	Next() (Item, error)
	Close()
}

// A Refused is the error of a request that was answered with a refusal.
type Refused struct {
	Status int
	Header http.Header
	Reason
}

func (r *Refused) Error() string {
	return fmt.Sprintf("refused: %d %s: %s", r.Status, r.Code, r.Message)
}

func refused(r *http.Response) error {
	defer r.Body.Close()
	var body struct{ Error Reason }
	text, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(text, &body)
	return &Refused{r.StatusCode, r.Header, body.Error}
}

// object is any JSON object of the protocol.
type object struct {
	Channel, Position, Type, Encoding string
	Data                              json.RawMessage
	Gap                               *Gap
	End, Close                        *Reason
	Open                              *Open
	Presence                          *Presence
	Refresh                           *Refresh
	Published                         []Outcome
	Answer                            *Reply
}

func (o *object) item() (Item, error) {
	it := Item{Channel: o.Channel, Position: o.Position, Type: o.Type, Gap: o.Gap, End: o.End, Close: o.Close, Open: o.Open, Presence: o.Presence}
	it.Published, it.Reply, it.Refresh = o.Published, o.Answer, o.Refresh
	switch {
	case o.Published != nil, o.Answer != nil:
	case o.Data != nil:
		it.Event = true
		it.Data, it.JSON = o.Data, o.Encoding == ""
		if o.Encoding == "base64" {
			var text string
			if err := json.Unmarshal(o.Data, &text); err != nil {
				return it, err
			}
			var err error
			it.Data, err = base64.StdEncoding.DecodeString(text)
			return it, err
		}
	case o.Position != "":
		it.Opening = true
	case o.Gap == nil && o.End == nil && o.Close == nil && o.Open == nil && o.Presence == nil && o.Refresh == nil:
		it.Beat = true
	}
	return it, nil
}

func parse(text []byte) (Item, error) {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return Item{}, fmt.Errorf("not a frame: %w: %.200q", err, text)
	}
	return o.item()
}

// Query returns a plain request's query.
func Query(after string, channels ...string) string {
	q := url.Values{"channel": channels}
	if after != "" {
		q.Set("after", after)
	}
	return "?" + q.Encode()
}

// SSE opens a plain stream. The items have positions as their blocks' ids.
func SSE(ctx context.Context, hc *http.Client, target, lastEventID string) (*SSEStream, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	return openSSE(hc, req, false)
}

// SSESession opens a stream of the session protocol.
func SSESession(ctx context.Context, hc *http.Client, target string, h Hello) (*SSEStream, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(h.Frame()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return openSSE(hc, req, true)
}

func openSSE(hc *http.Client, req *http.Request, session bool) (*SSEStream, error) {
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp)
	}
	return &SSEStream{Parser: NewParser(resp.Body), Header: resp.Header, body: resp.Body, session: session, object: req.URL.Query().Get("as") == "event"}, nil
}

// An SSEStream is one response.
type SSEStream struct {
	*Parser
	Header http.Header
	// Retry is when to come back after the end, as far as Next was told.
	Retry   time.Duration
	body    io.Closer
	session bool
	object  bool // as=event
}

// Next implements [Stream].
func (s *SSEStream) Next() (Item, error) {
	block, err := s.Parser.Next()
	if err != nil {
		return Item{}, err
	}
	if ms, err := strconv.Atoi(block.Retry); err == nil {
		s.Retry = time.Duration(ms) * time.Millisecond
	}
	switch {
	case s.session:
		return parse([]byte(block.Data))
	case block.Event == "throughline.gap", s.object && block.HasData:
		return parse([]byte(block.Data))
	case block.Comment, !block.HasData && !block.HasID: // a retry alone says when to come back, and not where
		return Item{Beat: true}, nil
	case !block.HasData:
		return Item{Opening: true, Position: block.ID}, nil
	}
	it := Item{Event: true, Position: block.ID, Type: block.Event, Data: []byte(block.Data)}
	if encoded, ok := strings.CutPrefix(block.Data, "data:;base64,"); ok {
		it.Data, err = base64.StdEncoding.DecodeString(encoded)
	}
	return it, err
}

// Close implements [Stream].
func (s *SSEStream) Close() { _ = s.body.Close() }
