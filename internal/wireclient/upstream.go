package wireclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An Up is a frame of a client's, as PROTOCOL §9 has it: exactly one of Publish,
// Call and Close is set, and Head if it goes by request.
type Up struct {
	Head    *Head       `json:"up,omitempty"`
	Publish *Publish    `json:"publish,omitempty"`
	Call    *Call       `json:"call,omitempty"`
	Close   *ClientDone `json:"close,omitempty"`
}

// Head, Publish, PublishFrame, Message, Call and ClientDone are the objects of
// P9.1, P9.2, P9.9 and P6.20; Outcome and Reply what answers them (P9.4, P9.9).
type (
	Head struct {
		Version int    `json:"version"`
		Token   string `json:"token"`
	}
	Publish struct {
		Producer string         `json:"producer"`
		Frames   []PublishFrame `json:"frames"`
	}
	PublishFrame struct {
		Seq      uint64    `json:"seq"`
		Channel  string    `json:"channel"`
		Messages []Message `json:"messages"`
		Repeat   bool      `json:"repeat,omitempty"`
	}
	Message struct {
		Type     string          `json:"type,omitempty"`
		Data     json.RawMessage `json:"data"`
		Encoding string          `json:"encoding,omitempty"`
	}
	Call struct {
		ID       uint64          `json:"id"`
		Name     string          `json:"name"`
		Data     json.RawMessage `json:"data"`
		Encoding string          `json:"encoding,omitempty"`
		Key      string          `json:"key,omitempty"`
	}
	ClientDone struct {
		Line uint64 `json:"line,omitempty"`
	}
	Outcome struct {
		Seq              uint64
		Position         string
		Duplicate, Tried bool
		Error, Retry     *Reason
	}
	Reply struct {
		ID       uint64
		Data     json.RawMessage
		Encoding string
		Error    *Reason

		// Of history.
		Events            []json.RawMessage
		Next, First, Head string
		Done              bool
		Gap               *Gap
	}
)

// An Ask takes a frame to a server, over whatever carrier, and returns what
// answers it. Its error is a *Refused if the server refused to work on the frame,
// ErrUnsent if it never left; any other means that no answer will come.
type Ask func(ctx context.Context, up Up) (Item, error)

// ErrUnsent is the error of an Ask that reached nobody.
var ErrUnsent = errors.New("wireclient: nothing was sent")

var errNoAnswer = errors.New("wireclient: the line ended before the answer")

// Post takes a frame up by a request (P9.1).
func Post(ctx context.Context, hc *http.Client, base, token string, up Up) (Item, error) {
	up.Head = &Head{Version: 1, Token: token}
	body, err := json.Marshal(up)
	if err != nil {
		return Item{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/up", bytes.NewReader(body))
	if err != nil {
		return Item{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := hc.Do(req)
	if err != nil {
		return Item{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return Item{}, refused(resp)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return Item{}, err
	}
	return parse(text)
}

// A Duplex is a WebSocket that is read by a goroutine of its own, so that one can
// ask over it while events come.
type Duplex struct {
	stream *WSStream
	done   chan struct{}

	mu        sync.Mutex
	published chan Item            // guarded by mu: of the batch under way
	answers   map[uint64]chan Item // guarded by mu: of the calls under way
}

// NewDuplex reads a stream until it ends. received gets all that answers nothing.
func NewDuplex(s *WSStream, received func(Item)) *Duplex {
	d := &Duplex{stream: s, done: make(chan struct{}), answers: make(map[uint64]chan Item)}
	go d.read(received)
	return d
}

func (d *Duplex) read(received func(Item)) {
	defer close(d.done)
	defer d.stream.Close()
	for {
		it, err := d.stream.Next()
		if err != nil {
			return
		}
		if waiting := d.answered(it); waiting != nil {
			waiting <- it
		} else {
			received(it)
		}
	}
}

// answered returns who waits for an item.
func (d *Duplex) answered(it Item) (waiting chan Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case it.Published != nil:
		waiting, d.published = d.published, nil
	case it.Reply != nil:
		waiting = d.answers[it.Reply.ID]
		delete(d.answers, it.Reply.ID)
	}
	return waiting
}

// Ask is an [Ask]. A batch that isn't answered in time ends the line, as P9.3
// allows no second one on it.
func (d *Duplex) Ask(ctx context.Context, up Up) (Item, error) {
	answer := make(chan Item, 1)
	d.mu.Lock()
	if up.Publish != nil {
		d.published = answer
	} else {
		d.answers[up.Call.ID] = answer
	}
	d.mu.Unlock()
	text, err := json.Marshal(up)
	if err != nil {
		return Item{}, err
	}
	select {
	case <-d.done:
		return Item{}, ErrUnsent
	default:
	}
	if err := d.stream.Send(text); err != nil {
		return Item{}, err
	}
	select {
	case it := <-answer:
		return it, nil
	case <-ctx.Done():
		if up.Publish != nil {
			d.Close()
		}
		return Item{}, ctx.Err()
	case <-d.done:
	}
	select {
	case it := <-answer: // the last thing it said
		return it, nil
	default:
		return Item{}, errNoAnswer
	}
}

// Done closes when nothing more will come.
func (d *Duplex) Done() <-chan struct{} { return d.done }

// Close ends the line.
func (d *Duplex) Close() { d.stream.Close() }

// Bounds of the outbox: of a batch, and of what it waits for.
const (
	batchFrames = 4
	firstPause  = 200 * time.Millisecond
	longPause   = 5 * time.Second
)

// A Publication is one publish frame on its way. What follows Frame may be read
// when Done is closed.
type Publication struct {
	Frame PublishFrame // its number is given when it is first sent
	First time.Time    // when it was first sent

	Position  string // it was appended
	Duplicate bool
	Refused   *Reason // it was not, or it is unknown whether it was
	GaveUp    bool    // it is unknown because the outbox says so (P9.6)
	Ended     time.Time

	done chan struct{}
}

// Done closes when it is known what became of the publication.
func (p *Publication) Done() <-chan struct{} { return p.done }

// An Outbox publishes as P9.2 to P9.7 say: once, and in order.
type Outbox struct {
	producer   string
	ask        Ask
	remembered time.Duration
	timeout    time.Duration
	fault      func(format string, args ...any)

	wake chan struct{}

	mu    sync.Mutex
	queue []*Publication // guarded by mu

	// Owned by Run.
	batch   []*Publication
	number  uint64
	attempt int
}

// NewOutbox returns the outbox of a producer. remembered is that of the open,
// timeout how long an answer is waited for; fault is told of answers that are
// against the protocol.
func NewOutbox(producer string, ask Ask, remembered, timeout time.Duration, fault func(format string, args ...any)) *Outbox {
	return &Outbox{producer: producer, ask: ask, remembered: remembered, timeout: timeout, fault: fault, wake: make(chan struct{}, 1)}
}

// Publish has messages published, after those before.
func (o *Outbox) Publish(channel string, messages ...Message) *Publication {
	p := &Publication{Frame: PublishFrame{Channel: channel, Messages: messages}, done: make(chan struct{})}
	o.mu.Lock()
	o.queue = append(o.queue, p)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return p
}

// Run publishes until its context ends.
func (o *Outbox) Run(ctx context.Context) {
	for ctx.Err() == nil {
		o.giveUp()
		if len(o.batch) == 0 {
			o.pack()
		}
		if len(o.batch) == 0 {
			select {
			case <-o.wake:
			case <-ctx.Done():
			}
			continue
		}
		if after, again := o.send(ctx); again {
			o.attempt++
			pause(ctx, after+min(longPause, firstPause<<min(o.attempt, 10)))
		} else {
			o.attempt = 0
		}
	}
}

// giveUp calls what can't be repeated any more unknown (P9.6).
func (o *Outbox) giveUp() {
	for _, p := range o.batch {
		if time.Since(p.First) > o.remembered*9/10 && !p.First.IsZero() {
			p.GaveUp = true
			o.settle(p, &Reason{Code: "unknown", Class: "never", Message: "no answer in time"})
		}
	}
	o.clear()
}

// pack makes a batch of what waits first, each channel once (P9.2).
func (o *Outbox) pack() {
	o.mu.Lock()
	defer o.mu.Unlock()
	named := map[string]bool{}
	for len(o.queue) > 0 && len(o.batch) < batchFrames && !named[o.queue[0].Frame.Channel] {
		p := o.queue[0]
		o.queue = o.queue[1:]
		named[p.Frame.Channel] = true
		o.number++
		p.Frame.Seq = o.number
		o.batch = append(o.batch, p)
	}
}

// send sends the batch, and reports whether something of it is to be sent again.
func (o *Outbox) send(ctx context.Context) (after time.Duration, again bool) {
	up := Up{Publish: &Publish{Producer: o.producer}}
	for _, p := range o.batch {
		up.Publish.Frames = append(up.Publish.Frames, p.Frame)
		if p.First.IsZero() {
			p.First = time.Now()
		}
	}
	answering, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	it, err := o.ask(answering, up)
	refused, ok := errors.AsType[*Refused](err)
	switch {
	case err == nil:
		return o.read(it.Published)
	case errors.Is(err, ErrUnsent):
		return 0, true
	case ok && refused.Class == "never":
		for _, p := range o.batch {
			o.settle(p, whatIsKnown(p, refused.Reason))
		}
		o.clear()
		return 0, false
	case ok && refused.Class != "":
		return time.Duration(refused.After) * time.Millisecond, true // nothing was done
	}
	for _, p := range o.batch {
		p.Frame.Repeat = true
	}
	return 0, true
}

// whatIsKnown is what a refusal of all that a request brought says of one frame.
func whatIsKnown(p *Publication, why Reason) *Reason {
	if p.Frame.Repeat {
		return &Reason{Code: "unknown", Class: "never", Message: why.Code}
	}
	return &why
}

// read reads the answer to the batch (P9.4, P9.5).
func (o *Outbox) read(outcomes []Outcome) (after time.Duration, again bool) {
	defer o.clear()
	for i, got := range outcomes {
		if i >= len(o.batch) || got.Seq != o.batch[i].Frame.Seq {
			o.fault("P9.4: the answer %+v is not to the batch", outcomes)
			return 0, true
		}
		p := o.batch[i]
		switch {
		case got.Retry != nil:
			if i != len(outcomes)-1 {
				o.fault("P9.5: the answer goes on after a retry: %+v", outcomes)
			}
			p.Frame.Repeat = p.Frame.Repeat || got.Tried
			return time.Duration(got.Retry.After) * time.Millisecond, true
		case got.Error == nil && got.Position == "":
			o.fault("P9.4: %+v says nothing", got)
		default:
			p.Position, p.Duplicate = got.Position, got.Duplicate
			o.settle(p, got.Error)
		}
	}
	if len(outcomes) < len(o.batch) {
		o.fault("P9.4: %d frames were answered with %+v, and none of it is a retry", len(o.batch), outcomes)
	}
	return 0, len(outcomes) < len(o.batch)
}

func (o *Outbox) settle(p *Publication, refused *Reason) {
	p.Refused, p.Ended = refused, time.Now()
	close(p.done)
}

// clear takes out of the batch what is settled.
func (o *Outbox) clear() {
	rest := o.batch[:0]
	for _, p := range o.batch {
		select {
		case <-p.done:
		default:
			rest = append(rest, p)
		}
	}
	o.batch = rest
}

// A Called is what became of a call: a value, or why there is none.
type Called struct {
	Value json.RawMessage
	Error *Reason
	Lost  bool // it is unknown because no answer came
}

// CallOnce calls, and says unknown if no answer comes (P9.10).
func CallOnce(ctx context.Context, ask Ask, c Call) Called {
	it, err := ask(ctx, Up{Call: &c})
	refused, ok := errors.AsType[*Refused](err)
	switch {
	case err == nil && it.Reply != nil:
		return Called{Value: it.Reply.Data, Error: it.Reply.Error}
	case errors.Is(err, ErrUnsent):
		return Called{Error: &Reason{Code: "unsent", Class: "later"}}
	case ok && refused.Code != "":
		return Called{Error: &refused.Reason}
	}
	return Called{Error: &Reason{Code: "unknown", Class: "never"}, Lost: true}
}

// CallRepeatedly calls until there is an answer, with the call's key (P9.11).
// timeout is that of each attempt.
func CallRepeatedly(ctx context.Context, ask Ask, c Call, timeout time.Duration) Called {
	for attempt := 0; ; attempt++ {
		c.ID++ // another call may wait by the id that nobody heard of again
		once, cancel := context.WithTimeout(ctx, timeout)
		got := CallOnce(once, ask, c)
		cancel()
		if ctx.Err() != nil || !got.Lost && (got.Error == nil || got.Error.Class == "never") {
			return got
		}
		wait := firstPause << min(attempt, 4)
		if got.Error != nil {
			wait += time.Duration(got.Error.After) * time.Millisecond
		}
		pause(ctx, wait)
	}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Say returns a message of JSON.
func Say(json string) Message { return Message{Data: []byte(json)} }

// Producer makes a name that is long enough out of a short one.
func Producer(name string) string { return name + strings.Repeat("-", max(0, 22-len(name))) }
