package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/throughline/throughline/internal/wireclient"
)

// What §1 of PROTOCOL.md says of positions and starts.
var positionClauses = []serverClause{
	{
		id: "P1.1_Text", group: "handshake", over: allForms, clock: anyClock,
		text: "MUST: a position is a text of at most 64 characters A-Z, a-z, 0-9, '.', '_', '~' and '-', and two places never have the same.",
		run:  (*serverCheck).positionText,
	},
	{
		id: "P1.3_Starts", group: "handshake", over: allForms, clock: anyClock,
		text: "MUST: a line begins where its start says: \"latest\" or nothing with what comes from now on, \"earliest\" with the first event, \"last=N\" with the last N, or as many as there are, \"since=T\" with the first that is not from before then.",
		run:  (*serverCheck).starts,
	},
	{
		id: "P1.3_EarliestStillHeld", group: "handshake", over: allForms, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: \"earliest\", and a \"last=N\" of more than there are, begin with the oldest event that is still held, without a gap.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).earliestStillHeld,
	},
	{
		id: "P1.4_HistoryIsARight", group: "rights", over: allForms, clock: anyClock, needs: []Feature{Rights},
		text:  "MUST: who may not read history is refused \"earliest\", \"last=N\" and \"since=T\" with forbidden, and goes on from a position all the same.",
		setup: ServerSetup{Refuse: func(action, _, _ string) string { return map[string]string{"history": "forbidden"}[action] }},
		run:   (*serverCheck).historyIsARight,
	},
	{
		id: "P1.5_Unreadable", group: "malformed input", over: allForms, clock: anyClock,
		text: "MUST: an \"after\" that is no start and can't be a position is refused with bad_position.",
		run:  (*serverCheck).unreadable,
	},
	{
		id: "P1.5_AnotherChannels", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: a position of another channel is answered with a gap \"rewritten\" to this channel's head, and shows nothing of the other.",
		run:  (*serverCheck).anotherChannels,
	},
	{
		id: "P1.5_Forged", group: "resume", over: allForms, clock: anyClock,
		text: "MUST: a position that was changed is refused with bad_position, or answered with a gap \"rewritten\" to the head; nothing is taken for what it isn't.",
		run:  (*serverCheck).forged,
	},
}

var positionText = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

func (c *serverCheck) positionText() {
	seen := map[string]string{}
	look := func(what, position string) {
		if !positionText.MatchString(position) {
			c.errorf("%s: %s has the position %q", c.form.name, what, position)
		}
		if other, is := seen[position]; is && other != what {
			c.errorf("%s: %s and %s have the same position, %q", c.form.name, what, other, position)
		}
		seen[position] = what
	}
	r := c.read("room", "")
	look("the opening", r.opening())
	look("the opening of another channel", c.read("other", "").opening())
	for n := range 50 {
		at := c.publish("room", fmt.Sprint(n))
		look(fmt.Sprint("event ", n), at)
		if it := r.next(); it.Position != at {
			c.fatalf("%s: %s came, not the event at %q", c.form.name, inWords(it), at)
		}
		look(fmt.Sprint("event ", n, " of another channel"), c.publish("other", fmt.Sprint(n)))
	}
}

// begins opens a line at a start. A poll's answer has no opening beside events.
func (c *serverCheck) begins(channel, after string, first int, want []string) {
	r := c.read(channel, after)
	if c.form.carrier != "poll" || len(want) == 0 {
		r.opening()
	}
	for i, position := range want {
		if it := r.next(); !it.Event || it.Position != position || string(it.Data) != fmt.Sprint(first+i) {
			c.fatalf("%s: begun at %q, %s came in place of the event %d", c.form.name, after, inWords(it), first+i)
		}
	}
	at := c.publish(channel, `"later"`)
	if it := r.next(); it.Position != at {
		c.fatalf("%s: begun at %q, %s came in place of what was published then", c.form.name, after, inWords(it))
	}
	r.stream.Close()
}

func (c *serverCheck) starts() {
	for i, start := range []struct {
		after string
		from  int // the first event of five; 6: none
	}{{"", 6}, {"latest", 6}, {"earliest", 1}, {"last=1", 5}, {"last=3", 3}, {"last=5", 1}, {"last=10000", 1}, {"since=0", 1}, {"since=32503680000000", 6}} {
		room := fmt.Sprint("room ", i)
		all := c.publishMany(room, 1, 5)
		c.begins(room, start.after, start.from, all[start.from-1:])
		c.begins("empty before "+room, start.after, 1, nil)
	}
}

func (c *serverCheck) earliestStillHeld() {
	for i, start := range []struct {
		after string
		asked int // events
	}{{"earliest", 10}, {"last=4", 4}, {"last=9", 9}} {
		room := fmt.Sprint("room ", i)
		all := c.publishMany(room, 1, 10)
		first := max(c.firstHeld(room, all), len(all)-start.asked)
		c.begins(room, start.after, first+1, all[first:])
	}
}

func (c *serverCheck) historyIsARight() {
	begin := c.publish("room", "0")
	want := c.publishMany("room", 1, 3)
	for _, after := range []string{"earliest", "last=2", "since=0"} {
		it, err := c.firstAbout("room", after)
		if r, ok := refusalOf(err); !ok || r.Code != "forbidden" {
			c.errorf("%s: without the right to history, %q was answered with %s, %v, not refused with forbidden", c.form.name, after, inWords(it), err)
		}
	}
	if at := c.read("room", "latest").opening(); at != want[2] {
		c.errorf("%s: without the right to history, \"latest\" opened at %q, not at %q", c.form.name, at, want[2])
	}
	r := c.read("room", begin)
	r.opening()
	r.events(1, want)
}

func (c *serverCheck) unreadable() {
	good := c.publish("room", "1")
	for _, after := range []string{
		"yesterday!", "two words", "\u00e9", good + "\n", "\n" + good, good + "\r\ndata: x", good + "\x00", good + ",", good + " " + good,
		strings.Repeat("a", 65), good + strings.Repeat("0", 64), strings.Repeat(good, 100), "last=0", "last=10001", "last=-1", "last=", "last=x", "last=1.5", "last=1e9", "last= 1", "since=", "since=-1", "since=1.5", "since=2026-01-01", "since=99999999999999999999", "\"\"", "{}",
	} {
		it, err := c.firstAbout("room", after)
		if r, ok := refusalOf(err); !ok || r.Code != "bad_position" {
			c.errorf("%s: after %.80q was answered with %s, %v, not refused with bad_position", c.form.name, after, inWords(it), err)
		}
	}
}

func (c *serverCheck) anotherChannels() {
	unwritten := c.read("unwritten", "").opening()
	others := append(c.publishMany("other", 100, 104), unwritten)
	head := c.publishMany("room", 1, 5)[4]
	for i, other := range others {
		r := c.read("room", other)
		r.expectGap("rewritten", other, head)
		head = c.publish("room", fmt.Sprint(6+i))
		r.event(head, fmt.Sprint(6+i))
		r.stream.Close()
	}
}

// mutations are texts that are nearly a position.
func mutations(position string) (all []string) {
	for i := range position {
		for _, other := range "0a1z.~" {
			if changed := position[:i] + string(other) + position[i+1:]; changed != position {
				all = append(all, changed)
			}
		}
	}
	return append(all, position+"0", position[:len(position)-1], position[1:], "0"+position, position+"."+position, strings.ToUpper(position))
}

func (c *serverCheck) forged() {
	c.publishMany("room", 1, 4)
	good := c.publish("room", "5")
	head := c.publishMany("room", 6, 9)[3]
	all := mutations(good)
	if over := len(all) / 25; over > 1 { // those of the version, and a part of the others, each kind at another place
		whole := slices.Clone(all)
		all = slices.DeleteFunc(all, func(text string) bool { return text[0] == good[0] && slices.Index(whole, text)%over != 0 })
	}
	for _, text := range all {
		it, err := c.firstAbout("room", text)
		r, refused := refusalOf(err)
		switch {
		case refused && r.Code == "bad_position":
		case err == nil && it.Gap != nil && *it.Gap == (wireclient.Gap{From: text, To: head, Reason: "rewritten"}):
		default:
			c.errorf("%s: %q, which is %q changed, was answered with %s, %v, not with a gap \"rewritten\" to the head %q", c.form.name, text, good, inWords(it), err, head)
		}
	}
}
