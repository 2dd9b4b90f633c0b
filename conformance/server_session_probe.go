package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// How a carrier is tried, and how a line ends in good order: P6.7, P6.8 and
// P6.13.
var probeClauses = []serverClause{
	{
		id: "P6.7_ProbeLasts", group: "handshake", over: sessionStreams,
		text: "MUST: a probe gets open, one heartbeat 200 ms later or more, nothing else, and ends with probe_over after 10 s.",
		run:  (*serverCheck).probeLasts,
	},
	{
		id: "P6.7_ProbingPoll", group: "handshake", over: []form{sessionPoll},
		text: "MUST: a probing poll is answered at once, whatever it says of waiting.",
		run:  (*serverCheck).probingPoll,
	},
	{
		id: "P6.7_ProbeHasNoEffects", group: "sessions", over: sessionForms, clock: anyClock,
		text: "MUST: a probe ends no line of its session, and its number does not count.",
		run:  (*serverCheck).probeHasNoEffects,
	},
	{
		id: "P6.8_ProbeBecomesLine", group: "handshake", over: []form{sessionWS},
		text: "MUST: a hello after a probe on the same WebSocket begins a line with its own open, which lasts beyond the probe's time.",
		run:  (*serverCheck).probeBecomesLine,
	},
	{
		id: "P6.8_OtherHellosAreRefused", group: "handshake", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: any other second hello ends the line with bad_request: one on a line, a probe after a probe, one after the line that followed a probe.",
		run:  (*serverCheck).otherHellosAreRefused,
	},
	{
		id: "P6.13_GoodbyeIsLast", group: "drain and restart", over: sessionForms, clock: anyClock,
		text: "MUST: a line that the server ends in good order is told why by its last frame; on a WebSocket a close frame follows that says the same, and the answer to a poll holds it.",
		run:  (*serverCheck).goodbyeIsLast,
	},
}

// probe is a hello that tests a carrier.
func probe(line uint64, token string) wireclient.Hello {
	return wireclient.Hello{Version: 1, Line: line, Token: token, Probe: true}
}

func (c *serverCheck) probeLasts() {
	l := c.line(probe(4, ""))
	began := time.Now()
	if it := l.any(); !it.Beat || time.Since(began) < 200*time.Millisecond {
		c.fatalf("%s: %s came %v after the open of a probe", l.form.name, inWords(it), time.Since(began))
	}
	it, err := l.take()
	if err != nil || it.Close == nil || it.Close.Code != "probe_over" || it.Close.Class != "now" {
		c.fatalf("%s: after the heartbeat of a probe came %s, %v, not the goodbye \"probe_over\", class \"now\"", l.form.name, inWords(it), err)
	}
	if took := time.Since(began); took < 9500*time.Millisecond || took > 11*time.Second {
		c.errorf("%s: a probe lasted %v", l.form.name, took)
	}
}

func (c *serverCheck) probingPoll() {
	began := time.Now()
	a, err := wireclient.SessionPoll(c.ctx, c.http, c.base+"/poll?wait=25s", probe(4, ""))
	if err != nil || a.Open == nil || len(a.Items) > 0 || a.Goodbye != nil {
		c.fatalf("a probing poll was answered with %+v, %v", a, err)
	}
	if took := time.Since(began); took > time.Second {
		c.errorf("a probing poll was answered after %v", took)
	}
}

func (c *serverCheck) probeHasNoEffects() {
	l := c.line(helloOf(1, "room"))
	l.opens("room", "")
	for _, number := range []uint64{1, 9} {
		p := c.line(probe(number, l.token))
		l.still("room", fmt.Sprint(number))
		p.stop()
	}
	l.still("room", "10")
	h := helloOf(2, "room")
	h.Token = l.token
	l.stop()
	next, err := c.tryLine(c.form, c.site, c.http, h)
	if err != nil {
		c.fatalf("%s: after a probe with line 9, line 2 of its session was not accepted: %v", c.form.name, err)
	}
	next.opens("room", "")
	next.still("room", "11")
}

func (c *serverCheck) probeBecomesLine() {
	begin := c.publish("room", "0")
	l := c.line(probe(2, ""))
	if it := l.any(); !it.Beat {
		c.fatalf("%s came after the open of a probe", inWords(it))
	}
	at := c.publish("room", "1")
	h := helloOf(3, "room")
	h.Channels[0].After = begin
	l.say(string(h.Frame()))
	it := l.any()
	if it.Open == nil || it.Open.Line != 3 || it.Open.Token == "" {
		c.fatalf("%s came, not the open of line 3 of a new session", inWords(it))
	}
	l.opens("room", begin)
	l.eventOf("room", at, "1")
	time.Sleep(time.Minute)
	l.still("room", "2")
}

func (c *serverCheck) otherHellosAreRefused() {
	c.lineThenHello("a line", helloOf(2))
	c.lineThenHello("a line", probe(2, ""))
	p := c.line(probe(1, ""))
	p.say(string(probe(2, "").Frame()))
	p.goodbye("bad_request", "never")
	p = c.line(probe(1, ""))
	p.say(string(helloOf(2).Frame()))
	p.say(string(helloOf(3).Frame()))
	p.goodbye("bad_request", "never")
}

func (c *serverCheck) lineThenHello(what string, h wireclient.Hello) {
	l := c.line(helloOf(1))
	l.say(string(h.Frame()))
	if why := l.goodbye("bad_request", "never"); why.Message == "" {
		c.errorf("a hello on %s ended it with bad_request, and no message that says what is wrong", what)
	}
}

func (c *serverCheck) goodbyeIsLast() {
	if c.form.carrier == "ws" {
		c.closeFrameFollows()
		return
	}
	l := c.line(helloOf(1, "room"))
	l.opens("room", "")
	over := c.shutdownOf(l)
	if why := l.goodbye("shutdown", "later"); why.After <= 0 {
		c.errorf("%s: the goodbye \"shutdown\", class \"later\", says after %d", l.form.name, why.After)
	}
	over()
}

// shutDown ends the server in good order, after the line has read what there is.
func (c *serverCheck) shutdownOf(l *sessionLine) (over func()) {
	if l != nil && l.form.carrier == "poll" {
		time.AfterFunc(20*time.Millisecond, func() { _, _ = c.testee.Publish(c.ctx, "room", said(1)) })
		if it := l.next(); !it.Event { // then it asks again, and waits
			c.fatalf("%s came", whole(it))
		}
	}
	return c.shutdown(c.site, 20*time.Millisecond)
}

func (c *serverCheck) closeFrameFollows() {
	s := c.lineSocket(helloOf(1, "room"))
	if f, err := s.message(); err != nil || !strings.Contains(string(f.payload), `"open"`) {
		c.fatalf("%.100q, %v came, not an open", f.payload, err)
	}
	over := c.shutdownOf(nil)
	var last []byte
	for {
		f, err := s.message()
		if err != nil {
			c.fatalf("the connection ended without a close frame: %v", err)
		}
		if f.opcode() == wsText {
			last = f.payload
			continue
		}
		var bye struct{ Close wireclient.Reason }
		if err := json.Unmarshal(last, &bye); err != nil || bye.Close.Code != "shutdown" || bye.Close.Class != "later" || bye.Close.After <= 0 {
			c.fatalf("the last frame was %.200q, not a goodbye \"shutdown\", class \"later\", with a delay", last)
		}
		code, reason := f.closing()
		if want := fmt.Sprintf("shutdown %d", bye.Close.After); code != 4001 || reason != want {
			c.errorf("after %.200s came the close frame %d %q, not 4001 %q", last, code, reason, want)
		}
		break
	}
	s.send(wsClose, "\x03\xe8")
	if rest, _ := io.ReadAll(s.r); len(rest) > 0 {
		c.errorf("after the close frame came %.100q", rest)
	}
	over()
}
