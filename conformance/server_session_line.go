package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// A sessionLine is a line of the session protocol that has begun.
type sessionLine struct {
	*reading
	hello  wireclient.Hello // what it began with; of polls, the last
	opened wireclient.Open
	token  string               // of its session
	ws     *wireclient.WSStream // nil elsewhere
}

// helloOf asks for channels from now on.
func helloOf(line uint64, channels ...string) wireclient.Hello {
	h := wireclient.HelloFor("", channels...)
	h.Line = line
	return h
}

// line begins a line of the clause's form, which has to be accepted.
func (c *serverCheck) line(h wireclient.Hello) *sessionLine {
	return c.lineOver(c.form, c.site, c.http, h)
}

// lineOver is line over a form, at a server, as a client.
func (c *serverCheck) lineOver(f form, s *site, hc *http.Client, h wireclient.Hello) *sessionLine {
	l, err := c.tryLine(f, s, hc, h)
	if err != nil {
		c.fatalf("%s: a hello was not accepted: %v", f.name, err)
	}
	return l
}

// tryLine begins a line. The error is a *wireclient.Refused if it was refused.
func (c *serverCheck) tryLine(f form, s *site, hc *http.Client, h wireclient.Hello) (*sessionLine, error) {
	if h.Version == 0 {
		h.Version = 1
	}
	l := &sessionLine{reading: &reading{check: c, form: f, asked: string(h.Frame())}, hello: h, token: h.Token}
	var err error
	switch f.carrier {
	case "sse":
		var stream *wireclient.SSEStream
		if stream, err = wireclient.SSESession(c.ctx, hc, s.base+"/sse", h); err == nil {
			l.stream = stream
		}
	case "ws":
		if l.ws, err = wireclient.WS(c.ctx, hc, s.base+"/ws", &h); err == nil {
			l.stream = l.ws
		}
	default:
		return l, l.poll(s, hc)
	}
	if err != nil {
		return nil, err
	}
	c.atEnd(l.stream.Close)
	it, err := l.take()
	switch {
	case err != nil:
		return nil, err
	case it.Close != nil:
		l.stream.Close()
		return nil, &wireclient.Refused{Reason: *it.Close}
	case it.Open == nil:
		return nil, fmt.Errorf("%s came in place of the open", inWords(it))
	}
	l.open(it.Open)
	return l, nil
}

func (l *sessionLine) open(o *wireclient.Open) {
	l.opened = *o
	if o.Token != "" {
		l.token = o.Token
	}
}

// poll makes the line a loop of polls, and asks for the first time. Channels that
// ended are left out of the next request, those that the server named are in it.
func (l *sessionLine) poll(s *site, hc *http.Client) error {
	c := l.check
	first, err := wireclient.SessionPoll(c.ctx, hc, s.base+"/poll", l.hello)
	if err != nil {
		return err
	}
	if first.Open == nil {
		return errors.New("the answer to a poll has no open")
	}
	l.open(first.Open)
	l.goOn(first)
	stream := wireclient.NewPollStream(c.ctx, func(ctx context.Context, _ map[string]string) (*wireclient.Answer, error) {
		if a := first; a != nil {
			first = nil
			return a, nil
		}
		a, err := wireclient.SessionPoll(ctx, hc, s.base+"/poll?wait=25s", l.hello)
		if err == nil {
			l.goOn(a)
		}
		return a, err
	})
	l.stream = stream
	c.atEnd(stream.Close)
	return nil
}

// goOn has the next poll begin where an answer ended.
func (l *sessionLine) goOn(a *wireclient.Answer) {
	l.hello.Token = l.token
	var channels []wireclient.Channel
	for _, ch := range l.hello.Channels {
		if at, ok := a.Positions[ch.Channel]; ok {
			ch.After = at
		}
		ended := func(it wireclient.Item) bool {
			return it.Channel == ch.Channel && it.End != nil && it.End.Code != "paused"
		}
		if !slices.ContainsFunc(a.Items, ended) {
			channels = append(channels, ch)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Positions)) {
		if !slices.ContainsFunc(channels, func(ch wireclient.Channel) bool { return ch.Channel == name }) {
			channels = append(channels, wireclient.Channel{Channel: name, After: a.Positions[name]})
		}
	}
	l.hello.Channels = channels
}

// stop has the client stop reading, without a word.
func (l *sessionLine) stop() {
	l.stream.Close()
	l.check.settle()
}

// goodbye reads to the last frame of a line, which has to have a code and
// a class, and has nothing follow it.
func (l *sessionLine) goodbye(code, class string) wireclient.Reason {
	c := l.check
	var last wireclient.Reason
	for began := time.Now(); last.Code == ""; {
		it, err := l.take()
		if err == nil && time.Since(began) > c.patience() {
			err = errors.New("it goes on")
		}
		if err != nil {
			l.expecting("the goodbye %q", code).broke(err)
		}
		if it.Close != nil {
			last = *it.Close
		}
	}
	if last.Code != code || last.Class != class {
		c.fatalf("%s: it ended with %q, class %q, not with %q, class %q", l.form.name, last.Code, last.Class, code, class)
	}
	if l.form.carrier == "poll" {
		return last
	}
	if it, err := l.take(); err == nil {
		c.fatalf("%s: %s came after the goodbye", l.form.name, inWords(it))
	}
	return last
}

// ended takes the next thing, which has to be the end of a channel.
func (l *sessionLine) ended(channel, code, class string) {
	it := l.expecting("the end %q of %q", code, channel).next()
	if it.End == nil || it.Channel != channel || it.End.Code != code || it.End.Class != class {
		l.check.fatalf("%s: %s came, not the end of %q with %q, class %q", l.form.name, whole(it), channel, code, class)
	}
}

// opens takes the next thing, which has to be the opening of a channel, and
// returns where. Polls show no opening of a position that was presented.
func (l *sessionLine) opens(channel, after string) (position string) {
	if l.form.carrier == "poll" && after != "" {
		return after
	}
	it := l.expecting("the opening of %q at %q", channel, after).next()
	if !it.Opening || it.Channel != channel || after != "" && it.Position != after {
		l.check.fatalf("%s: %s came, not the opening of %q at %q", l.form.name, whole(it), channel, after)
	}
	return it.Position
}

// eventOf takes the next thing, which has to be an event of a channel.
func (l *sessionLine) eventOf(channel, position, data string) {
	it := l.expecting("the event %.60s of %q at %q", data, channel, position).next()
	if !it.Event || it.Channel != channel || it.Position != position || string(it.Data) != data {
		l.check.fatalf("%s: %s came, not the event %s of %q at %q", l.form.name, whole(it), data, channel, position)
	}
}

// still has a line be alive: what is published in a channel of it comes next.
func (l *sessionLine) still(channel, data string) (position string) {
	position = l.check.publish(channel, data)
	l.eventOf(channel, position, data)
	return position
}

// whole says what came, and in which channel.
func whole(it wireclient.Item) string {
	words := inWords(it)
	switch {
	case it.End != nil:
		words += fmt.Sprintf(", class %q", it.End.Class)
	case it.Event, it.Gap != nil:
		words += fmt.Sprintf(" of %q", it.Channel)
	}
	return words
}

// as is a client that says who it is with each request (ServerSetup.Subjects).
func (s *site) as(name string) *http.Client {
	return &http.Client{Transport: bearer{s.http.Transport, name}}
}

type bearer struct {
	next http.RoundTripper
	name string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.name)
	return b.next.RoundTrip(r)
}

// A reply is what a first frame is answered with: an open, or a refusal.
type reply struct {
	status  int // over HTTP
	open    wireclient.Open
	members map[string]json.RawMessage // of the open
	refused *wireclient.Reason
}

// replyTo sends a text as the first frame of a line, as it is, over the clause's
// form, and returns what comes first.
func (c *serverCheck) replyTo(text string, headers ...string) reply {
	if c.form.carrier == "ws" {
		return c.socketReply(text)
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.patience())
	defer cancel()
	r := c.begin(ctx, c.http, "/"+c.form.carrier, text, headers...)
	defer r.Body.Close()
	got := reply{status: r.StatusCode}
	var body []byte
	var err error
	if r.StatusCode == http.StatusOK && c.form.carrier == "sse" {
		var block wireclient.Block
		block, err = wireclient.NewParser(r.Body).Next()
		body = []byte(block.Data)
	} else {
		body, err = io.ReadAll(r.Body)
	}
	if err != nil {
		c.fatalf("%.80q was answered with %d and then: %v", text, r.StatusCode, err)
	}
	c.fill(&got, text, body)
	return got
}

func (c *serverCheck) socketReply(text string) (got reply) {
	s := c.socket("/ws")
	defer func() { _ = s.conn.Close() }()
	s.say(text)
	f, err := s.message()
	if err != nil {
		c.fatalf("%.80q was answered with nothing: %v", text, err)
	}
	if f.opcode() == wsClose {
		c.fatalf("%.80q was answered with the close frame %q and no word before it", text, f.payload)
	}
	c.fill(&got, text, f.payload)
	return got
}

// fill reads the first frame, or the body of a refusal or of a poll's answer.
func (c *serverCheck) fill(got *reply, text string, body []byte) {
	var frame struct {
		Open         json.RawMessage
		Close, Error *wireclient.Reason
	}
	if err := json.Unmarshal(body, &frame); err != nil {
		c.fatalf("%.80q was answered with %.80q, which is no JSON: %v", text, body, err)
	}
	switch {
	case frame.Error != nil:
		got.refused = frame.Error
	case frame.Open != nil:
		if err := errors.Join(json.Unmarshal(frame.Open, &got.open), json.Unmarshal(frame.Open, &got.members)); err != nil {
			c.fatalf("the open %.80q can't be read: %v", frame.Open, err)
		}
	case frame.Close != nil:
		got.refused = frame.Close
	default:
		c.fatalf("%.80q was answered with %.80q, neither an open nor a refusal", text, body)
	}
}

// replyRefused sends a first frame that has to be refused, and checks with what.
// The status is that of the code, over HTTP.
func (c *serverCheck) replyRefused(text string, status int, code string) (why wireclient.Reason) {
	got := c.replyTo(text)
	switch {
	case got.refused == nil:
		c.errorf("%s: %.80q (%d bytes) was not refused with %q, but began a line", c.form.name, text, len(text), code)
		return why
	case got.refused.Code != code || got.refused.Class != "never":
		c.errorf("%s: %.80q was refused with %q, class %q, not with %q, class \"never\"", c.form.name, text, got.refused.Code, got.refused.Class, code)
	case c.form.carrier != "ws" && got.status != status:
		c.errorf("%s: %.80q was refused with the status %d, not with %d", c.form.name, text, got.status, status)
	}
	return *got.refused
}
