package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// An answer of a poll, as it is written.
type pollBody struct {
	Events    []json.RawMessage
	Gaps      []json.RawMessage
	Positions map[string]string
}

// plainPoll asks once.
func (c *serverCheck) plainPoll(query string) (b pollBody) {
	r := c.ask(c.http, "GET", "/poll"+query, "")
	media, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	if err := json.Unmarshal([]byte(r.text), &b); err != nil || r.status != 200 || media != "application/json" {
		c.fatalf("GET /poll%s was answered %d %q %.200q", query, r.status, r.header.Get("Content-Type"), r.text)
	}
	return b
}

func (b pollBody) positions(c *serverCheck) (events []string) {
	for _, raw := range b.Events {
		events = append(events, c.parseObject(string(raw)).Position)
	}
	return events
}

func (c *serverCheck) waits() {
	p := c.publish("room", "1")
	for query, want := range map[string]time.Duration{
		"": 0, "&wait=0": 0, "&wait=25s": 25 * time.Second, "&wait=1500ms": 1500 * time.Millisecond, "&wait=7": 7 * time.Second, "&wait=2h": 40 * time.Second, "&wait=0m30.5s": 30*time.Second + 500*time.Millisecond, "&wait=86400": 40 * time.Second,
	} {
		began := time.Now()
		b := c.plainPoll(wireclient.Query(p, "room") + query)
		if took := time.Since(began); took < want || took > want+time.Second {
			c.errorf("a poll without news with %q was answered after %v, not after %v", query, took, want)
		}
		if len(b.Events)+len(b.Gaps) > 0 || b.Positions["room"] != p {
			c.errorf("a poll without news with %q was answered with %+v, not with no event and the position %q", query, b, p)
		}
	}
}

func (c *serverCheck) plainPollAnswer() {
	at := c.publishMany("room", 1, 3)
	b := c.plainPoll(wireclient.Query(at[0], "room"))
	if got := fmt.Sprint(b.positions(c), len(b.Gaps), b.Positions); got != fmt.Sprint(at[1:], 0, map[string]string{"room": at[2]}) {
		c.errorf("a poll after %q was answered with the events, number of gaps and positions %s, where %q should be", at[0], got, at[1:])
	}
	b = c.plainPoll(wireclient.Query("", "room"))
	if len(b.Events) > 0 || b.Positions["room"] != at[2] {
		c.errorf("a poll of what comes from now on was answered with %d events and the positions %v, not with %q alone", len(b.Events), b.Positions, at[2])
	}
	more := c.publishMany("room", 4, 13)
	held := c.firstHeld("room", append([]string{at[0]}, more...)) - 1
	b = c.plainPoll(wireclient.Query(at[0], "room"))
	if len(b.Gaps) != 1 {
		c.fatalf("a poll after %q, from which events are trimmed, was answered with %d gaps", at[0], len(b.Gaps))
	}
	if it := c.parseObject(string(b.Gaps[0])); it.Channel != "room" || it.Gap == nil || *it.Gap != (wireclient.Gap{From: at[0], To: more[held-1], Reason: "trimmed"}) {
		c.errorf("a poll after %q was answered with %s, not with a gap \"trimmed\" to %q", at[0], inWords(it), more[held-1])
	}
	if got := b.positions(c); fmt.Sprint(got) != fmt.Sprint(more[held:]) || b.Positions["room"] != more[9] {
		c.errorf("a poll after a gap was answered with the events at %q and the position %q, not with %q", got, b.Positions["room"], more[held:])
	}
}

func (c *serverCheck) loopOfPolls() {
	next := c.plainPoll(wireclient.Query("", "room")).Positions["room"]
	var want, got []string
	for n := range 20 {
		want = append(want, c.publishMany("room", 10*n, 10*n+n%5)...)
		b := c.plainPoll(wireclient.Query(next, "room") + "&wait=25s")
		got = append(got, b.positions(c)...)
		next = b.Positions["room"]
	}
	for len(got) < len(want) { // an answer may hold a part
		b := c.plainPoll(wireclient.Query(next, "room"))
		if len(b.Events) == 0 {
			break
		}
		got = append(got, b.positions(c)...)
		next = b.Positions["room"]
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		c.errorf("who polls with the positions of the answers got the events at\n  %q, not at\n  %q", got, want)
	}
}

func (c *serverCheck) waitsOnlyForNews() {
	at := c.publishMany("room", 1, 3)
	for query, events := range map[string]int{
		wireclient.Query("", "room"): 0, wireclient.Query("latest", "room"): 0, wireclient.Query("earliest", "room"): 3, wireclient.Query("last=2", "room"): 2, wireclient.Query("earliest", "empty"): 0,
		wireclient.Query(at[0], "room"): 2, wireclient.Query(at[1], "room"): 1,
	} {
		began := time.Now()
		b := c.plainPoll(query + "&wait=25s")
		if took := time.Since(began); took > time.Second || len(b.Events) != events {
			c.errorf("GET /poll%s&wait=25s was answered after %v with %d events, not at once with %d", query, took, len(b.Events), events)
		}
	}
}

func (c *serverCheck) newsEndsTheWait() {
	p := c.publish("room", "1")
	for n := range 3 {
		published := make(chan string, 1)
		began := time.Now()
		time.AfterFunc(10*time.Second, func() {
			at, _ := c.testee.Publish(c.ctx, "room", said(2+n))
			published <- at
		})
		b := c.plainPoll(wireclient.Query(p, "room") + "&wait=25s")
		took, at := time.Since(began), <-published
		if took < 10*time.Second || took > 11*time.Second || len(b.Events) != 1 || b.Positions["room"] != at {
			c.errorf("a poll that waits was answered after %v with %d events and the position %q, not after 10s with the event at %q", took, len(b.Events), b.Positions["room"], at)
		}
		p = at
	}
}

func (c *serverCheck) askedAgain() {
	at := c.publishMany("room", 1, 5)
	var more []string
	for n := range 4 {
		b := c.plainPoll(wireclient.Query(at[1], "room"))
		want := append(append([]string(nil), at[2:]...), more...)
		if got := b.positions(c); fmt.Sprint(got) != fmt.Sprint(want) {
			c.errorf("asked for the %d. time, a poll after %q was answered with the events at %q, not at %q", n+1, at[1], got, want)
		}
		more = append(more, c.publish("room", fmt.Sprint(6+n)))
	}
}
