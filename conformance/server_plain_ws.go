package conformance

import (
	"regexp"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// oneChannel is for WebSockets and polls.
func (c *serverCheck) oneChannel() {
	path := "/" + c.form.carrier + wireclient.Query("", "a", "b")
	r := c.ask(c.http, "GET", path, "", wsHandshake...)
	if reason := c.refusedInWords(path, r, 400, "too_many_channels", "never"); !strings.Contains(reason.Message, "session protocol") {
		c.errorf("%s: the refusal says %q, and nothing of the session protocol", path, reason.Message)
	}
}

func (c *serverCheck) oneTextMessageEach() {
	at := c.publishMany("room", 1, 3)
	s := c.socket("/ws" + wireclient.Query(at[1], "room"))
	if it := c.parseObject(s.text()); !it.Opening || it.Channel != "room" || it.Position != at[1] {
		c.fatalf("a WebSocket after %q begins with %s of %q, not with its opening", at[1], inWords(it), it.Channel)
	}
	if it := c.parseObject(s.text()); !it.Event || it.Position != at[2] {
		c.fatalf("after its opening, %s came, not the event at %q", inWords(it), at[2])
	}
	for _, m := range []eventlog.Message{{Data: []byte("[1,\n2]")}, {Kind: eventlog.Text, Data: []byte("a\nb")}, {Kind: eventlog.Binary, Data: []byte{1, 2}}, {Kind: eventlog.Text, Data: []byte(strings.Repeat("long ", 40_000))}} {
		position := c.publishMessage("room", m)
		if it := c.parseObject(s.text()); !it.Event || it.Position != position || differs(it, m, false) != "" {
			c.errorf("%s came, not the %v %.20q at %q", inWords(it), m.Kind, m.Data, position)
		}
	}
	more := c.publishMany("room", 4, 13)
	held := c.firstHeld("room", append([]string{at[1]}, more...)) - 1
	s = c.socket("/ws" + wireclient.Query(at[1], "room"))
	if it := c.parseObject(s.text()); it.Gap == nil || it.Channel != "room" || *it.Gap != (wireclient.Gap{From: at[1], To: more[held-1], Reason: "trimmed"}) {
		c.fatalf("%s came, not a gap \"trimmed\" from %q to %q in place of the opening", inWords(it), at[1], more[held-1])
	}
	for _, position := range more[held:] {
		if it := c.parseObject(s.text()); !it.Event || it.Position != position {
			c.errorf("after the gap %s came, not the event at %q", inWords(it), position)
		}
	}
}

func (c *serverCheck) nothingMayBeSent() {
	unharmed := c.neighbour()
	for what, bytes := range map[string]string{
		"a text": wsFrame(wsFin|wsText, "hello"), "an empty text": wsFrame(wsFin|wsText, ""), "binary": wsFrame(wsFin|wsBinary, "\x00"),
		"a frame of the session protocol": wsFrame(wsFin|wsText, `{"subscribe":[{"channel":"other"}]}`), "a text in fragments": wsFrame(wsText, "hel") + wsFrame(wsFin, "lo"),
	} {
		s := c.socket("/ws?channel=room")
		s.text()
		s.write(bytes)
		c.endsWith(s, what, "^4002 bad_request$")
		unharmed(what)
	}
}

// endsWith checks how a WebSocket ended.
func (c *serverCheck) endsWith(s *socket, what, want string) {
	if e := s.end(); e.err != nil || !regexp.MustCompile(want).MatchString(e.String()) {
		c.errorf("%s: %s: it was closed with %s, not as %s", c.form.name, what, e, want)
	}
}

func (c *serverCheck) pingsInSilence() {
	interval := c.setup.Heartbeat
	s := c.socket("/ws?channel=room")
	s.text()
	last := time.Now()
	for n := range 6 {
		s.wait()
		f, err := s.frame()
		took := time.Since(last)
		last = time.Now()
		if err != nil || f.first != wsFin|wsPing {
			c.fatalf("in silence came a frame %x %q, %v, not a ping", f.first, f.payload, err)
		}
		if took > 2*interval || n > 0 && took < interval/2 {
			c.errorf("the interval is %v, and ping %d came after %v", interval, n+1, took)
		}
		s.send(wsPong, string(f.payload))
	}
	at := c.publish("room", "1")
	if it := c.parseObject(s.text()); it.Position != at {
		c.errorf("after the pings %s came, not the event at %q", inWords(it), at)
	}
}

// socketOfRoom opens a raw WebSocket of the clause's form that reads "room", and
// is where nothing more comes by itself.
func (c *serverCheck) socketOfRoom() *socket {
	if c.form.name == plainWS.name {
		s := c.socket("/ws" + wireclient.Query("", "room"))
		s.text()
		return s
	}
	s := c.lineSocket(wireclient.HelloFor("", "room"))
	s.about("position")
	return s
}

func (c *serverCheck) answersPings() {
	s := c.socketOfRoom()
	for _, payload := range []string{"", "ping", strings.Repeat("x", 125), "\x00\xff"} {
		s.send(wsPing, payload) // what follows has to come in time from here
		for {
			f, err := s.frame()
			if err != nil {
				c.fatalf("%s: after a ping %q came nothing more: %v", c.form.name, payload, err)
			}
			if f.first == wsFin|wsPong {
				if string(f.payload) != payload {
					c.errorf("%s: the ping %q was answered with the pong %q", c.form.name, payload, f.payload)
				}
				break
			}
		}
	}
	at := c.publish("room", "1")
	for range 10 { // heartbeats may come before it
		if it := c.parseObject(s.text()); it.Position == at {
			return
		}
	}
	c.errorf("%s: after the pings the event at %q did not come", c.form.name, at)
}

func (c *serverCheck) closedWith(channel, want string) {
	c.endsWith(c.socket("/ws?channel="+channel), "the channel "+channel, want)
}

func (c *serverCheck) shutdownSaysWhen() {
	s := c.socketOfRoom()
	over := make(chan error, 1)
	go func() { over <- c.testee.Shutdown(c.ctx) }()
	e := s.end()
	if e.err != nil || !regexp.MustCompile(`^4001 shutdown \d+$`).MatchString(e.String()) {
		c.errorf("a server that goes away closed with %s, not with 4001 \"shutdown N\"", e)
	}
	if err := <-over; err != nil {
		c.errorf("Testee.Shutdown: %v", err)
	}
}

func (c *serverCheck) closesWhenAsked() {
	for _, code := range []string{"\x03\xe8bye", "\x03\xe9", "\x0f\xa0", ""} {
		s := c.socketOfRoom()
		s.send(wsClose, code)
		if e := s.end(); e.err != nil {
			c.errorf("%s: the close frame %q was not answered: %s", c.form.name, code, e)
		}
	}
}

// closesWhenBehind asks for the end while more is on its way than the connection
// holds, and reads only then.
func (c *serverCheck) closesWhenBehind() {
	s := c.socketOfRoom()
	for range 8 {
		c.publish("room", `"`+strings.Repeat("x", 60_000)+`"`)
	}
	c.settle()
	s.send(wsClose, "\x03\xe8")
	time.Sleep(100 * time.Millisecond)
	if e := s.end(); e.err != nil {
		c.errorf("%s: the close frame was not answered: %s", c.form.name, e)
	}
}
