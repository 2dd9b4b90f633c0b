package longpoll

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A codec writes JSON objects, joined by commas.
type codec struct{}

func (codec) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return transport.AppendEventJSON(dst, channel, e)
}

func (codec) AppendFrame(dst []byte, f *transport.Frame) []byte {
	if f.Kind == transport.FrameOpening {
		return dst // positions have a member of their own
	}
	return transport.AppendFrameJSON(dst, f)
}

// A conn collects one answer. The handler writes it once Done has closed, so
// no lock guards what Send owns.
type conn struct {
	// Static.
	session bool
	mayHold bool
	spent   chan struct{} // closes when there is an answer

	// Owned by Send, then by the handler.
	open, goodbye *transport.Frame
	refresh       *transport.Frame
	positions     []position
	runs          []*transport.Run // that have events
	gaps, ends    [][]byte
	presence      [][]byte

	mu     sync.Mutex
	closed bool // guarded by mu
}

type position struct {
	channel string
	at      eventlog.Position
}

var _ transport.Conn = (*conn)(nil)

// Send implements [transport.Conn]. What holds nothing but openings is held back
// if the client asked to wait for news.
func (c *conn) Send(items []transport.Item, _ time.Time) (more bool, err error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return false, transport.ErrClosed
	}
	news := false
	for _, item := range items {
		if item.Run != nil {
			c.addRun(item.Run)
			news = true
		} else {
			c.addFrame(item.Frame)
			news = news || !item.Frame.MayWait()
		}
	}
	if c.mayHold && !news {
		return true, nil
	}
	close(c.spent)
	return false, nil
}

func (c *conn) addRun(run *transport.Run) {
	if len(run.Events) > 0 {
		c.runs = append(c.runs, run)
	}
	c.move(run.Channel.Name, run.Next)
}

func (c *conn) addFrame(f *transport.Frame) {
	switch f.Kind {
	case transport.FrameOpen:
		c.open = f
	case transport.FrameOpening:
		c.move(f.Channel, f.At)
	case transport.FrameGap:
		c.gaps = append(c.gaps, f.As(codec{}))
		c.move(f.Channel, f.Lost.To)
	case transport.FrameEnd:
		c.ends = append(c.ends, f.As(codec{}))
		c.positions = slices.DeleteFunc(c.positions, func(p position) bool { return p.channel == f.Channel })
	case transport.FramePresence:
		if f.Presence.Seen { // P10.3: it would be told again with every answer
			return
		}
		c.presence = append(c.presence, f.As(codec{}))
	case transport.FrameRefresh:
		c.refresh = f
	case transport.FrameClose:
		c.goodbye = f
	}
}

func (c *conn) move(channel string, at eventlog.Position) {
	for i := range c.positions {
		if c.positions[i].channel == channel {
			c.positions[i].at = at
			return
		}
	}
	c.positions = append(c.positions, position{channel, at})
}

// answer is the body of the response (PROTOCOL P5.3, P6.4).
func (c *conn) answer() []byte {
	b := c.appendHead(make([]byte, 0, 256+c.size()))
	for i, run := range c.runs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, run.As(codec{}).Bytes...)
	}
	return c.appendTail(b)
}

// compressed is the same as gzip: what all get who poll from the same position is
// compressed once, and what is this client's own is not.
func (c *conn) compressed() []byte {
	z := transport.NewGzip()
	z.Append(c.appendHead(nil))
	for i, run := range c.runs {
		if i > 0 {
			z.Append([]byte{','})
		}
		z.AppendRun(run, codec{})
	}
	z.Append(c.appendTail(nil))
	return z.End()
}

// compresses reports whether there is something that may be compressed.
func (c *conn) compresses() bool {
	return slices.ContainsFunc(c.runs, func(run *transport.Run) bool { return !run.Secret })
}

// size is how many bytes the events take.
func (c *conn) size() (n int) {
	for _, run := range c.runs {
		n += len(run.As(codec{}).Bytes) + 1
	}
	return n
}

// appendHead appends what comes before the events.
func (c *conn) appendHead(b []byte) []byte {
	b = append(b, '{')
	if c.open != nil {
		b = appendMember(b, c.open)
	}
	if c.refresh != nil {
		b = appendMember(b, c.refresh)
	}
	return append(b, `"events":[`...)
}

// appendTail appends what comes after them.
func (c *conn) appendTail(b []byte) []byte {
	b = append(b, `],"positions":{`...)
	for i, p := range c.positions {
		if i > 0 {
			b = append(b, ',')
		}
		b = transport.AppendStringJSON(b, p.channel)
		b = append(b, `:"`...)
		b = p.at.Append(b)
		b = append(b, '"')
	}
	b = append(b, '}')
	b = appendList(b, `,"gaps":[`, c.gaps)
	if len(c.ends) > 0 {
		b = appendList(b, `,"ends":[`, c.ends)
	}
	if len(c.presence) > 0 {
		b = appendList(b, `,"presence":[`, c.presence)
	}
	if c.goodbye != nil && c.session {
		b = append(b, ',')
		b = appendMember(b, c.goodbye)
		b = b[:len(b)-1]
	}
	return append(b, "}\n"...)
}

// appendMember appends a frame that is an object of one member as that member,
// and a comma.
func appendMember(b []byte, f *transport.Frame) []byte {
	object := transport.AppendFrameJSON(nil, f)
	b = append(b, object[1:len(object)-1]...)
	return append(b, ',')
}

func appendList(b []byte, begin string, objects [][]byte) []byte {
	b = append(b, begin...)
	b = append(b, bytes.Join(objects, []byte{','})...)
	return append(b, ']')
}

// Close implements [transport.Conn]. Send never blocks, so there is nothing to
// free.
func (c *conn) Close(transport.Reason) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
}
