package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// What §2 of PROTOCOL.md promises of every form of reading.
var deliveryClauses = slices.Concat(orderClauses, resumeClauses, payloadClauses)

var orderClauses = []serverClause{
	{
		id: "P2.1_InOrderOnce", group: "order", over: allForms, clock: anyClock,
		text: "MUST: every event that is published while a client reads comes once, in order, whether one by one or many at once.",
		run:  (*serverCheck).inOrderOnce,
	},
	{
		id: "P2.1_CatchUpMeetsLive", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: who begins at a position while events are being published gets all after it, without hole or overlap.",
		run:  (*serverCheck).catchUpMeetsLive,
	},
	{
		id: "P2.6_OpensWhereItGoesOn", group: "handshake", over: allForms, clock: anyClock,
		text: "MUST: a line opens with the position presented, or else with the channel's present one, before anything else of it.",
		run:  (*serverCheck).opensWhereItGoesOn,
	},
	{
		id: "P2.4_TrimmedIsSaid", group: "resume", over: allForms, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: who presents a position whose next events are gone hears of a gap from there to the last that is gone, in place of the opening, and then gets the rest.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).trimmedIsSaid,
	},
	{
		id: "P2.1_LargeBacklog", group: "order", over: allForms, clock: anyClock,
		text: "MUST: who is far behind gets every event once, in order, however many there are and whatever their sizes.",
		run:  (*serverCheck).largeBacklog,
	},
	{
		id: "P2.3_MovesOnInSilence", group: "resume", over: streamForms,
		text:  "MUST: a reader of a channel in which nothing happens for days has a position from which it can go on, and is told of it if it changes.",
		setup: ServerSetup{Heartbeat: time.Hour},
		run:   (*serverCheck).movesOnInSilence,
	},
	{
		id: "P2.4_GapWhileReading", group: "resume", over: streamForms, needs: []Feature{Retention},
		text:  "MUST: who reads too slowly, so that events are gone before they could be sent, hears of a gap at that place, from the last event it got to the last that is gone.",
		setup: ServerSetup{Keep: 4, WriteTimeout: time.Hour},
		run:   (*serverCheck).gapWhileReading,
	},
	{
		id: "P2.8_EachChannelInItsOrder", group: "order", over: []form{plainSSE, sessionSSE, sessionWS, sessionPoll}, clock: anyClock,
		text: "MUST: on a line of several channels each channel's events come once and in their order, whatever comes between.",
		run:  (*serverCheck).eachChannelInItsOrder,
	},
}

func (c *serverCheck) inOrderOnce() {
	r := c.read("room", "")
	r.opening()
	one := c.publishMany("room", 1, 5)
	r.events(1, one)
	for n := range 5 {
		r.event(c.publish("room", fmt.Sprint(10+n)), fmt.Sprint(10+n))
	}
	r.events(100, c.publishMany("room", 100, 160))
	r.quiet()
}

func (c *serverCheck) catchUpMeetsLive() {
	begin := c.publish("room", "0")
	want := c.publishMany("room", 1, 20)
	published := make(chan []string, 1)
	go func() {
		var more []string
		for n := 21; n <= 60; n++ {
			at, err := c.testee.Publish(c.ctx, "room", said(n))
			if err != nil {
				c.errorf("publish: %v", err)
			}
			more = append(more, at)
			if n%7 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		published <- more
	}()
	r := c.read("room", begin)
	if at := r.opening(); at != begin {
		c.fatalf("it opened at %q, not at %q", at, begin)
	}
	r.events(1, want)
	r.events(21, <-published)
	r.quiet()
}

func (c *serverCheck) opensWhereItGoesOn() {
	first, last := c.publish("room", "1"), c.publish("room", "2")
	if at := c.read("room", first).opening(); at != first {
		c.errorf("presented %q, it opened at %q", first, at)
	}
	if at := c.read("room", "").opening(); at != last {
		c.errorf("with no position it opened at %q, not at the present one, %q", at, last)
	}
	unwritten := c.read("nobody wrote here", "")
	at := unwritten.opening()
	back := c.read("nobody wrote here", at)
	if again := back.opening(); again != at {
		c.errorf("a channel that nobody wrote opened at %q and, presented that, at %q", at, again)
	}
	event := c.publish("nobody wrote here", "3")
	unwritten.event(event, "3")
	back.event(event, "3")
}

func (c *serverCheck) trimmedIsSaid() {
	begin := c.publish("room", "0")
	after := c.publishMany("room", 1, 10)
	held := c.firstHeld("room", after)
	r := c.read("room", begin)
	r.expectGap("trimmed", begin, after[held-1])
	r.events(held+1, after[held:])
}

// firstHeld returns which event the server holds still, of those at these
// positions: the one behind the gap that who presents the first is told of.
func (c *serverCheck) firstHeld(channel string, positions []string) int {
	r := c.readOver(c.aForm(append([]form{plainPoll}, allForms...)...), c.site, channel, positions[0])
	defer r.stream.Close()
	it := r.expecting("a gap after %q", positions[0]).next()
	if it.Gap == nil || it.Gap.From != positions[0] || it.Gap.Reason != "trimmed" {
		c.fatalf("%s: %s came, not a gap \"trimmed\" from %q on", r.form.name, inWords(it), positions[0])
	}
	first := slices.Index(positions, it.Gap.To) + 1
	if held := len(positions) - first; first == 0 || held < c.setup.Keep || held >= 2*c.setup.Keep {
		c.fatalf("%s: of the events at %.9q those after %q are held, and ServerSetup.Keep is %d", r.form.name, positions, it.Gap.To, c.setup.Keep)
	}
	return first
}

func (c *serverCheck) largeBacklog() {
	begin := c.publish("room", "0")
	var want []string
	for n := 1; n <= 300; n++ { // of 1 byte to 50,000
		data := fmt.Sprintf("%d%s", n, strings.Repeat(" ", (n*n%50)*1000/(n%7+1)))
		want = append(want, c.publishMessage("room", eventlog.Message{Type: "said", Data: []byte(data)}))
	}
	r := c.read("room", begin)
	r.opening()
	for i, position := range want {
		it := r.next()
		if !it.Event || it.Position != position || strings.TrimSpace(string(it.Data)) != fmt.Sprint(i+1) {
			c.fatalf("%s: of %d events after %q, %s came in place of the event %d at %q", c.form.name, len(want), begin, inWords(it), i+1, position)
		}
	}
	r.quiet()
}

func (c *serverCheck) movesOnInSilence() {
	r := c.read("nobody wrote here", "")
	at, told := r.opening(), 0
	over := time.AfterFunc(50*time.Hour, r.stream.Close)
	defer over.Stop()
	for {
		it, err := r.stream.Next()
		if err != nil {
			break
		}
		switch {
		case it.Opening:
			at, told = it.Position, told+1
		case !it.Beat && it.Open == nil:
			c.fatalf("%s: %s came in a channel in which nothing happened", c.form.name, inWords(it))
		}
	}
	back := c.read("nobody wrote here", at)
	if it := back.next(); !it.Opening || it.Position != at {
		c.fatalf("%s: after 50 silent hours, in which %d further positions were told, %s came for the last one, %q, not its opening", c.form.name, told, inWords(it), at)
	}
	back.event(c.publish("nobody wrote here", "1"), "1")
}

// gapWhileReading publishes more than the buffers on the way hold while the
// client takes nothing.
func (c *serverCheck) gapWhileReading() {
	r := c.read("room", "")
	r.opening()
	const events = 60
	big := strings.Repeat(" ", 20_000)
	at := map[string]int{}
	var positions []string
	for n := range events {
		p := c.publish("room", fmt.Sprint(n)+big)
		at[p], positions = n, append(positions, p)
		c.settle()
	}
	for n := 0; n < events; n++ {
		it := r.next()
		if it.Gap != nil {
			to, known := at[it.Gap.To]
			if n == 0 || it.Gap.From != positions[n-1] || !known || to < n || to >= events-1 {
				c.fatalf("%s: after event %d of %d came %s, not a gap from there to a later event", c.form.name, n-1, events, inWords(it))
			}
			n = to
			continue
		}
		if !it.Event || it.Position != positions[n] {
			c.fatalf("%s: %s came, neither the event %d at %q nor a gap", c.form.name, inWords(it), n, positions[n])
		}
	}
	r.quiet()
}

func (c *serverCheck) eachChannelInItsOrder() {
	channels := []string{"a", "b", "c"}
	r := c.readMany("", channels...)
	opened := map[string]bool{}
	for c.form.name != plainSSE.name && len(opened) < len(channels) { // a plain stream has one opening for all
		opened[r.next().Channel] = true
	}
	if c.form.name == plainSSE.name {
		r.next()
	}
	want := map[string][]string{}
	for n := range 90 {
		name := channels[(n*n+n/7)%3]
		want[name] = append(want[name], c.publish(name, fmt.Sprint(n)))
	}
	for range 90 {
		it := r.next()
		if left := want[it.Channel]; !it.Event || len(left) == 0 || it.Channel == "" || left[0] != it.Position {
			c.fatalf("%s: %s came of %q, where %.3q should come next", c.form.name, inWords(it), it.Channel, left)
		}
		want[it.Channel] = want[it.Channel][1:]
	}
	r.quiet()
}
