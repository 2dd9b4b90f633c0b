package conformance

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/throughline/throughline/internal/wireclient"
)

// How versions are told apart, and what a later one may add: P6.2 and §11.
var versionClauses = []serverClause{
	{
		id: "P6.2_OtherVersionsAreRefused", group: "versions", over: sessionForms, clock: anyClock,
		text: "MUST: a hello of another version is refused with bad_version, and the versions that are spoken beside the code.",
		run:  (*serverCheck).otherVersionsAreRefused,
	},
	{
		id: "P11.1_VersionIsFirst", group: "versions", over: sessionForms, clock: anyClock,
		text: "MUST: the version of a hello is looked at before anything else: one of another version is refused with bad_version, whatever else can't be read.",
		run:  (*serverCheck).versionIsFirst,
	},
	{
		id: "P11.1_HeadHasAVersion", group: "versions", clock: anyClock, needs: []Feature{Upstream},
		text: "MUST: a head up of another version is refused with bad_version, and the versions that are spoken beside the code, whatever else can't be read.",
		run:  (*serverCheck).headHasAVersion,
	},
	{
		id: "P11.2_PositionOfAnotherVersion", group: "versions", over: []form{plainSSE, plainPoll, sessionSSE, sessionWS, sessionPoll}, clock: anyClock,
		text: "MUST: a position of an unknown version is a bad_position, in the session protocol of its channel alone.",
		run:  (*serverCheck).positionOfAnotherVersion,
	},
	{
		id: "P11.2_TokenOfAnotherVersion", group: "versions", over: sessionForms, clock: anyClock,
		text: "MUST: a token of an unknown version does not verify: it begins a new session.",
		run:  (*serverCheck).tokenOfAnotherVersion,
	},
	{
		id: "P11.3_UnknownMembersAreIgnored", group: "versions", over: sessionForms, clock: anyClock,
		text: "MUST: members that a server doesn't know are ignored, wherever they stand in a frame.",
		run:  (*serverCheck).unknownMembersAreIgnored,
	},
	{
		id: "P11.3_UnknownMembersOfRequests", group: "versions", clock: anyClock, needs: []Feature{Upstream},
		text: "MUST: members that a server doesn't know are ignored in frames that come by request, too.",
		run:  (*serverCheck).unknownMembersOfRequests,
	},
}

func (c *serverCheck) versionsNamed(text string, why wireclient.Reason) {
	if why.Code == "bad_version" && !slices.Equal(why.Versions, []int{1}) {
		c.errorf("%s was refused with the versions %v, not [1]", text, why.Versions)
	}
}

func (c *serverCheck) otherVersionsAreRefused() {
	for _, text := range []string{`{"hello":{"version":2,"line":1}}`, `{"hello":{"version":99,"line":1,"channels":[{"channel":"room"}]}}`, `{"hello":{"version":2,"line":1,"probe":true}}`} {
		c.versionsNamed(text, c.replyRefused(text, 400, "bad_version"))
	}
	for _, text := range []string{`{"hello":{"line":1}}`, `{"hello":{"version":"1","line":1}}`, `{"hello":{"version":0,"line":1}}`} {
		if got := c.replyTo(text); got.refused == nil {
			c.errorf("%s: %s, which does not say version 1, began a line", c.form.name, text)
		}
	}
}

func (c *serverCheck) versionIsFirst() {
	for _, text := range []string{
		`{"hello":{"version":2,"line":"x","token":[],"channels":7,"presence":"room"}}`,
		`{"hello":{"line":-1,"version":3,"channels":[1,2]}}`,
		`{"hello":{"version":2,"line":1,"channels":[{"channel":""},{"channel":"room","after":"x y"}]}}`,
		`{"hello":{"version":2,"line":1,"x":"` + strings.Repeat("x", 2000) + `"}}`,
	} {
		c.versionsNamed(text, c.replyRefused(text, 400, "bad_version"))
	}
}

func (c *serverCheck) headHasAVersion() {
	for _, text := range []string{
		`{"up":{"version":2,"token":""},"close":{}}`,
		`{"up":{"version":2,"token":7},"close":{"line":"x"}}`,
		`{"up":{"version":9},"publish":7,"call":"x"}`,
		`{"up":{"version":9},"later":{}}`,
	} {
		c.versionsNamed(text, c.refusedAs(text, c.ask(c.http, "POST", "/up", text), 400, "bad_version", "never"))
	}
	const good = `{"up":{"version":1,"token":""},"close":{"line":1}}`
	if a := c.ask(c.http, "POST", "/up", good); a.status != 200 {
		c.errorf("%s was answered with %d: %.200s", good, a.status, a.text)
	}
}

// ofAnotherVersion is a position or token that begins with a version character
// that nobody uses.
func ofAnotherVersion(text string) string { return "~" + text[1:] }

func (c *serverCheck) positionOfAnotherVersion() {
	begin := c.publish("room", "0")
	at := c.publish("room", "1")
	if c.form.needs == PlainSSE || c.form.needs == PlainPoll {
		path := "/" + c.form.carrier + wireclient.Query(ofAnotherVersion(begin), "room")
		c.refusedAs("a position of an unknown version", c.ask(c.http, "GET", path, ""), 400, "bad_position", "never")
		return
	}
	h := helloOf(1, "odd", "room")
	h.Channels[0].After, h.Channels[1].After = ofAnotherVersion(begin), begin
	l := c.line(h)
	var event, end bool
	for !event || !end {
		switch it := l.next(); {
		case it.End != nil && it.Channel == "odd" && it.End.Code == "bad_position" && it.End.Class == "never":
			end = true
		case it.Event && it.Position == at:
			event = true
		case !it.Opening || it.Channel != "room":
			c.fatalf("%s: %s came, not the end of \"odd\" with \"bad_position\"", l.form.name, whole(it))
		}
	}
	l.still("room", "2")
}

func (c *serverCheck) tokenOfAnotherVersion() {
	l := c.line(helloOf(1))
	h := helloOf(2)
	h.Token = ofAnotherVersion(l.token)
	next, err := c.tryLine(c.form, c.site, c.http, h)
	if err != nil {
		c.fatalf("%s: a hello with a token of an unknown version was not accepted: %v", c.form.name, err)
	}
	if t := next.opened.Token; t == "" || t == h.Token || t == l.token {
		c.errorf("%s: with a token of an unknown version the open brought %.5q…, not that of a new session", c.form.name, t)
	}
}

func (c *serverCheck) unknownMembersAreIgnored() {
	const deep = `{"a":[1,{"hello":{"version":9}},null,"\u0000"],"channel":"other"}`
	text := `{"later":` + deep + `,"hello":{"version":1,"new":` + deep + `,"line":7,"channels":[{"channel":"room","hint":` + deep + `}],"Extra":null},"z":1.5}`
	got := c.replyTo(text)
	if got.refused != nil {
		c.fatalf("%s: %s was refused with %q: %s", c.form.name, text, got.refused.Code, got.refused.Message)
	}
	if got.open.Line != 7 {
		c.errorf("%s: it began line %d, not 7", c.form.name, got.open.Line)
	}
	switch c.form.carrier {
	case "poll":
		var body struct{ Positions map[string]string }
		a := c.ask(c.http, "POST", "/poll", text)
		if err := json.Unmarshal([]byte(a.text), &body); err != nil || len(body.Positions) != 1 || body.Positions["room"] == "" {
			c.errorf("%s was answered with the positions %v, not that of room, %v", text, body.Positions, err)
		}
	case "ws":
		l := c.line(helloOf(1))
		l.say(`{"subscribe":[{"channel":"room","new":` + deep + `}],"later":` + deep + `}`)
		l.opens("room", "")
		l.still("room", "1")
		l.say(`{"later":[],"unsubscribe":["room"],"x":null}`)
		l.ended("room", "unsubscribed", "now")
	}
}

func (c *serverCheck) unknownMembersOfRequests() {
	const text = `{"later":[1],"up":{"version":1,"token":"","new":{"version":2}},"close":{"line":1,"why":"x"},"z":null}`
	if a := c.ask(c.http, "POST", "/up", text); a.status != 200 || strings.TrimSpace(a.text) != "{}" {
		c.errorf("%s was answered with %d and %.200q, not with {}", text, a.status, a.text)
	}
}
