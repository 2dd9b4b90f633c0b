package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// Going on from where one was: P1.2, P2.1, P2.5 to P2.7.
var resumeClauses = []serverClause{
	{
		id: "P1.2_GoesOnAfterTheEvent", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: who presents an event's position gets the one after it next, and all that follow, whichever event of a history it is.",
		run:  (*serverCheck).goesOnAfterTheEvent,
	},
	{
		id: "P2.1_BeforeTheFirstEvent", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: who presents the position with which an unwritten channel opened gets all events from the first on.",
		run:  (*serverCheck).beforeTheFirstEvent,
	},
	{
		id: "P2.1_TwiceAtOnce", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: several who present the same position at once get all after it, each of them.",
		run:  (*serverCheck).twiceAtOnce,
	},
	{
		id: "P2.1_BeforeTheOldLineIsDead", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: who comes back while its old line is still open gets all after the position presented, on the new one.",
		run:  (*serverCheck).beforeTheOldLineIsDead,
	},
	{
		id: "P2.1_AgainAndAgain", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: who comes back after each event, while others are being published, gets every event once.",
		run:  (*serverCheck).againAndAgain,
	},
	{
		id: "P2.5_RewrittenTellsTheHead", group: "resume", over: allForms, clock: anyClock, needs: []Feature{Several},
		text: "MUST: a position of a history that is gone, as after the loss of a store, is answered with a gap \"rewritten\" from it to the channel's head, in place of the opening, and reading goes on from there.",
		run:  (*serverCheck).rewrittenTellsTheHead,
	},
	{
		id: "P2.6_OneGapOfSeveral", group: "resume", over: sessionForms, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: of several channels each opens for itself: a gap where the position is lost, an opening where it isn't.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).oneGapOfSeveral,
	},
	{
		id: "P2.7_NeverSilent", group: "resume", over: allForms, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: whichever position of a partly trimmed history is presented, all that followed it comes, or a gap that covers what is missing.",
		setup: ServerSetup{Keep: 5},
		run:   (*serverCheck).neverSilent,
	},
}

func (c *serverCheck) goesOnAfterTheEvent() {
	const events = 20
	positions := append([]string{c.read("room", "").opening()}, c.publishMany("room", 1, events)...)
	var lines []*reading
	for _, at := range positions {
		r := c.read("room", at)
		if opened := r.opening(); opened != at {
			c.fatalf("%s: presented %q, it opened at %q", c.form.name, at, opened)
		}
		lines = append(lines, r)
	}
	last := c.publish("room", fmt.Sprint(events+1)) // what comes after it shows that nothing came twice
	for i, r := range lines {
		r.events(i+1, append(slices.Clone(positions[i+1:]), last))
		r.stream.Close()
	}
}

func (c *serverCheck) beforeTheFirstEvent() {
	first := c.read("room", "")
	at := first.opening()
	want := c.publishMany("room", 1, 5)
	first.events(1, want)
	r := c.read("room", at)
	if opened := r.opening(); opened != at {
		c.fatalf("%s: presented the place before the first event, %q, it opened at %q", c.form.name, at, opened)
	}
	r.events(1, want)
	r.event(c.publish("room", "6"), "6")
	r.quiet()
}

func (c *serverCheck) twiceAtOnce() {
	begin := c.publish("room", "0")
	want := c.publishMany("room", 1, 10)
	lines := make([]*reading, 6)
	for i := range lines {
		lines[i] = c.read("room", begin)
	}
	want = append(want, c.publishMany("room", 11, 20)...)
	for _, r := range lines {
		r.opening()
		r.events(1, want)
	}
	more := c.publishMany("room", 21, 22)
	for _, r := range lines {
		r.events(21, more)
	}
	lines[0].quiet()
}

func (c *serverCheck) beforeTheOldLineIsDead() {
	begin := c.publish("room", "0")
	want := c.publishMany("room", 1, 10)
	old := c.read("room", begin)
	old.opening()
	old.events(1, want[:6]) // the others are on their way
	back := c.read("room", want[2])
	if at := back.opening(); at != want[2] {
		c.fatalf("%s: presented %q, it opened at %q", c.form.name, want[2], at)
	}
	back.events(4, want[3:])
	back.events(11, c.publishMany("room", 11, 15))
	back.quiet()
}

func (c *serverCheck) againAndAgain() {
	at := c.publish("room", "0")
	var want []string
	for n := 1; n <= 12; n++ {
		want = append(want, c.publishMany("room", 2*n-1, 2*n)...)
		r := c.read("room", at)
		r.opening()
		r.event(want[n-1], fmt.Sprint(n))
		at = want[n-1]
		r.stream.Close()
	}
	r := c.read("room", at)
	r.opening()
	r.events(13, want[12:])
	r.quiet()
}

func (c *serverCheck) rewrittenTellsTheHead() {
	old := c.open(c.server.Start(c.t, c.setup)) // what had the history that is gone
	var lost string
	for n := range 5 {
		at, err := old.testee.Publish(c.ctx, "room", said(n))
		if err != nil {
			c.fatalf("publish: %v", err)
		}
		lost = at
		_, _ = old.testee.Publish(c.ctx, "unwritten", said(n))
	}
	head := c.publishMany("room", 1, 8)[7]
	r := c.read("room", lost)
	r.expectGap("rewritten", lost, head)
	r.event(c.publish("room", "9"), "9")
	r.quiet()

	fresh := c.read("unwritten", lost)
	it := fresh.next()
	if it.Gap == nil || it.Gap.Reason != "rewritten" || it.Gap.From != lost || it.Gap.To == "" {
		c.fatalf("%s: %s came, not a gap \"rewritten\" from %q", c.form.name, inWords(it), lost)
	}
	back := c.read("unwritten", it.Gap.To)
	if at := back.opening(); at != it.Gap.To {
		c.fatalf("%s: the gap went to %q; presented that, it opened at %q", c.form.name, it.Gap.To, at)
	}
	first := c.publish("unwritten", "1")
	fresh.event(first, "1")
	back.event(first, "1")
}

// expectGap takes the next thing, which has to be this gap.
func (r *reading) expectGap(reason, from, to string) {
	if it := r.next(); it.Gap == nil || *it.Gap != (wireclient.Gap{From: from, To: to, Reason: reason}) {
		r.check.fatalf("%s: %s came, not a gap %q from %q to %q", r.form.name, inWords(it), reason, from, to)
	}
}

func (c *serverCheck) oneGapOfSeveral() {
	begin := map[string]string{"trimmed": c.publish("trimmed", "0"), "whole": c.publish("whole", "0")}
	trimmed, whole := c.publishMany("trimmed", 1, 10), c.publishMany("whole", 1, 2)
	held := c.firstHeld("trimmed", trimmed)
	r := c.readEach(begin)
	want := map[string][]string{
		"trimmed": append([]string{"gap to " + trimmed[held-1]}, trimmed[held:]...),
		"whole":   append([]string{"opening at " + begin["whole"]}, whole...),
	}
	if c.form.carrier == "poll" {
		want["whole"] = whole // a poll says nothing of what it was told
	}
	for len(want["trimmed"])+len(want["whole"]) > 0 {
		it := r.next()
		got := it.Position
		switch {
		case it.Gap != nil:
			got = "gap to " + it.Gap.To
		case it.Opening:
			got = "opening at " + it.Position
		}
		if left := want[it.Channel]; len(left) == 0 || left[0] != got {
			c.fatalf("%s: %s of %q came, where %.2q should come next", c.form.name, inWords(it), it.Channel, left)
		}
		want[it.Channel] = want[it.Channel][1:]
	}
	r.quiet()
}

// neverSilent takes what is trimmed as well: a server may still have it at hand.
func (c *serverCheck) neverSilent() {
	positions := append([]string{c.read("room", "").opening()}, c.publishMany("room", 1, 12)...)
	for i, at := range positions {
		r := c.read("room", at)
		opened := c.form.carrier == "poll" // its answers have no opening
		for n := i + 1; n < len(positions); {
			it := r.next()
			switch {
			case it.Opening && it.Position == at && !opened:
				opened = true
			case it.Gap != nil && it.Gap.From == positions[n-1] && slices.Contains(positions[n:], it.Gap.To):
				opened, n = true, slices.Index(positions, it.Gap.To)+1
			case it.Event && opened && it.Position == positions[n]:
				n++
			default:
				c.fatalf("%s: presented the position of event %d of %d, %s came, neither event %d nor a gap before it", c.form.name, i, len(positions)-1, inWords(it), n)
			}
		}
		r.stream.Close()
	}
}

// readMany opens a line of several channels, all from the same start.
func (c *serverCheck) readMany(after string, channels ...string) *reading {
	from := map[string]string{}
	for _, name := range channels {
		from[name] = after
	}
	return c.readEach(from)
}

// readEach opens a line of several channels, each from where it says, over
// a form that takes them. A plain stream takes starts only.
func (c *serverCheck) readEach(from map[string]string) *reading {
	h := wireclient.Hello{Version: 1, Line: 1}
	var names []string
	var after string
	for name := range from {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		after = from[name]
		h.Channels = append(h.Channels, wireclient.Channel{Channel: name, After: after})
	}
	var stream wireclient.Stream
	var err error
	switch c.form.name {
	case plainSSE.name:
		stream, err = wireclient.SSE(c.ctx, c.http, c.base+"/sse"+wireclient.Query(after, names...)+"&as=event", "")
	case sessionSSE.name:
		stream, err = wireclient.SSESession(c.ctx, c.http, c.base+"/sse", h)
	case sessionWS.name:
		stream, err = wireclient.WS(c.ctx, c.http, c.base+"/ws", &h)
	case sessionPoll.name:
		stream = wireclient.NewPollStream(c.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			for i := range h.Channels {
				if p, ok := at[h.Channels[i].Channel]; ok {
					h.Channels[i].After = p
				}
			}
			return wireclient.SessionPoll(ctx, c.http, c.base+"/poll?wait=25s", h)
		})
	default:
		c.fatalf("%s takes one channel", c.form.name)
	}
	if err != nil {
		c.fatalf("%s of %q was not accepted: %v", c.form.name, names, err)
	}
	c.atEnd(stream.Close)
	return &reading{check: c, stream: stream, form: c.form}
}

// errNothing is for a line on which nothing comes.
var errNothing = errors.New("nothing came")

// firstAbout returns what a line of the clause's form says first about its channel,
// or how it was refused. A channel that ends, or a line that does, is a refusal.
func (c *serverCheck) firstAbout(channel, after string) (it wireclient.Item, err error) {
	stream, err := c.form.open(c, c.site, channel, after)
	if err != nil {
		return it, err
	}
	defer stream.Close()
	tooLate := time.AfterFunc(c.patience(), stream.Close)
	defer tooLate.Stop()
	for {
		it, err = stream.Next()
		_, refused := refusalOf(err)
		switch {
		case err != nil && !refused && c.form.name == plainWS.name: // what it closes with counts
			e := c.socket("/ws" + wireclient.Query(after, channel)).end()
			code, _, _ := strings.Cut(e.reason, " ")
			return it, &wireclient.Refused{Status: e.code, Reason: wireclient.Reason{Code: code, Message: e.String()}}
		case refused:
			return it, err
		case err != nil:
			return it, errors.Join(errNothing, err)
		case it.End != nil:
			return it, &wireclient.Refused{Reason: *it.End}
		case it.Close != nil:
			return it, &wireclient.Refused{Reason: *it.Close}
		case !it.Beat && it.Open == nil:
			return it, nil
		}
	}
}

// compactJSON is JSON without the white space between its parts.
func compactJSON(data []byte) string {
	var v json.RawMessage
	if json.Unmarshal(data, &v) != nil {
		return string(data)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return string(data)
	}
	return string(b)
}

// refusalOf is what an error says of a refusal.
func refusalOf(err error) (*wireclient.Refused, bool) { return errors.AsType[*wireclient.Refused](err) }
