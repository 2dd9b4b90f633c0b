package conformance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// Times of presence in these clauses, and how long a line has to live for its
// session to be present (P10.5).
const (
	presenceGrace    = 15 * time.Second
	presenceInterval = 5 * time.Second
	presentAfter     = 2 * time.Second
)

var (
	withPresence = []Feature{Presence, Identities}
	timely       = ServerSetup{MaxWait: 40 * time.Second, Subjects: true, Grace: presenceGrace, Interval: presenceInterval}
)

// What §10 of PROTOCOL.md promises.
var presenceClauses = []serverClause{
	{
		id: "P10.1_AskedByFrame", group: "presence", over: []form{sessionWS}, needs: withPresence, setup: timely,
		text: "MUST: a frame presence asks for channels in place of those asked for before, of which nothing comes any more.",
		run:  (*serverCheck).presenceAskedByFrame,
	},
	{
		id: "P10.1_AskedByNewRequest", group: "presence", over: []form{sessionSSE, sessionPoll}, needs: withPresence, setup: timely,
		text: "MUST: a new request with other channels to watch is answered for these, and for no others.",
		run:  (*serverCheck).presenceAskedByNewRequest,
	},
	{
		id: "P10.1_NeedsItsRight", group: "rights", over: sessionForms, needs: []Feature{Presence, Identities, Rights},
		setup: ServerSetup{Subjects: true, Grace: presenceGrace, Interval: presenceInterval, Refuse: refusePresence},
		text:  "MUST: presence needs the right to it, and not the right to subscribe.",
		run:   (*serverCheck).presenceNeedsItsRight,
	},
	{
		id: "P10.2_SnapshotThenDifferences", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: who watches gets a snapshot, then differences that add up: total, who joined with id and subject, and who left.",
		run:  (*serverCheck).snapshotThenDifferences,
	},
	{
		id: "P10.2_WhoIsIn", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: the sessions that have subscribed a channel are in it, paused or not, and neither those that only watch nor plain use.",
		run:  (*serverCheck).whoIsIn,
	},
	{
		id: "P10.2_IdLastsAsLongAsItsSession", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: the id of a session stays what it is when its line changes, and another session of the same subject has its own.",
		run:  (*serverCheck).idLastsAsLongAsItsSession,
	},
	{
		id: "P10.2_ChangedIsAmongJoined", group: "presence", over: sessionForms, needs: []Feature{Presence, Identities, MemberInfo, SessionSSE, SessionWS},
		setup: ServerSetup{Subjects: true, Grace: presenceGrace, Interval: presenceInterval, Info: carrierOf},
		text:  "MUST: a member shows what the program says of it, and who is in joined and was there before has changed.",
		run:   (*serverCheck).changedIsAmongJoined,
	},
	{
		id: "P10.2_ManyAreANumber", group: "presence", over: sessionForms, needs: withPresence,
		setup: ServerSetup{Subjects: true, Grace: presenceGrace, Interval: presenceInterval, MaxMembers: 3},
		text:  "MUST: above the stated size there is the total alone, and a snapshot follows when there are fewer again.",
		run:   (*serverCheck).manyAreANumber,
	},
	{
		id: "P10.3_SeenIsNotRepeated", group: "presence", over: []form{sessionPoll}, needs: withPresence, setup: timely,
		text: "MUST: a poll that presents the version that there is waits, and its answer doesn't repeat it; another is answered at once.",
		run:  (*serverCheck).seenIsNotRepeated,
	},
	{
		id: "P10.4_EndsAlone", group: "rights", over: sessionForms, needs: []Feature{Presence, Identities, Rights},
		setup: ServerSetup{Subjects: true, Grace: presenceGrace, Interval: presenceInterval, Refuse: refusePresence},
		text:  "MUST: presence that is refused, or of a name that can't be, ends with its code alone: the channel's events and other presence come.",
		run:   (*serverCheck).presenceEndsAlone,
	},
	{
		id: "P10.5_ComesInTime", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: a session is present when a line of it has lived 2 s, not before, and others hear of it within an interval.",
		run:  (*serverCheck).comesInTime,
	},
	{
		id: "P10.5_LeavesAfterItsGrace", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: a session whose line ended without goodbye stays for the grace, and is gone within the grace and two intervals.",
		run:  (*serverCheck).leavesAfterItsGrace,
	},
	{
		id: "P10.5_GoodbyeEndsItAtOnce", group: "presence", over: []form{sessionSSE, sessionWS}, needs: []Feature{Presence, Identities, Upstream}, setup: timely,
		text: "MUST: a goodbye ends a session's presence at once: others hear of it within an interval.",
		run:  (*serverCheck).goodbyeEndsItAtOnce,
	},
	{
		id: "P10.5_ChangeOfLineDoesNotShow", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: neither a change of carrier nor a line that is back within the grace shows.",
		run:  (*serverCheck).changeOfLineDoesNotShow,
	},
	{
		id: "P10.5_PollsArePresent", group: "presence", over: []form{sessionPoll}, needs: withPresence, setup: timely,
		text: "MUST: a session that polls, and is answered often, is present all the time.",
		run:  (*serverCheck).pollsArePresent,
	},
	{
		id: "P10.5_AcrossNodes", group: "nodes", over: sessionForms, needs: []Feature{Presence, Identities, Nodes}, setup: timely,
		text: "MUST: who watches at one node sees sessions at another come, go there from here, and leave, in the same times.",
		run:  (*serverCheck).presenceAcrossNodes,
	},
	{
		id: "P10.6_BackGetsASnapshot", group: "presence", over: sessionForms, needs: withPresence, setup: timely,
		text: "MUST: who comes back gets a snapshot of what there is now, whatever was missed.",
		run:  (*serverCheck).backGetsASnapshot,
	},
}

// refusePresence refuses presence to bob, that of the channel "secret" to all, and
// ann to subscribe.
func refusePresence(action, subject, channel string) (code string) {
	if action == "presence" && (subject == "bob" || channel == "secret") || action == "subscribe" && subject == "ann" {
		return "forbidden"
	}
	return ""
}

// carrierOf is what the program says of a member: what carries its line.
func carrierOf(_, carrier string) []byte { return fmt.Appendf(nil, `{"by":%q}`, carrier) }

func (c *serverCheck) presenceAskedByFrame() {
	line := c.lineOver(sessionWS, c.site, c.as("watcher"), helloOf(1))
	w := &watcher{reading: line.reading, rolls: map[string]*roll{"a": {}, "b": {}}}
	line.say(`{"presence":[{"channel":"a"}]}`)
	w.until("a")
	delete(w.rolls, "a") // what comes of it fails from here on
	line.say(`{"presence":[{"channel":"b"}]}`)
	w.until("b")
	c.member("ann", "a")
	c.member("bob", "b")
	w.until("b", "bob")
	time.Sleep(2 * presenceInterval)
	c.member("carl", "b")
	w.until("b", "bob", "carl")
}

func (c *serverCheck) presenceAskedByNewRequest() {
	first := c.watch("a")
	first.until("a")
	h := helloOf(2)
	h.Presence = []wireclient.Watch{{Channel: "b"}}
	first.stream.Close()
	w := c.watchWith(c.form, c.site, c.as("watcher"), h)
	w.until("b")
	c.member("ann", "a")
	c.member("bob", "b")
	w.until("b", "bob")
	time.Sleep(2 * presenceInterval)
	c.member("carl", "b")
	w.until("b", "bob", "carl")
}

func (c *serverCheck) presenceNeedsItsRight() {
	h := helloOf(1)
	h.Presence = []wireclient.Watch{{Channel: "room"}}
	w := c.watchWith(c.form, c.site, c.as("bob"), h)
	if it := w.next(); it.Presence == nil || it.Presence.End == nil || it.Presence.End.Code != "forbidden" || it.Channel != "room" {
		c.fatalf("%s: %s came, not the end of presence that bob may not see", w.form.name, inWords(it))
	}
	w = c.watchWith(c.form, c.site, c.as("ann"), h) // who may not subscribe
	w.until("room")
	c.member("carl", "room")
	w.until("room", "carl")
}

func (c *serverCheck) snapshotThenDifferences() {
	ann := c.member("ann", "room")
	time.Sleep(presentAfter + presenceInterval)
	w := c.watch("room")
	w.until("room", "ann")
	known := w.rolls["room"]
	if known.frames != 1 {
		c.errorf("%d frames came of what there was at the beginning, not one snapshot", known.frames)
	}
	c.member("bob", "room")
	c.member("carl", "other")
	w.until("room", "ann", "bob")
	ann.stop()
	w.until("room", "bob")
	if known.frames > 3 && c.form.carrier != "poll" {
		c.errorf("%d frames came of a snapshot and two changes", known.frames)
	}
	if w2 := c.watch("room"); w2.until("room", "bob") > 0 && w2.rolls["room"].version != known.version {
		c.errorf("two who watch know the versions %q and %q of the same", known.version, w2.rolls["room"].version)
	}
}

func (c *serverCheck) whoIsIn() {
	w := c.watch("room")
	w.until("room")
	paused := helloOf(1, "room")
	paused.Channels[0].Paused = true
	c.lineOver(c.aForm(sessionWS, sessionSSE), c.site, c.as("ann"), paused)
	for _, f := range []form{plainSSE, plainWS} {
		if f.lacking(c.server) == "" {
			plain := *c.site
			plain.http = c.as("plain")
			c.readOver(f, &plain, "room", "").opening()
		}
	}
	c.member("elsewhere", "other room")
	w.until("room", "ann")
	time.Sleep(presenceGrace)
	c.member("bob", "room")
	w.until("room", "ann", "bob")
}

func (c *serverCheck) idLastsAsLongAsItsSession() {
	w := c.watch("room")
	first := c.member("ann", "room")
	w.until("room", "ann")
	id := w.rolls["room"].ann(c)
	h := helloOf(2, "room")
	h.Token = first.token
	first.stop()
	line := c.lineOver(c.aForm(sessionSSE, sessionWS), c.site, c.as("ann"), h)
	time.Sleep(time.Minute)
	c.member("bob", "room")
	w.until("room", "ann", "bob")
	if now := w.rolls["room"].ann(c); now != id {
		c.errorf("the session's id was %q and is %q on its next line", id, now)
	}
	c.member("ann", "room") // another session
	w.until("room", "ann", "ann", "bob")
	line.stop()
	w.until("room", "ann", "bob")
	if now := w.rolls["room"].ann(c); now == id {
		c.errorf("two sessions of one subject had the id %q", id)
	}
}

func (c *serverCheck) changedIsAmongJoined() {
	w := c.watch("room")
	w.until("room")
	first := c.member("ann", "room")
	w.until("room", "ann")
	id := w.rolls["room"].ann(c)
	before := string(w.rolls["room"].members[id].Info)
	h := helloOf(2, "room")
	h.Token = first.token
	first.stop()
	c.lineOver(c.aForm(sessionSSE, sessionWS), c.site, c.as("ann"), h)
	for began := time.Now(); string(w.rolls["room"].members[id].Info) == before; {
		w.take()
		if time.Since(began) > time.Minute {
			c.fatalf("the member's info is still %q, though the program says another", before)
		}
	}
	if !strings.HasPrefix(before, `{"by":`) {
		c.errorf("the member's info was %q, not what the program said", before)
	}
}

func (c *serverCheck) manyAreANumber() {
	w := c.watch("room")
	w.until("room")
	var lines []*sessionLine
	for _, name := range []string{"ann", "bob", "carl"} {
		lines = append(lines, c.member(name, "room"))
	}
	w.until("room", "ann", "bob", "carl")
	c.member("dora", "room")
	known := w.rolls["room"]
	for began := time.Now(); known.total != 4; {
		w.take()
		if time.Since(began) > time.Minute {
			c.fatalf("the total is %d, not 4", known.total)
		}
	}
	if known.members != nil {
		c.errorf("the members of a channel that has more than the stated size are named: %q", known.subjects())
	}
	lines[1].stop()
	w.until("room", "ann", "carl", "dora")
}

func (c *serverCheck) seenIsNotRepeated() {
	h := helloOf(1)
	h.Presence = []wireclient.Watch{{Channel: "room"}}
	poll := func(what string) (told []wireclient.Presence, took time.Duration) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(c.ctx, c.patience())
		defer cancel()
		a, err := wireclient.SessionPoll(ctx, c.as("watcher"), c.base+"/poll?wait=25s", h)
		if err != nil {
			c.fatalf("%s was not answered: %v", what, err)
		}
		for _, it := range a.Items {
			if it.Presence != nil {
				told = append(told, *it.Presence)
			}
		}
		asNext(&h, a)
		return told, time.Since(began)
	}
	told, took := poll("the first poll")
	if len(told) != 1 || took > time.Second {
		c.fatalf("the first poll was told %+v after %v, not a snapshot at once", told, took)
	}
	if told, took := poll("a poll"); len(told) > 0 || took < 20*time.Second {
		c.errorf("a poll that presents the version that there is was told %+v after %v, not nothing after its wait of 25s", told, took)
	}
	c.member("ann", "room")
	if told, took := poll("a poll"); len(told) != 1 || told[0].Total != 1 || took > presentAfter+presenceInterval+time.Second {
		c.errorf("a poll that waits while ann comes was told %+v after %v", told, took)
	}
	h.Presence[0].Seen = told[0].Version
	if told, took := poll("a poll"); len(told) != 1 || took > time.Second {
		c.errorf("a poll that presents a version of before was told %+v after %v, not what there is at once", told, took)
	}
}

func (c *serverCheck) presenceEndsAlone() {
	h := helloOf(1, "room")
	h.Presence = []wireclient.Watch{{Channel: "secret"}, {Channel: "\x01"}, {Channel: "room"}}
	w := c.watchWith(c.form, c.site, c.as("watcher"), h)
	want := map[string]string{"secret": "forbidden", "\x01": "bad_channel"}
	opened, began := false, time.Now()
	for len(want) > 0 || !opened || w.rolls["room"].version == "" {
		if time.Since(began) > time.Minute {
			c.fatalf("a minute after the hello these have not ended: %q; the channel opened: %t; presence came: %t", want, opened, w.rolls["room"].version != "")
		}
		it := w.take()
		switch {
		case it.Presence != nil && it.Presence.End != nil:
			if it.Presence.End.Code != want[it.Channel] || it.Presence.End.Class != "never" {
				c.fatalf("the presence of %q ended with %q, class %q, not with %q, class never", it.Channel, it.Presence.End.Code, it.Presence.End.Class, want[it.Channel])
			}
			delete(want, it.Channel)
		case it.Opening:
			opened = true
		case it.Close != nil, it.End != nil:
			c.fatalf("%s came, where presence alone was refused", inWords(it))
		}
	}
	w.reaches(c.publish("room", "1"))
}

func (c *serverCheck) comesInTime() {
	w := c.watch("room")
	w.until("room")
	short := c.member("short", "room")
	time.Sleep(presentAfter - 500*time.Millisecond)
	short.stop() // it never was present
	c.member("ann", "room")
	c.within("ann was seen", w.until("room", "ann"), presentAfter, presentAfter+presenceInterval)
	if n := w.rolls["room"].frames; n != 2 && c.form.carrier != "poll" {
		c.errorf("%d frames came, not a snapshot and one for ann", n)
	}
}

func (c *serverCheck) leavesAfterItsGrace() {
	w := c.watch("room")
	ann := c.member("ann", "room")
	c.member("bob", "room")
	w.until("room", "ann", "bob")
	time.Sleep(time.Minute)
	ann.stop()
	c.within("ann, whose line broke, was gone", w.until("room", "bob"), presenceGrace, presenceGrace+2*presenceInterval)
}

func (c *serverCheck) goodbyeEndsItAtOnce() {
	w := c.watchWith(c.form, c.site, c.as("watcher"), wireclient.Hello{Version: 1, Line: 1, Presence: []wireclient.Watch{{Channel: "room"}}})
	ann := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "room"))
	c.member("bob", "room")
	w.until("room", "ann", "bob")
	if c.form.carrier == "ws" {
		ann.say(`{"close":{}}`)
	} else {
		near := *c.site
		near.http = c.as("ann")
		c.up(&near, ann.token, `{"close":{"line":1}}`)
	}
	c.within("ann, who said goodbye, was gone", w.until("room", "bob"), 0, presenceInterval)
}

func (c *serverCheck) changeOfLineDoesNotShow() {
	w := c.watch("room")
	w.until("room")
	ann := c.member("ann", "room")
	w.until("room", "ann")
	frames := w.rolls["room"].frames
	for n := uint64(2); n < 6; n++ {
		h := helloOf(n, "room")
		h.Token = ann.token
		if n%2 == 0 {
			ann.stop()
			time.Sleep(presenceGrace - presenceInterval)
		}
		ann = c.lineOver([]form{c.aForm(sessionSSE, sessionWS), c.aForm(sessionWS, sessionSSE)}[n%2], c.site, c.as("ann"), h)
		time.Sleep(time.Duration(n) * time.Second)
	}
	time.Sleep(time.Minute)
	c.member("bob", "room")
	w.until("room", "ann", "bob")
	if came := w.rolls["room"].frames - frames; came != 1 && c.form.carrier != "poll" {
		c.errorf("%d frames came, not one for bob: changes of ann's line showed", came)
	}
}

func (c *serverCheck) pollsArePresent() {
	w := c.watchWith(c.aForm(sessionWS, sessionSSE, sessionPoll), c.site, c.as("watcher"), wireclient.Hello{Version: 1, Line: 1, Presence: []wireclient.Watch{{Channel: "room"}}})
	w.until("room")
	poller := c.lineOver(sessionPoll, c.site, c.as("ann"), helloOf(1, "room"))
	go func() {
		for _, err := poller.take(); err == nil; _, err = poller.take() {
		}
	}()
	w.until("room", "ann")
	frames := w.rolls["room"].frames
	for range 100 { // each has polls answered
		c.publish("room", "1")
		time.Sleep(500 * time.Millisecond)
	}
	poller.stream.Close()
	w.until("room")
	if came := w.rolls["room"].frames - frames; came != 1 {
		c.errorf("%d frames came while ann polled and then left, not one: she was not present all the time", came)
	}
}

func (c *serverCheck) presenceAcrossNodes() {
	far := c.another()
	w := c.watch("room")
	w.until("room")
	ann := c.lineOver(c.aForm(sessionWS, sessionSSE), far, far.as("ann"), helloOf(1, "room"))
	c.within("ann was seen at another node", w.until("room", "ann"), presentAfter, presentAfter+2*presenceInterval)
	frames := w.rolls["room"].frames
	h := helloOf(2, "room")
	h.Token = ann.token
	ann.stop()
	here := c.lineOver(c.aForm(sessionSSE, sessionWS), c.site, c.as("ann"), h)
	time.Sleep(time.Minute)
	c.lineOver(c.aForm(sessionWS, sessionSSE), far, far.as("bob"), helloOf(1, "room"))
	w.until("room", "ann", "bob")
	if came := w.rolls["room"].frames - frames; came != 1 && c.form.carrier != "poll" {
		c.errorf("%d frames came, not one for bob: that ann went to another node showed", came)
	}
	here.stop()
	c.within("ann, whose line broke, was gone", w.until("room", "bob"), presenceGrace, presenceGrace+2*presenceInterval)
	for n := range 5 { // whenever between two looks of the nodes
		ann = c.lineOver(c.aForm(sessionWS, sessionSSE), far, far.as("ann"), helloOf(1, "room"))
		w.until("room", "ann", "bob")
		time.Sleep(time.Minute + presenceInterval*time.Duration(n)/5)
		ann.stop()
		c.within("ann, whose line broke at another node, was gone", w.until("room", "bob"), presenceGrace, presenceGrace+2*presenceInterval)
	}
}

func (c *serverCheck) backGetsASnapshot() {
	w := c.watch("room")
	ann := c.member("ann", "room")
	w.until("room", "ann")
	seen := w.rolls["room"].version
	w.stream.Close()
	c.settle()
	ann.stop()
	c.member("bob", "room")
	c.member("carl", "room")
	time.Sleep(time.Minute)
	h := helloOf(1)
	h.Presence = []wireclient.Watch{{Channel: "room", Seen: seen}}
	back := c.watchWith(c.form, c.site, c.as("watcher"), h)
	back.until("room", "bob", "carl")
	if n := back.rolls["room"].frames; n != 1 {
		c.errorf("%d frames came to who was back, not one snapshot", n)
	}
}
