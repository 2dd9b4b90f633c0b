package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// Whose a line is, and which of several counts: P6.16, P6.17, P6.19 and P6.20.
var ownerClauses = []serverClause{
	{
		id: "P6.16_SessionGoesOn", group: "sessions", over: sessionStreams, clock: anyClock,
		text: "MUST: the token of a line continues its session on any carrier: the line before is superseded, and no other token comes.",
		run:  (*serverCheck).sessionGoesOn,
	},
	{
		id: "P6.16_TokenThatDoesNotVerify", group: "sessions", over: sessionForms, clock: anyClock, needs: []Feature{Several},
		text: "MUST: a token that doesn't verify is as if none were given: the hello is accepted, a new session begins from its positions, and no other line is touched.",
		run:  (*serverCheck).tokenThatDoesNotVerify,
	},
	{
		id: "P6.16_TokenOpensNothing", group: "sessions", over: sessionForms, clock: anyClock, needs: []Feature{Identities, Rights},
		text:  "MUST: a token counts only beside the credentials that it was made for: with another's it begins a new session with their rights, and without any it lets nobody in.",
		setup: ServerSetup{Subjects: true, Refuse: ownChannels},
		run:   (*serverCheck).tokenOpensNothing,
	},
	{
		id: "P6.17_HigherLineEndsLower", group: "sessions", over: sessionStreams, clock: anyClock,
		text: "MUST: a line of a session ends that session's line of a lower or equal number with superseded, over whatever carriers.",
		run:  (*serverCheck).higherLineEndsLower,
	},
	{
		id: "P6.17_LowerLineIsRefused", group: "sessions", over: sessionForms, clock: anyClock,
		text: "MUST: a hello whose line is lower than one that its session has, or had a moment ago, is refused with superseded, and ends nothing.",
		run:  (*serverCheck).lowerLineIsRefused,
	},
	{
		id: "P6.17_SupersededPoll", group: "sessions", over: []form{sessionPoll},
		text:  "MUST: a poll that waits and is superseded is answered at once with superseded, the positions it presented and no events.",
		setup: ServerSetup{MaxWait: time.Minute},
		run:   (*serverCheck).supersededPoll,
	},
	{
		id: "P6.19_Given", group: "channels", over: sessionForms, clock: anyClock, needs: []Feature{Steering, Identities},
		text:  "MUST: a channel that the program gives comes with an opening, where none was asked for, its events follow, and a later hello goes on with it.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).given,
	},
	{
		id: "P6.19_GivenIsMarked", group: "channels", over: sessionStreams, clock: anyClock, needs: []Feature{Steering, Identities},
		text:  "MUST: the opening of a channel that the program gives says \"given\": true, and that of one that was asked for doesn't.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).givenIsMarked,
	},
	{
		id: "P6.19_GivenIsTheClients", group: "channels", over: []form{sessionWS}, clock: anyClock, needs: []Feature{Steering, Identities},
		text:  "MUST: a channel that was given may be subscribed, and then begins again where the client says, and may be unsubscribed.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).givenIsTheClients,
	},
	{
		id: "P6.19_TakenAway", group: "channels", over: sessionForms, clock: anyClock, needs: []Feature{Steering, Identities},
		text:  "MUST: a channel that the program takes away ends with removed, nothing of it comes after that, and the line goes on.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).takenAway,
	},
	{
		id: "P6.20_GoodbyeEndsTheSession", group: "presence", over: sessionForms, needs: []Feature{Presence},
		text:  "MUST: the goodbye of a client ends its session at once, so that it is present no longer; a line that just ends is none.",
		setup: ServerSetup{Grace: 2 * time.Minute, Interval: 5 * time.Second},
		run:   (*serverCheck).goodbyeEndsTheSession,
	},
}

func (c *serverCheck) sessionGoesOn() {
	for _, to := range sessionForms {
		if to.lacking(c.server) != "" {
			continue
		}
		l := c.line(helloOf(1))
		h := helloOf(2)
		h.Token = l.token
		next := c.lineOver(to, c.site, c.http, h)
		if next.opened.Token != "" {
			c.errorf("from %s to %s the open brought %s", l.form.name, to.name, sameOrNot(next.opened.Token, l.token))
		}
		l.goodbye("superseded", "now")
		next.stop()
	}
}

// otherServersToken is a token that is signed by another's key.
func (c *serverCheck) otherServersToken() string {
	other := c.open(c.server.Start(c.t, c.setup))
	return c.lineOver(c.form, other, other.http, helloOf(1)).token
}

func (c *serverCheck) tokenThatDoesNotVerify() {
	begin := c.publish("room", "0")
	at := c.publish("room", "1")
	owner := c.line(helloOf(1, "room"))
	owner.opens("room", "")
	good := owner.token
	last := "AA"
	if strings.HasSuffix(good, last) {
		last = "BB"
	}
	for name, token := range map[string]string{
		"rubbish": "rubbish", "one that was changed": good[:len(good)-2] + last, "half of one": good[:len(good)/2], "one and a half": good + good[len(good)/2:],
		"one of an unknown version": "~" + good[1:], "a long one": strings.Repeat("a", 1000), "not of this alphabet": "\u2028 \"'<>",
		"another server's": c.otherServersToken(),
	} {
		h := helloOf(9, "room")
		h.Token, h.Channels[0].After = token, begin
		l, err := c.tryLine(c.form, c.site, c.http, h)
		if err != nil {
			c.errorf("%s: a hello with the token %s was not accepted: %v", c.form.name, name, err)
			continue
		}
		if l.opened.Token == "" || l.opened.Token == good || l.opened.Token == token {
			c.errorf("%s: with the token %s the open brought %.5q…, not that of a new session", c.form.name, name, l.opened.Token)
		}
		l.opens("room", begin)
		l.eventOf("room", at, "1")
		l.stop()
	}
	owner.still("room", "2")
}

// ownChannels lets everybody subscribe to channels of his own: "ann's".
func ownChannels(action, subject, channel string) string {
	if owner, _, owned := strings.Cut(channel, "'"); owned && owner != subject && action == "subscribe" {
		return "forbidden"
	}
	return ""
}

func (c *serverCheck) tokenOpensNothing() {
	owner := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "ann's"))
	owner.opens("ann's", "")
	h := helloOf(9, "ann's", "eve's")
	h.Token = owner.token
	if _, err := c.tryLine(c.form, c.site, c.http, h); err == nil {
		c.errorf("%s: who shows a token, and not who he is, was let in", c.form.name)
	} else if r, ok := refusalOf(err); !ok || r.Code != "unauthorized" {
		c.errorf("%s: who shows a token, and not who he is, was not refused with \"unauthorized\": %v", c.form.name, err)
	}
	thief := c.lineOver(c.form, c.site, c.as("eve"), h)
	if thief.opened.Token == "" {
		c.errorf("%s: eve goes on with ann's session by her token", c.form.name)
	}
	answers := map[string]string{}
	for range 2 {
		it := thief.next()
		if it.End != nil {
			answers[it.Channel] = it.End.Code
		}
	}
	if answers["ann's"] != "forbidden" || answers["eve's"] != "" {
		c.errorf("%s: eve, with ann's token, had the ends %v, not that of \"ann's\" with \"forbidden\"", c.form.name, answers)
	}
	owner.still("ann's", "1")
}

func (c *serverCheck) higherLineEndsLower() {
	for _, to := range sessionForms {
		if to.lacking(c.server) != "" {
			continue
		}
		for _, number := range []uint64{5, 6, 1 << 40} {
			l := c.line(helloOf(5, "room"))
			l.opens("room", "")
			h := helloOf(number, "room")
			h.Token = l.token
			next := c.lineOver(to, c.site, c.http, h)
			l.goodbye("superseded", "now")
			next.opens("room", "")
			next.still("room", "1")
			next.stop()
		}
	}
}

func (c *serverCheck) lowerLineIsRefused() {
	l := c.line(helloOf(5, "room"))
	l.opens("room", "")
	h := helloOf(4, "room")
	h.Token = l.token
	refused := func(when string) {
		_, err := c.tryLine(c.form, c.site, c.http, h)
		r, _ := refusalOf(err)
		switch {
		case r == nil:
			c.errorf("%s: line 4, when its session %s line 5, was not refused: %v", c.form.name, when, err)
		case r.Code != "superseded" || r.Class != "now" || r.Status != 0 && r.Status != 409:
			c.errorf("%s: line 4 was refused with %d %q, class %q, not with 409 \"superseded\", class \"now\"", c.form.name, r.Status, r.Code, r.Class)
		}
	}
	refused("has")
	l.still("room", "1")
	l.stop()
	refused("had")
	h.Line = 6
	next := c.line(h)
	next.opens("room", "")
	next.still("room", "2")
}

func (c *serverCheck) supersededPoll() {
	first, err := wireclient.SessionPoll(c.ctx, c.http, c.base+"/poll", helloOf(1, "room"))
	if err != nil {
		c.fatalf("%v", err)
	}
	at := first.Positions["room"]
	h := helloOf(1, "room")
	h.Token, h.Channels[0].After = first.Open.Token, at
	type result struct {
		a    *wireclient.Answer
		err  error
		took time.Duration
	}
	ask := func(line uint64) <-chan result {
		answer := make(chan result, 1)
		h := h
		h.Line = line
		go func() {
			began := time.Now()
			a, err := wireclient.SessionPoll(c.ctx, c.http, c.base+"/poll?wait=30s", h)
			answer <- result{a, err, time.Since(began)}
		}()
		c.settle()
		return answer
	}
	for _, line := range []uint64{1, 2} {
		waiting := ask(1)
		next := ask(line)
		got := <-waiting
		switch {
		case got.err != nil:
			c.fatalf("a poll that was superseded by line %d: %v", line, got.err)
		case got.a.Goodbye == nil || got.a.Goodbye.Code != "superseded" || len(got.a.Items) > 0 || got.a.Positions["room"] != at || got.took > time.Second:
			c.fatalf("a poll that was superseded by line %d was answered after %v with close %+v, %d things and the position %q; it had presented %q",
				line, got.took, got.a.Goodbye, len(got.a.Items), got.a.Positions["room"], at)
		}
		at = c.publish("room", "1")
		h.Channels[0].After = at
		if got := <-next; got.err != nil || len(got.a.Items) != 1 || got.a.Items[0].Position != at {
			c.fatalf("the poll that superseded it was answered with %+v, %v", got.a, got.err)
		}
	}
}

// steer gives an order about ann.
func (c *serverCheck) steer(order func(ctx context.Context, subject, channel string) error, channel string) {
	if err := order(c.ctx, "ann", channel); err != nil {
		c.fatalf("an order about %q: %v", channel, err)
	}
	c.settle()
}

func (c *serverCheck) given() {
	l := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "room"))
	l.opens("room", "")
	var published []string
	it := l.ordered(func() {
		c.steer(c.testee.Subscribe, "gift")
		published = append(published, c.publish("gift", "1"))
	})
	if l.form.carrier != "poll" || it.Opening {
		if !it.Opening || it.Channel != "gift" {
			c.fatalf("%s: %s came, not the opening of a channel that was given", l.form.name, whole(it))
		}
		it = l.next()
	}
	if !it.Event || it.Channel != "gift" || !slices.Contains(published, it.Position) {
		c.fatalf("%s: %s came, not the event of a channel that was given", l.form.name, whole(it))
	}
	l.stop()
	at, missed := published[len(published)-1], c.publish("gift", "2")
	h := helloOf(2, "gift")
	h.Token, h.Channels[0].After = l.token, at
	l = c.lineOver(c.form, c.site, c.as("ann"), h)
	l.opens("gift", at)
	l.eventOf("gift", missed, "2")
}

// ahead begins to wait for what comes next, so that a poll is under way, and
// returns what hands it over.
func (l *sessionLine) ahead() func() wireclient.Item {
	came := l.aheadOf()
	return func() wireclient.Item { return came(nil) }
}

func (l *sessionLine) aheadOf() func(again func()) wireclient.Item {
	came := l.coming(func(it wireclient.Item) bool { return it.Beat || it.Open != nil })
	l.check.settle()
	return func(again func()) wireclient.Item {
		it, err := came(again)
		if err != nil {
			l.broke(err)
		}
		return it
	}
}

// ordered gives an order, and returns what comes of it. It reaches those who are
// connected then; where a network is real a poll may be on its way still.
func (l *sessionLine) ordered(order func()) wireclient.Item {
	came := l.aheadOf()
	order()
	return came(order)
}

// openings begins a line of ann's as it crosses the wire, and returns what reads
// to its next opening and says whether that is given.
func (c *serverCheck) openings(h wireclient.Hello) func() (channel string, given bool) {
	var next func() ([]byte, error)
	if c.form.carrier == "ws" {
		s := c.lineSocket(h, "Authorization", "Bearer ann")
		next = func() ([]byte, error) { f, err := s.message(); return f.payload, err }
	} else {
		r := c.begin(c.ctx, c.as("ann"), "/sse", string(h.Frame()))
		c.atEnd(func() { _ = r.Body.Close() })
		parser := wireclient.NewParser(r.Body)
		next = func() ([]byte, error) {
			overdue := time.AfterFunc(c.patience(), func() { _ = r.Body.Close() })
			defer overdue.Stop()
			b, err := parser.Next()
			return []byte(b.Data), err
		}
	}
	return func() (string, bool) {
		for began := time.Now(); time.Since(began) < c.patience(); {
			text, err := next()
			if err != nil {
				c.fatalf("%s: the line ended: %v", c.form.name, err)
			}
			var f struct {
				Channel, Position string
				Given             bool
			}
			if err := json.Unmarshal(text, &f); err != nil {
				c.fatalf("%s: %.100q came: %v", c.form.name, text, err)
			}
			if f.Position != "" {
				return f.Channel, f.Given
			}
		}
		c.fatalf("%s: no opening came within %s", c.form.name, c.waited())
		return "", false
	}
}

func (c *serverCheck) givenIsMarked() {
	next := c.openings(helloOf(1, "room"))
	if channel, given := next(); channel != "room" || given {
		c.errorf("%s: the opening of %q came, given %v, not that of the channel that was asked for", c.form.name, channel, given)
	}
	c.steer(c.testee.Subscribe, "gift")
	if channel, given := next(); channel != "gift" || !given {
		c.errorf("%s: the opening of %q came, given %v, not that of the channel that was given", c.form.name, channel, given)
	}
}

func (c *serverCheck) givenIsTheClients() {
	begin := c.publish("gift", "0")
	old := c.publish("gift", "1")
	l := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "room"))
	l.opens("room", "")
	c.steer(c.testee.Subscribe, "gift")
	l.opens("gift", old)
	at := l.still("gift", "2")
	l.say(subscribe(wireclient.Channel{Channel: "gift", After: begin}))
	l.opens("gift", begin)
	l.eventOf("gift", old, "1")
	l.eventOf("gift", at, "2")
	l.still("gift", "3")
	c.steer(c.testee.Subscribe, "other")
	l.opens("other", "")
	for _, name := range []string{"gift", "other"} {
		l.say(fmt.Sprintf(`{"unsubscribe":[%q]}`, name))
		l.ended(name, "unsubscribed", "now")
		c.publish(name, "4")
	}
	l.still("room", "5")
}

func (c *serverCheck) takenAway() {
	l := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "gone", "room"))
	bob := c.lineOver(c.form, c.site, c.as("bob"), helloOf(1, "gone"))
	bob.opens("gone", "")
	for range 2 {
		if it := l.next(); !it.Opening {
			c.fatalf("%s: %s came, not an opening", l.form.name, whole(it))
		}
	}
	if it := l.ordered(func() { c.steer(c.testee.Unsubscribe, "gone") }); it.End == nil || it.Channel != "gone" || it.End.Code != "removed" || it.End.Class != "never" {
		c.fatalf("%s: %s came, not the end of \"gone\" with \"removed\", class \"never\"", l.form.name, whole(it))
	}
	bob.still("gone", "1")
	l.still("room", "2")
}

// present is how many are present in a channel, as a newcomer is told.
func (c *serverCheck) present(channel string) int {
	l := c.line(wireclient.Hello{Version: 1, Line: 1, Presence: []wireclient.Watch{{Channel: channel}}})
	defer l.stop()
	it := l.next()
	if it.Presence == nil || it.Presence.End != nil {
		c.fatalf("%s: %s came, not who is present", l.form.name, inWords(it))
	}
	return it.Presence.Total
}

func (c *serverCheck) goodbyeEndsTheSession() {
	for _, bye := range []bool{true, false} {
		name := fmt.Sprint("room ", bye)
		l := c.line(helloOf(3, name))
		l.opens(name, "")
		ahead := l.ahead() // it asks on, if it is a poll
		time.Sleep(20 * time.Second)
		if n := c.present(name); n != 1 {
			c.fatalf("%s: 20 s after a session began, %d are present in its channel", l.form.name, n)
		}
		if bye {
			l.sayGoodbye()
		}
		l.stream.Close()
		time.Sleep(2 * c.setup.Interval)
		switch n := c.present(name); {
		case bye && n != 0:
			c.errorf("%s: %v after its goodbye a session is present", l.form.name, 2*c.setup.Interval)
		case !bye && n != 1:
			c.errorf("%s: %v after a line ended without a word its session is not present, and the grace is %v", l.form.name, 2*c.setup.Interval, c.setup.Grace)
		}
		_ = ahead
	}
}

// sayGoodbye says that the session will not come back.
func (l *sessionLine) sayGoodbye() {
	c := l.check
	if l.ws != nil {
		l.say(`{"close":{}}`)
	} else if _, err := wireclient.Post(c.ctx, c.http, c.base, l.token, wireclient.Up{Close: &wireclient.ClientDone{Line: l.hello.Line}}); err != nil {
		c.fatalf("%s: a goodbye was not accepted: %v", l.form.name, err)
	}
	c.settle()
}
