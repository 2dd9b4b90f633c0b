package server_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
)

// An entry is one message as the log holds it at the end.
type entry struct {
	channel  string
	position string
	data     string
	place    int // in the channel
}

// judge holds what each client was told against what the log holds.
func (u *upstream) judge() {
	held := map[int]entry{} // by number
	for _, name := range upChannels {
		for i, e := range u.readAll(name) {
			n, err := conformance.Number(e.Data)
			if _, again := held[n]; again || err != nil {
				u.t.Errorf("%s is in the log twice", e.Data)
			}
			held[n] = entry{name, e.At.String(), string(e.Data), i}
		}
	}
	told := map[string]int{}
	for _, c := range u.clients {
		u.judgeProducer(c, held, told)
		u.judgeReader(c)
		for _, call := range c.calls {
			u.judgeCall(call, told)
		}
	}
	u.t.Log(told)
}

func (u *upstream) readAll(name string) []eventlog.Event {
	ch := eventlog.Channel{Name: name}
	at, err := u.log.Seek(context.Background(), ch, eventlog.Start{Earliest: true})
	if err != nil {
		u.t.Fatal(err)
	}
	page, err := u.log.Read(context.Background(), ch, at, eventlog.Limit{Bytes: 64 << 20})
	if err != nil {
		u.t.Fatal(err)
	}
	return page.Events
}

// judgeProducer judges each publish of a client, and their order.
func (u *upstream) judgeProducer(c *upClient, held map[int]entry, told map[string]int) {
	before := map[string]int{} // where in each channel the last one is
	for _, p := range c.pubs {
		name := fmt.Sprintf("%s/%d", c.name, p.Frame.Seq)
		if !p.settled() {
			u.t.Errorf("P9.3: nobody knows what became of %s", name)
			continue
		}
		place, there := u.placeOf(name, &p, held)
		if there && place < before[p.Frame.Channel] {
			u.t.Errorf("D8: %s stands before an earlier frame of its producer in %s", name, p.Frame.Channel)
		}
		if there {
			before[p.Frame.Channel] = place + 1
		}
		u.judgePublish(name, &p, held[p.last].position, there, told)
	}
}

// placeOf reports where in its channel a frame begins: all of it is there, in a
// row and as it was sent, or nothing.
func (u *upstream) placeOf(name string, p *parcel, held map[int]entry) (place int, there bool) {
	of := len(p.Frame.Messages)
	first, there := held[p.last-of+1]
	for i, m := range p.Frame.Messages {
		e, ok := held[p.last-of+1+i]
		switch {
		case ok != there:
			u.t.Errorf("P9.2: only a part of %s is in the log", name)
		case ok && (e.channel != p.Frame.Channel || e.place != first.place+i || e.data != string(m.Data)):
			u.t.Errorf("P9.2: %s is not as it was sent: %+v, the frame begins at %+v", name, e, first)
		}
	}
	return first.place, there
}

// judgePublish judges what a client was told of one frame, which is in the log at
// a position, or isn't.
func (u *upstream) judgePublish(name string, p *parcel, position string, there bool, told map[string]int) {
	twice := u.twice[name]
	if p.Refused == nil {
		told["published"]++
		switch {
		case !there:
			u.t.Errorf("D7: %s was acknowledged and is not in the log", name)
		case position != p.Position:
			u.t.Errorf("P9.4: %s was acknowledged at %s and is at %s", name, p.Position, position)
		case p.Duplicate && !p.Frame.Repeat && !twice:
			u.t.Errorf("P9.5: %s is a duplicate, and the client was told that no other copy was tried", name)
		}
		if p.want != "" {
			u.t.Errorf("P9.7: %s was acknowledged, want %s", name, p.want)
		}
		return
	}
	code := p.Refused.Code
	told[code]++
	switch {
	case p.want != "" && !p.GaveUp:
		if code != p.want || there {
			u.t.Errorf("P9.6: %s is answered %s, want %s; in the log: %t", name, code, p.want, there)
		}
	case p.GaveUp:
		told["given up"]++
		if age := p.Ended.Sub(p.First); age < remembered*9/10 {
			u.t.Errorf("P9.6: %s was given up after %v", name, age)
		}
	case code == "unknown":
		if !p.Frame.Repeat {
			u.t.Errorf("P9.6: %s is unknown, and was tried once", name)
		}
	case p.Frame.Repeat:
		u.t.Errorf("P9.6: %s, a repeat, was refused with %s", name, code)
	case code == "busy" && u.crowded && !there:
	case !u.said(p, code):
		u.t.Errorf("P9.7: %s was refused with %s, which nobody said in its time", name, code)
	case there && (!twice || !u.changedIn(p)):
		u.t.Errorf("P9.4: %s was refused with %s, and is in the log at %s", name, code, position)
	case there:
		told["refused, and its copy published"]++
	}
}

// finals are the verdicts that refuse for good, by the codes that tell them.
var finals = map[string]int32{"forbidden": forbidden, "pay_first": payFirst, "failed": hookPanics}

// said reports whether a channel's rights were once, while a frame was on its
// way, such that a code tells them.
func (u *upstream) said(p *parcel, code string) bool {
	verdict, known := finals[code]
	now := open // at the beginning
	for _, c := range u.changed[p.Frame.Channel] {
		if now == verdict && !c.at.Before(p.First) {
			return known
		}
		if now = c.to; c.at.After(p.Ended) {
			return false
		}
	}
	return known && now == verdict
}

// changedIn reports whether a channel's rights changed since a frame was sent.
func (u *upstream) changedIn(p *parcel) bool {
	return slices.ContainsFunc(u.changed[p.Frame.Channel], func(c change) bool { return !c.at.Before(p.First) })
}

// judgeReader judges what came down to a client while all that went up.
func (u *upstream) judgeReader(c *upClient) {
	oracle := conformance.NewOracle(u.begin.String())
	for _, e := range u.readAll(upChannels[0]) {
		n, _ := conformance.Number(e.Data)
		oracle.Appended(n, e.At.String())
	}
	if v := oracle.Judge(u.begin.String(), c.seen); !v.OK() || v.Unreached > 0 {
		u.t.Errorf("%s, of %d events: %v", c.name, len(c.seen), v)
	}
}

// neverRan are the codes that say that a handler did not run.
var neverRan = []string{"unsent", "shutdown", "busy", "unavailable"}

// judgeCall judges one call by the runs of its handler.
func (u *upstream) judgeCall(c *called, told map[string]int) {
	runs, twice := u.runs[c.arg], u.twice[c.arg]
	if !c.settled() {
		u.t.Errorf("P9.11: call %s was not answered", c.arg)
		return
	}
	for _, r := range runs {
		if r.key != c.key {
			u.t.Errorf("P9.11: call %s ran with the key %q, not %q", c.arg, r.key, c.key)
		}
	}
	if c.key == "" && len(runs) > 1 && !twice {
		u.t.Errorf("P9.10: call %s ran %d times", c.arg, len(runs))
	}
	if c.Error == nil {
		told["answered"]++
		if !slices.ContainsFunc(runs, func(r run) bool { return r.result == string(c.Value) }) {
			u.t.Errorf("P9.9: call %s is answered %s, and ran like this: %+v", c.arg, c.Value, runs)
		}
		return
	}
	told["call "+c.Error.Code]++
	switch code := c.Error.Code; {
	case code == "unknown":
		u.judgeUnknown(c, runs)
	case slices.Contains(neverRan, code):
		if len(runs) > 0 && !twice || c.key != "" {
			u.t.Errorf("P9.10: call %s (key %q) is answered %s, and ran %d times", c.arg, c.key, code, len(runs))
		}
	case !slices.ContainsFunc(runs, func(r run) bool { return r.result == code || r.result == "panic" && code == "failed" }):
		u.t.Errorf("P9.13: call %s is answered %s, and ran like this: %+v", c.arg, code, runs)
	}
}

// judgeUnknown: a client says unknown itself only of a call sent once (that
// something happened to the wire is judged when it does). The server says so when
// the handler took too long, or the node went away while it ran; who called as
// repeatable is sent elsewhere then.
func (u *upstream) judgeUnknown(c *called, runs []run) {
	switch {
	case c.Lost && c.key != "":
		u.t.Errorf("P9.11: call %s is repeatable, and was given up", c.arg)
	case c.Lost, len(runs) > 0 && c.key == "" && u.diedSince(c.began):
	case !slices.ContainsFunc(runs, func(r run) bool { return r.took >= callTime }):
		u.t.Errorf("P9.10: the server says that call %s (key %q) is unknown, and it ran like this: %+v", c.arg, c.key, runs)
	}
}
