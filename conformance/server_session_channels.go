package conformance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// What becomes of the channels of a line: P6.9 to P6.11, P6.14, P6.15 and P6.18.
var channelClauses = []serverClause{
	{
		id: "P6.9_EachChannelIsAnswered", group: "channels", over: sessionForms, clock: anyClock,
		text: "MUST: each channel of a hello is answered by one opening, gap or end, those that can't be have the end bad_channel or bad_position, and the line goes on with the others.",
		run:  (*serverCheck).eachChannelIsAnswered,
	},
	{
		id: "P6.9_RefusedAlone", group: "rights", over: sessionForms, clock: anyClock, needs: []Feature{Rights},
		text:  "MUST: a channel that the client may not have ends with the code and class of the refusal, also one of class later, nothing of it comes, and the line goes on with the others.",
		setup: ServerSetup{Refuse: refuseByName},
		run:   (*serverCheck).refusedAlone,
	},
	{
		id: "P6.9_OneTooMany", group: "channels", over: []form{sessionWS}, clock: anyClock,
		text:  "MUST: a channel above those that a line may have ends with too_many_channels, and the line goes on; once another is unsubscribed it may be had.",
		setup: ServerSetup{MaxChannels: 3},
		run:   (*serverCheck).oneTooMany,
	},
	{
		id: "P6.10_SubscribeInFlight", group: "channels", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: channels that are subscribed on a WebSocket begin after their own positions or starts, and each is answered by an opening, a gap or an end.",
		run:  (*serverCheck).subscribeInFlight,
	},
	{
		id: "P6.10_UnsubscribedIsOver", group: "channels", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: an unsubscribed channel is acknowledged with the end unsubscribed, nothing of it comes after that, and subscribed again it goes on where it says.",
		run:  (*serverCheck).unsubscribedIsOver,
	},
	{
		id: "P6.10_EndedIsNotAcknowledged", group: "channels", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: a channel that has ended already is not acknowledged again when it is unsubscribed.",
		run:  (*serverCheck).endedIsNotAcknowledged,
	},
	{
		id: "P6.11_NewSetByNewRequest", group: "channels", over: []form{sessionSSE, sessionPoll}, clock: anyClock,
		text: "MUST: a new request with another set of channels and the positions received goes on with those, begins the new ones, and brings nothing of those left out.",
		run:  (*serverCheck).newSetByNewRequest,
	},
	{
		id: "P6.14_TooLong", group: "malformed input", over: sessionForms, clock: anyClock,
		text:  "MUST: a frame of exactly as many bytes as open says is taken, and one of a byte more ends the line, or is refused, with too_large.",
		setup: ServerSetup{MaxFrame: 2048},
		run:   (*serverCheck).tooLong,
	},
	{
		id: "P6.14_MalformedHello", group: "malformed input", over: sessionForms, clock: anyClock,
		text: "MUST: a first frame that can't be read is refused with bad_request and a message that says what is wrong.",
		run:  (*serverCheck).malformedHello,
	},
	{
		id: "P6.14_MalformedFrame", group: "malformed input", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: a frame that can't be read ends the line with bad_request and a message that says what is wrong.",
		run:  (*serverCheck).malformedFrame,
	},
	{
		id: "P6.14_LastNameCounts", group: "malformed input", over: sessionForms, clock: anyClock,
		text: "MUST: a member that is named twice counts as it was named last.",
		run:  (*serverCheck).lastNameCounts,
	},
	{
		id: "P6.14_TooManyInAFrame", group: "malformed input", over: sessionForms, clock: anyClock,
		text:  "MUST: more channels in one frame than a line may have end the line, or are refused, with too_many_channels.",
		setup: ServerSetup{MaxChannels: 3},
		run:   (*serverCheck).tooManyInAFrame,
	},
	{
		id: "P6.14_TooManyWait", group: "malformed input", over: []form{sessionWS}, needs: []Feature{Rights},
		text:  "MUST: 64 frames may wait to be worked on, and all are; more end the line with busy.",
		setup: ServerSetup{Refuse: thinkLong},
		run:   (*serverCheck).tooManyWait,
	},
	{
		id: "P6.15_LosingALineLosesNothing", group: "resume", over: sessionForms, clock: anyClock,
		text: "MUST: who lost a line without a word, and begins another with the positions received, gets all that came after them.",
		run:  func(c *serverCheck) { c.losingALine(false) },
	},
	{
		id: "P6.15_AnyNode", group: "nodes", over: sessionForms, clock: anyClock, needs: []Feature{Nodes},
		text: "MUST: a session goes on at any other node, by its token and from the positions received.",
		run:  func(c *serverCheck) { c.losingALine(true) },
	},
	{
		id: "P6.18_PausedInHello", group: "channels", over: sessionForms, clock: anyClock,
		text: "MUST: a channel that a hello has paused is answered with the end paused, nothing of it comes, and the next hello goes on with it.",
		run:  (*serverCheck).pausedInHello,
	},
	{
		id: "P6.18_PauseInFlight", group: "channels", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: a channel that is paused on a WebSocket is answered with the end paused, nothing of it comes after that, and a subscribe goes on with it.",
		run:  (*serverCheck).pauseInFlight,
	},
	{
		id: "P6.18_PausedIsTheClients", group: "channels", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: the unsubscribe of a paused channel is acknowledged, and once; a subscribe may have it paused.",
		run:  (*serverCheck).pausedIsTheClients,
	},
}

func (c *serverCheck) eachChannelIsAnswered() {
	other := c.publish("other", "1")
	c.publish("lost", "1")
	long := strings.Repeat("x", 201)
	h := helloOf(1, "room", "", long, "a\nb", "odd place", "odd start", "lost", "news")
	h.Channels[4].After, h.Channels[5].After, h.Channels[6].After = "x y", "last=0", other
	want := map[string]string{
		"room": "an opening", "news": "an opening", "lost": "a gap",
		"": "bad_channel", long: "bad_channel", "a\nb": "bad_channel", "odd place": "bad_position", "odd start": "bad_position",
	}
	l := c.line(h)
	got := map[string]string{}
	for len(got) < len(want) {
		it := l.next()
		if got[it.Channel] != "" {
			c.fatalf("%s: %s came, after the answer %q", l.form.name, whole(it), got[it.Channel])
		}
		switch {
		case it.Opening:
			got[it.Channel] = "an opening"
		case it.Gap != nil:
			got[it.Channel] = "a gap"
		case it.End != nil && it.End.Class == "never":
			got[it.Channel] = it.End.Code
		default:
			c.fatalf("%s: %s came", l.form.name, whole(it))
		}
	}
	for name, answer := range want {
		if got[name] != answer {
			c.errorf("%s: the channel %.20q was answered with %q, not with %q", l.form.name, name, got[name], answer)
		}
	}
	l.still("room", "1")
	l.still("lost", "2")
	l.still("news", "3")
}

// refuseByName refuses a channel with the code that its name says.
func refuseByName(action, _, channel string) string {
	if code, ok := strings.CutPrefix(channel, "refused:"); ok && action == "subscribe" {
		return code
	}
	return ""
}

func (c *serverCheck) refusedAlone() {
	for _, why := range []struct {
		code, class string
		after       int64
	}{{"forbidden", "never", 0}, {"members_only", "never", 0}, {"full", "later", 1500}} {
		name := "refused:" + why.code
		if why.after > 0 {
			name += fmt.Sprint(" ", why.after)
		}
		begin := c.publish(name, "0")
		h := helloOf(1, name, "room")
		h.Channels[0].After = begin
		l := c.line(h)
		ended := false
		for range 2 {
			switch it := l.next(); {
			case it.End != nil && it.Channel == name && it.End.Code == why.code && it.End.Class == why.class && it.End.After == why.after:
				ended = true
			case !it.Opening || it.Channel != "room":
				c.fatalf("%s: %s came, not the end %q, class %q, after %d", l.form.name, whole(it), why.code, why.class, why.after)
			}
		}
		if !ended {
			c.fatalf("%s: a channel that is refused with %q had no end", l.form.name, why.code)
		}
		c.publish(name, "1")
		l.still("room", "2")
		l.stop()
	}
}

// subscribe is the frame that asks for channels.
func subscribe(channels ...wireclient.Channel) string {
	text, _ := json.Marshal(map[string]any{"subscribe": channels})
	return string(text)
}

func (c *serverCheck) oneTooMany() {
	l := c.line(helloOf(1, "a", "b"))
	l.opens("a", "")
	l.opens("b", "")
	l.say(subscribe(wireclient.Channel{Channel: "c"}, wireclient.Channel{Channel: "d"}))
	l.opens("c", "")
	l.ended("d", "too_many_channels", "never")
	l.still("c", "1")
	l.say(`{"unsubscribe":["b"]}`)
	l.ended("b", "unsubscribed", "now")
	l.say(subscribe(wireclient.Channel{Channel: "d"}))
	l.opens("d", "")
	l.still("d", "2")
}

func (c *serverCheck) subscribeInFlight() {
	places := c.publishMany("a", 1, 3)
	c.publishMany("b", 1, 2)
	other := c.publish("other", "0")
	l := c.line(helloOf(1, "room"))
	l.opens("room", "")
	l.say(subscribe(
		wireclient.Channel{Channel: "a", After: places[0]}, wireclient.Channel{Channel: "b", After: "earliest"},
		wireclient.Channel{Channel: "c"}, wireclient.Channel{Channel: "odd", After: "x y"}, wireclient.Channel{Channel: "lost", After: other},
	))
	want := map[string]string{
		"a": fmt.Sprint("opening ", places[0], " 2 3"), "b": "opening 1 2", "c": "opening", "odd": "end bad_position", "lost": "gap rewritten",
	}
	got := map[string][]string{}
	for range 5 + 4 {
		it := l.next()
		var what []string
		switch {
		case it.Opening && it.Channel == "a":
			what = []string{"opening", it.Position}
		case it.Opening:
			what = []string{"opening"}
		case it.Event:
			what = []string{string(it.Data)}
		case it.Gap != nil:
			what = []string{"gap", it.Gap.Reason}
		case it.End != nil:
			what = []string{"end", it.End.Code}
		}
		got[it.Channel] = append(got[it.Channel], what...)
	}
	for name, words := range want {
		if came := strings.Join(got[name], " "); came != words {
			c.errorf("%q was subscribed, and %q came of it, not %q", name, came, words)
		}
	}
	for _, name := range []string{"room", "a", "c", "lost"} {
		l.still(name, "9")
	}
}

// whileBusy publishes numbers to a channel until it is told to stop, which
// returns how many there were.
func (c *serverCheck) whileBusy(channel string) (stop func() int) {
	end, last := make(chan struct{}), make(chan int, 1)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-end:
				last <- n - 1
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := c.testee.Publish(c.ctx, channel, said(n)); err != nil {
				c.errorf("publish: %v", err)
			}
		}
	}()
	ended := false
	stop = func() int {
		if !ended {
			ended = true
			close(end)
		}
		n := <-last
		last <- n
		return n
	}
	c.atEnd(func() { stop() })
	return stop
}

// untilEnd reads the numbers that come of a channel, which go up by one, to its
// end. It returns the last of them, and its position.
func (l *sessionLine) untilEnd(channel string, n int, at, code string) (last int, position string) {
	for {
		it := l.next()
		switch {
		case it.Event && string(it.Data) == fmt.Sprint(n+1):
			n, at = n+1, it.Position
		case it.End != nil && it.Channel == channel && it.End.Code == code && it.End.Class == "now":
			return n, at
		default:
			l.check.fatalf("%s: after the event %d came %s, not the end %q, class \"now\"", l.form.name, n, whole(it), code)
		}
	}
}

// leaveAndReturn has a line leave a channel while events come, and come back to
// it by a subscribe.
func (c *serverCheck) leaveAndReturn(leave, code string) {
	l := c.line(helloOf(1, "busy", "room"))
	at := l.opens("busy", "")
	l.opens("room", "")
	stop := c.whileBusy("busy")
	n := 0
	for range 5 {
		it := l.next()
		n++
		if !it.Event || string(it.Data) != fmt.Sprint(n) {
			c.fatalf("%s came, not the event %d", whole(it), n)
		}
		at = it.Position
	}
	l.say(leave)
	n, at = l.untilEnd("busy", n, at, code)
	time.Sleep(10 * time.Millisecond)
	c.settle()
	l.still("room", `"between"`)
	last := stop()
	l.say(subscribe(wireclient.Channel{Channel: "busy", After: at}))
	l.opens("busy", at)
	for n < last {
		n++
		if it := l.next(); !it.Event || string(it.Data) != fmt.Sprint(n) {
			c.fatalf("subscribed again after the event %d, %s came, not the event %d", n-1, whole(it), n)
		}
	}
	l.still("busy", `"live"`)
}

func (c *serverCheck) unsubscribedIsOver() {
	c.leaveAndReturn(`{"unsubscribe":["busy"]}`, "unsubscribed")
}

func (c *serverCheck) pauseInFlight() { c.leaveAndReturn(`{"pause":["busy"]}`, "paused") }

func (c *serverCheck) endedIsNotAcknowledged() {
	h := helloOf(1, "a", "b", "odd")
	h.Channels[2].After = "x y"
	l := c.line(h)
	for range 3 {
		l.next()
	}
	for i, frame := range []string{`{"unsubscribe":["odd"]}`, `{"unsubscribe":["a"]}`, `{"unsubscribe":["a","odd"]}`, `{"unsubscribe":["b"]}`} {
		l.say(frame)
		if i%2 == 1 { // frames are worked on in order, so this one is the next to be acknowledged
			l.ended([]string{"a", "b"}[i/2], "unsubscribed", "now")
		}
	}
}

func (c *serverCheck) newSetByNewRequest() {
	l := c.line(helloOf(1, "a", "b"))
	at := map[string]string{}
	for range 2 {
		it := l.next()
		at[it.Channel] = it.Position
	}
	at["a"] = l.still("a", "1")
	l.stop()
	missed, old := c.publish("a", "2"), c.publish("c", "1")
	c.publish("b", "3")
	h := helloOf(2, "a", "c")
	h.Token, h.Channels[0].After, h.Channels[1].After = l.token, at["a"], "earliest"
	l = c.line(h)
	came := []string{}
	for len(came) < 2 {
		switch it := l.next(); {
		case it.Event:
			came = append(came, it.Channel+" "+it.Position)
		case !it.Opening || it.Channel == "b":
			c.fatalf("%s: %s came, of a request for a and c", l.form.name, whole(it))
		}
	}
	slices.Sort(came)
	if want := []string{"a " + missed, "c " + old}; !slices.Equal(came, want) {
		c.errorf("%s: the events %q came, not %q", l.form.name, came, want)
	}
	c.publish("b", "4")
	l.still("a", "5")
	l.still("c", "6")
}

// padded is a frame of a size, by space around it.
func padded(frame string, size int) string { return frame + strings.Repeat(" ", size-len(frame)) }

func (c *serverCheck) tooLong() {
	const hello = `{"hello":{"version":1,"line":1,"channels":[{"channel":"room"}]}}`
	if got := c.replyTo(padded(hello, c.setup.MaxFrame)); got.refused != nil {
		c.errorf("a hello of %d bytes, which is ServerSetup.MaxFrame, was refused with %q", c.setup.MaxFrame, got.refused.Code)
	}
	c.replyRefused(padded(hello, c.setup.MaxFrame+1), 413, "too_large")
	if c.form.carrier != "ws" {
		return
	}
	l := c.line(helloOf(2, "room"))
	l.opens("room", "")
	l.say(padded(`{"unsubscribe":["room"]}`, c.setup.MaxFrame))
	l.ended("room", "unsubscribed", "now")
	l.say(padded(`{"subscribe":[{"channel":"room"}]}`, c.setup.MaxFrame+1))
	l.asked = fmt.Sprintf("a frame of %d bytes, one more than ServerSetup.MaxFrame", c.setup.MaxFrame+1)
	l.goodbye("too_large", "never")
}

func (c *serverCheck) malformedHello() {
	for _, text := range []string{
		"hello", `{"hello":{"version":1`, `[1]`, `"hello"`, "null", "\x00", "\ufeff" + `{"hello":{"version":1,"line":1}}`,
		`{"hello":{"version":1,"line":1}}{"hello":{"version":1,"line":1}}`,
		`{"hello":1}`,
		`{"hello":{"version":1,"line":-1}}`, `{"hello":{"version":1,"line":"1"}}`, `{"hello":{"version":1,"line":1.5}}`,
		`{"hello":{"version":1,"line":1,"token":7}}`,
		`{"hello":{"version":1,"line":1,"channels":{"channel":"room"}}}`,
		`{"hello":{"version":1,"line":1,"channels":[{"channel":1}]}}`, `{"hello":{"version":1,"line":1,"channels":["room"]}}`,
		`{"hello":{"version":1,"line":1,"token":"` + "\n" + `"}}`,
		`{"hello":{"version":1,"line":1,"x":` + strings.Repeat("[", 15_000) + strings.Repeat("]", 15_000) + `}}`,
	} {
		if why := c.replyRefused(text, 400, "bad_request"); why.Code == "bad_request" && why.Message == "" {
			c.errorf("%.80q was refused without a message", text)
		}
	}
}

func (c *serverCheck) malformedFrame() {
	for _, frame := range []string{
		"", "x", "[]", `{"subscribe":`, `{"subscribe":1}`, `{"subscribe":["room"]}`, `{"subscribe":[{"channel":1}]}`,
		`{"unsubscribe":"room"}`, `{"unsubscribe":[1]}`, `{"pause":{"channel":"room"}}`, `{"unsubscribe":["room"]}{}`, `{"close":1}`,
	} {
		l := c.line(helloOf(1, "room"))
		l.opens("room", "")
		l.say(frame)
		if why := l.goodbye("bad_request", "never"); why.Message == "" {
			c.errorf("the frame %q ended the line without a message", frame)
		}
	}
}

func (c *serverCheck) lastNameCounts() {
	for _, text := range []string{
		`{"hello":{"version":9,"line":5,"version":1,"line":7}}`,
		`{"hello":{"version":1,"line":5,"probe":true},"hello":{"version":1,"line":7}}`,
	} {
		got := c.replyTo(text)
		if got.refused != nil {
			c.errorf("%s: %s was refused with %q", c.form.name, text, got.refused.Code)
		} else if got.open.Line != 7 || got.open.Token == "" {
			c.errorf("%s: the open after %s says line %d, token %.5q…", c.form.name, text, got.open.Line, got.open.Token)
		}
	}
	c.replyRefused(`{"hello":{"version":1,"version":9,"line":5}}`, 400, "bad_version")
	if c.form.carrier != "ws" {
		return
	}
	l := c.line(helloOf(1, "room"))
	l.opens("room", "")
	l.say(`{"subscribe":[{"channel":"a","channel":"b"}],"subscribe":[{"channel":"c","channel":"d"}]}`)
	l.opens("d", "")
	l.still("room", "1")
}

func (c *serverCheck) tooManyInAFrame() {
	if _, err := c.tryLine(c.form, c.site, c.http, helloOf(1, "a", "b", "c")); err != nil {
		c.fatalf("%s: a hello of as many channels as a line may have: %v", c.form.name, err)
	}
	c.replyRefused(string(helloOf(2, "a", "b", "c", "d").Frame()), 400, "too_many_channels")
	if c.form.carrier != "ws" {
		return
	}
	l := c.line(helloOf(3))
	var four []wireclient.Channel
	for _, name := range []string{"a", "b", "c", "d"} {
		four = append(four, wireclient.Channel{Channel: name})
	}
	l.say(subscribe(four[:3]...))
	for _, ch := range four[:3] {
		l.opens(ch.Channel, "")
	}
	l.say(subscribe(four...))
	l.goodbye("too_many_channels", "never")
}

// thinkLong takes a while over a channel.
func thinkLong(_, _, channel string) string {
	if channel == "slow" {
		time.Sleep(3 * time.Second)
	}
	return ""
}

func (c *serverCheck) tooManyWait() {
	for _, waiting := range []int{64, 80} {
		l := c.line(helloOf(1, "room"))
		l.opens("room", "")
		l.say(subscribe(wireclient.Channel{Channel: "slow"}))
		c.settle()
		for n := range waiting - 1 { // the line may have ended before the last of them
			_ = l.ws.Send(fmt.Appendf(nil, `{"unsubscribe":["none %d"]}`, n))
		}
		_ = l.ws.Send([]byte(`{"unsubscribe":["room"]}`))
		if waiting > 64 {
			l.goodbye("busy", "later")
			return
		}
		l.opens("slow", "")
		l.ended("room", "unsubscribed", "now")
		l.still("slow", "1")
		l.stop()
	}
}

// losingALine breaks a line off after each of some events, and goes on, perhaps
// at another node.
func (c *serverCheck) losingALine(move bool) {
	here, there := c.site, c.site
	if move {
		there = c.another()
	}
	l := c.line(helloOf(1, "room"))
	l.opens("room", "")
	for n := 0; n < 12; n += 4 {
		at := l.still("room", fmt.Sprint(n))
		l.stream.Close() // what is published meanwhile may cross the wire or not
		missed := c.publishMany("room", n+1, n+2)
		l.stop()
		missed = append(missed, c.publish("room", fmt.Sprint(n+3)))
		h := helloOf(uint64(100*n)+102, "room")
		h.Token, h.Channels[0].After = l.token, at
		here, there = there, here
		l = c.lineOver(c.form, here, here.http, h)
		if l.opened.Token != "" {
			c.errorf("%s: the token was replaced, as if the session were another", l.form.name)
		}
		l.opens("room", at)
		for i, position := range missed {
			l.eventOf("room", position, fmt.Sprint(n+1+i))
		}
	}
}

func (c *serverCheck) pausedInHello() {
	begin := c.publish("calm", "0")
	h := helloOf(1, "calm", "room")
	h.Channels[0].After, h.Channels[0].Paused = begin, true
	l := c.line(h)
	paused := false
	for range 2 {
		switch it := l.next(); {
		case it.End != nil && it.Channel == "calm" && it.End.Code == "paused" && it.End.Class == "now":
			paused = true
		case !it.Opening || it.Channel != "room":
			c.fatalf("%s: %s came, of a paused channel and another", l.form.name, whole(it))
		}
	}
	if !paused {
		c.fatalf("%s: a paused channel was not answered with the end \"paused\"", l.form.name)
	}
	first := c.publish("calm", "1")
	at := c.publish("room", "1")
	for { // each poll tells again that it is paused
		it := l.next()
		if it.Event && it.Position == at {
			break
		}
		if it.End == nil || it.End.Code != "paused" || l.form.carrier != "poll" {
			c.fatalf("%s: %s came, of a paused channel", l.form.name, whole(it))
		}
	}
	l.stop()
	h = helloOf(2, "calm")
	h.Token, h.Channels[0].After = l.token, begin
	l = c.line(h)
	l.opens("calm", begin)
	l.eventOf("calm", first, "1")
	l.still("calm", "2")
}

func (c *serverCheck) pausedIsTheClients() {
	l := c.line(helloOf(1, "a", "room"))
	l.opens("a", "")
	l.opens("room", "")
	l.say(`{"pause":["a"]}`)
	l.ended("a", "paused", "now")
	l.say(`{"unsubscribe":["a"]}`)
	l.ended("a", "unsubscribed", "now")
	l.say(`{"unsubscribe":["a"]}`)
	l.still("room", "1")
	l.say(`{"subscribe":[{"channel":"b","paused":true}]}`)
	l.ended("b", "paused", "now")
	c.publish("b", "1")
	l.still("room", "2")
	l.say(`{"unsubscribe":["b"]}`)
	l.ended("b", "unsubscribed", "now")
}
