package conformance

import (
	"fmt"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// How clients show who they are: P6.21 and P6.22.
var credentialClauses = []serverClause{
	{
		id: "P6.21_HeaderShowsWho", group: "rights", over: sessionForms, clock: anyClock, needs: []Feature{Identities, Rights},
		text:  "MUST: the request of a hello shows who makes it, and so what he may have.",
		setup: ServerSetup{Subjects: true, Refuse: ownChannels},
		run: func(c *serverCheck) {
			c.showsWho(func(name string, h wireclient.Hello) *sessionLine { return c.lineOver(c.form, c.site, c.as(name), h) })
		},
	},
	{
		id: "P6.21_FirstFrameShowsWho", group: "rights", over: []form{sessionWS}, clock: anyClock, needs: []Feature{Identities, Rights},
		text:  "MUST: credentials in the first frame of a WebSocket count as the bearer token of an Authorization header, also for the line that follows a probe.",
		setup: ServerSetup{Subjects: true, Refuse: ownChannels},
		run:   (*serverCheck).firstFrameShowsWho,
	},
	{
		id: "P6.21_NobodyIsRefused", group: "rights", over: sessionForms, clock: anyClock, needs: []Feature{Identities},
		text:  "MUST: who shows nothing, where the program wants to know, or what doesn't hold, is refused with unauthorized when its hello came, and not before.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).nobodyIsRefused,
	},
	{
		id: "P6.22_AskedInTime", group: "rights", over: sessionForms, needs: []Feature{Identities, Expiry},
		text:  "MUST: a line whose credentials come to an end is asked for fresh ones before, with the milliseconds that are left, and ends with expired when they have ended; who comes back with those is refused with expired, with fresh ones he misses nothing.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).askedInTime,
	},
	{
		id: "P6.22_FreshFrameGoesOn", group: "rights", over: []form{sessionWS}, needs: []Feature{Identities, Expiry},
		text:  "MUST: a WebSocket on which fresh credentials came in a frame goes on beyond the end of the old ones, and is asked again before the end of the fresh ones.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).freshFrameGoesOn,
	},
	{
		id: "P6.22_FreshLineGoesOn", group: "rights", over: []form{sessionSSE, sessionPoll}, needs: []Feature{Identities, Expiry},
		text:  "MUST: a new request that shows fresh credentials continues the session beyond the end of the old ones.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).freshLineGoesOn,
	},
	{
		id: "P6.22_BadFreshOnes", group: "rights", over: []form{sessionWS}, clock: anyClock, needs: []Feature{Identities, Expiry},
		text:  "MUST: fresh credentials that don't hold end the line with unauthorized, and somebody else's with expired.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).badFreshOnes,
	},
	{
		id: "P6.22_AskedOnEachLine", group: "rights", over: sessionForms, needs: []Feature{Identities, Expiry},
		text:  "MUST: until it has brought fresh credentials, a client is asked on each line that it begins.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).askedOnEachLine,
	},
	{
		id: "P6.22_PlainStreamsEnd", group: "plain use", over: []form{plainSSE, plainWS}, needs: []Feature{Identities, Expiry},
		text:  "MUST: a plain stream ends when the credentials do that its request showed, without being asked for others.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).plainStreamsEnd,
	},
}

// showsWho begins lines of two people, who have each their own channel.
func (c *serverCheck) showsWho(begin func(name string, h wireclient.Hello) *sessionLine) {
	for _, name := range []string{"ann", "eve"} {
		l := begin(name, helloOf(1, "ann's", "eve's"))
		for range 2 {
			it := l.next()
			own := strings.HasPrefix(it.Channel, name)
			if it.Opening != own || !own && (it.End == nil || it.End.Code != "forbidden") {
				c.errorf("%s: to %s, whose channel is %q, came %s", c.form.name, name, name+"'s", whole(it))
			}
		}
		l.still(name+"'s", "1")
		l.stop()
	}
}

func (c *serverCheck) firstFrameShowsWho() {
	c.showsWho(func(name string, h wireclient.Hello) *sessionLine {
		h.Credentials = name
		return c.line(h)
	})
	p := probe(1, "")
	p.Credentials = "ann"
	l := c.line(p)
	l.say(string(helloOf(2, "ann's").Frame()))
	if it := l.until("an open", func(it wireclient.Item) bool { return !it.Beat }); it.Open == nil || it.Open.Line != 2 {
		c.fatalf("after a probe %s came, not the open of the line that follows it", inWords(it))
	}
	l.opens("ann's", "")
}

func (c *serverCheck) nobodyIsRefused() {
	refused := func(what string, h wireclient.Hello) {
		_, err := c.tryLine(c.form, c.site, c.http, h)
		r, _ := refusalOf(err)
		switch {
		case r == nil:
			c.errorf("%s: who shows %s was not refused: %v", c.form.name, what, err)
		case r.Code != "unauthorized" || r.Class != "never" || r.Status != 0 && r.Status != 401:
			c.errorf("%s: who shows %s was refused with %d %q, class %q, not with 401 \"unauthorized\", class \"never\"", c.form.name, what, r.Status, r.Code, r.Class)
		}
	}
	refused("nothing", helloOf(1, "room"))
	if c.form.carrier != "ws" {
		return
	}
	h := helloOf(1, "room")
	h.Credentials = "ann@ever"
	refused("what doesn't hold", h)
	early := c.socket("/ws")
	quiet := 100 * time.Millisecond
	_ = early.conn.SetReadDeadline(time.Now().Add(quiet))
	if f, err := early.frame(); err == nil {
		c.errorf("before the hello came the frame %.100q", f.payload)
	}
}

// lasting is what ann shows, and what ends after a while.
func lasting(d time.Duration) string {
	return fmt.Sprintf("ann@%d", time.Now().Add(d).UnixMilli())
}

// refreshed reads to where the line asks for fresh credentials.
func (l *sessionLine) refreshed() int64 {
	it := l.until("a question for fresh credentials", func(it wireclient.Item) bool { return it.Refresh != nil || it.Close != nil })
	if it.Close != nil {
		l.check.fatalf("%s: %s came, and no question for fresh credentials before", l.form.name, inWords(it))
	}
	return it.Refresh.Left
}

func (c *serverCheck) askedInTime() {
	const life = 10 * time.Minute
	began := time.Now()
	shown := lasting(life)
	l := c.lineOver(c.form, c.site, c.as(shown), helloOf(1, "room"))
	at := l.opens("room", "")
	left := time.Duration(l.refreshed()) * time.Millisecond
	truly := time.Until(began.Add(life))
	if truly <= 0 || left <= 0 || max(left-truly, truly-left) > time.Second && c.form.carrier != "poll" || left > truly+time.Minute {
		c.errorf("%s: it was asked for fresh credentials %v before the end, and told that %v are left", c.form.name, truly, left)
	}
	l.goodbye("expired", "now")
	if took := time.Since(began); took < life || took > life+2*time.Second {
		c.errorf("%s: credentials for %v, and the line ended after %v", c.form.name, life, took)
	}
	missed := c.publish("room", "1")
	h := helloOf(2, "room")
	h.Token, h.Channels[0].After = l.token, at
	_, err := c.tryLine(c.form, c.site, c.as(shown), h)
	if r, ok := refusalOf(err); !ok || r.Code != "expired" || r.Class != "now" || r.Status != 0 && r.Status != 401 {
		c.errorf("%s: who comes back with what has ended was not refused with 401 \"expired\", class \"now\": %v", c.form.name, err)
	}
	l = c.lineOver(c.form, c.site, c.as("ann"), h)
	if l.opened.Token != "" {
		c.errorf("%s: with fresh credentials of the same person the session began anew", c.form.name)
	}
	l.opens("room", at)
	l.eventOf("room", missed, "1")
}

func (c *serverCheck) freshFrameGoesOn() {
	began := time.Now()
	l := c.lineOver(c.form, c.site, c.as(lasting(5*time.Minute)), helloOf(1, "room"))
	l.opens("room", "")
	l.refreshed()
	if err := l.ws.SendCredentials(lasting(20 * time.Minute)); err != nil {
		c.fatalf("%v", err)
	}
	time.Sleep(time.Until(began.Add(10 * time.Minute)))
	l.still("room", "1")
	l.refreshed()
	if took := time.Since(began); took < 10*time.Minute || took > 24*time.Minute+5*time.Second {
		c.errorf("with credentials for 20 more minutes it was asked again after %v", took)
	}
	l.goodbye("expired", "now")
	if took := time.Since(began); took < 20*time.Minute {
		c.errorf("with credentials for 20 more minutes it ended after %v", took)
	}
}

func (c *serverCheck) freshLineGoesOn() {
	l := c.lineOver(c.form, c.site, c.as(lasting(5*time.Minute)), helloOf(1, "room"))
	at := l.opens("room", "")
	l.refreshed()
	l.stop()
	h := helloOf(2, "room")
	if c.form.carrier == "poll" {
		h.Line = 1
	}
	h.Token, h.Channels[0].After = l.token, at
	l = c.lineOver(c.form, c.site, c.as(lasting(time.Hour)), h)
	if l.opened.Token != "" {
		c.errorf("%s: with fresh credentials of the same person the session began anew", c.form.name)
	}
	ahead := l.ahead()
	time.Sleep(30 * time.Minute)
	at = c.publish("room", "1")
	it := ahead()
	if it.Opening {
		it = l.next()
	}
	if !it.Event || it.Position != at {
		c.fatalf("%s: 25 minutes after the old credentials ended %s came, not an event", c.form.name, whole(it))
	}
}

func (c *serverCheck) badFreshOnes() {
	for shown, code := range map[string]string{"ann@ever": "unauthorized", "bob": "expired"} {
		l := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "room"))
		l.opens("room", "")
		if err := l.ws.SendCredentials(shown); err != nil {
			c.fatalf("%v", err)
		}
		class := map[string]string{"unauthorized": "never", "expired": "now"}[code]
		l.goodbye(code, class)
	}
}

func (c *serverCheck) askedOnEachLine() {
	shown := lasting(10 * time.Minute)
	l := c.lineOver(c.form, c.site, c.as(shown), helloOf(1, "room"))
	at := l.opens("room", "")
	l.refreshed()
	for line := range uint64(2) {
		l.stop()
		h := helloOf(line+2, "room")
		h.Token, h.Channels[0].After = l.token, at
		l = c.lineOver(c.form, c.site, c.as(shown), h)
		l.refreshed()
	}
	l.goodbye("expired", "now")
}

func (c *serverCheck) plainStreamsEnd() {
	const life = 10 * time.Minute
	began := time.Now()
	var stream wireclient.Stream
	var err error
	if c.form.carrier == "sse" {
		stream, err = wireclient.SSE(c.ctx, c.as(lasting(life)), c.base+"/sse?channel=room", "")
	} else {
		stream, err = wireclient.WS(c.ctx, c.as(lasting(life)), c.base+"/ws?channel=room", nil)
	}
	if err != nil {
		c.fatalf("%v", err)
	}
	c.atEnd(stream.Close)
	r := &reading{check: c, stream: stream, form: c.form}
	for {
		it, err := r.take()
		if took := time.Since(began); took > life+time.Minute {
			c.fatalf("%s: credentials for %v, and the stream lives after %v", c.form.name, life, took)
		}
		if err != nil {
			break
		}
		if it.Refresh != nil {
			c.errorf("%s: a plain stream was asked for fresh credentials", c.form.name)
		}
	}
	if took := time.Since(began); took < life {
		c.errorf("%s: credentials for %v, and the stream ended after %v", c.form.name, life, took)
	}
}
