package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// The two ways up: a frame of a line, and a request.
var (
	byLine    = form{name: "by line", carrier: "ws", needs: SessionWS}
	byRequest = form{name: "by request", carrier: "up"}
	upForms   = []form{byLine, byRequest}
)

var (
	publishing = []Feature{Upstream}
	calling    = []Feature{Calls}
)

// What §9 of PROTOCOL.md promises of publishes and calls.
var upstreamClauses = []serverClause{
	{
		id: "P9.1_TokenIsNoCondition", group: "upstream", over: []form{byRequest}, needs: publishing, clock: anyClock,
		text: "MUST: a frame that comes by request is worked on with a token, without one, and with one that doesn't verify.",
		run:  (*serverCheck).tokenIsNoCondition,
	},
	{
		id: "P9.1_CloseNeedsItsToken", group: "sessions", over: []form{sessionSSE, sessionWS}, needs: publishing, clock: anyClock,
		text: "MUST: the answer to a close is {}, and without a token that verifies it does nothing: the line goes on.",
		run:  (*serverCheck).closeNeedsItsToken,
	},
	{
		id: "P9.1_WhatCantBeRead", group: "malformed input", over: []form{byRequest}, needs: publishing, clock: anyClock,
		text: "MUST: a request up that can't be read is refused with a status and a code, and nothing of it is done.",
		run:  (*serverCheck).upCantBeRead,
	},
	{
		id: "P9.1_LargestMessage", group: "upstream", over: []form{byRequest}, needs: publishing, clock: anyClock,
		text:  "MUST: a request up may be as large as one message of the largest size needs, however JSON writes it; a larger message is too_large.",
		setup: ServerSetup{MaxMessage: 100_000},
		run:   (*serverCheck).largestMessage,
	},
	{
		id: "P9.1_NoContentEncoding", group: "malformed input", over: []form{byRequest}, needs: publishing, clock: anyClock,
		text: "MUST: a body up that has a Content-Encoding is refused with 415 bad_encoding.",
		run:  (*serverCheck).noContentEncoding,
	},
	{
		id: "P9.1_AnyNode", group: "nodes", over: upForms, needs: []Feature{Upstream, Nodes}, clock: anyClock,
		text: "MUST: what is published at one node comes to readers at another, whichever gave the token.",
		run:  (*serverCheck).publishAtAnyNode,
	},
	{
		id: "P9.2_AppendedAsSaid", group: "payloads", over: upForms, needs: publishing, clock: anyClock,
		text: "MUST: the messages of a publish are appended as they were said: JSON, text and binary, each with its type, message where none is said.",
		run:  (*serverCheck).appendedAsSaid,
	},
	{
		id: "P9.2_ComesToReadersInOrder", group: "order", over: allForms, needs: publishing, clock: anyClock,
		text: "MUST: what a producer publishes comes to readers once and in the order of its numbers.",
		run:  (*serverCheck).comesToReadersInOrder,
	},
	{
		id: "P9.2_NextToEachOther", group: "order", over: upForms, needs: publishing, clock: anyClock,
		text: "MUST: the messages of one publish are next to each other in the channel, also if several clients publish at once.",
		run:  (*serverCheck).nextToEachOther,
	},
	{
		id: "P9.2_AllOrNothing", group: "upstream", over: upForms, needs: publishing, clock: anyClock,
		text: "MUST: if one message of a publish is refused, none of its messages is appended.",
		run:  (*serverCheck).allOrNothing,
	},
	{
		id: "P9.2_AsManyAsStated", group: "upstream", over: upForms, needs: publishing, clock: anyClock,
		text: "MUST: a batch of 64 frames, a frame of 100 messages, and producers of 22 and of 64 characters are taken.",
		run:  (*serverCheck).asManyAsStated,
	},
	{
		id: "P9.2_MalformedBatch", group: "malformed input", over: upForms, needs: publishing, clock: anyClock,
		text: "MUST: a batch that breaks a rule of its form is refused with bad_request, whole, and nothing of it is appended.",
		run:  (*serverCheck).malformedBatch,
	},
	{
		id: "P9.3_OneBatchUnderWay", group: "upstream", over: []form{byLine}, needs: []Feature{Upstream, Rights},
		text:  "MUST: a second batch on a line before the first was answered ends the line with bad_request; after the answer the next may come at once.",
		setup: ServerSetup{Refuse: refuseByChannel},
		run:   (*serverCheck).oneBatchUnderWay,
	},
	{
		id: "P9.3_SlowBatchHoldsUpNobody", group: "upstream", over: upForms, needs: []Feature{Upstream, Rights},
		text:  "MUST: while one batch takes its time, other producers' are answered, and events come, also over the same line.",
		setup: ServerSetup{Refuse: refuseByChannel},
		run:   (*serverCheck).slowBatchHoldsUpNobody,
	},
	{
		id: "P9.4_AnEntryForEach", group: "upstream", over: upForms, needs: []Feature{Upstream, Rights}, clock: anyClock,
		text:  "MUST: each frame is answered in order, with the position of its last message, or with why it was refused; later frames go on.",
		setup: ServerSetup{Refuse: refuseByChannel},
		run:   (*serverCheck).anEntryForEach,
	},
	{
		id: "P9.4_DuplicateIsSaid", group: "upstream", over: upForms, needs: publishing, clock: anyClock,
		text: "MUST: a frame whose number was appended before is a duplicate: it is answered with the first position, and is not appended again.",
		run:  (*serverCheck).duplicateIsSaid,
	},
	{
		id: "P9.5_StopsThere", group: "upstream", over: upForms, needs: []Feature{Upstream, Rights}, clock: anyClock,
		text:  "MUST: a frame that can be neither done nor refused for good is the last entry, as retry and without tried; nothing after it is worked on.",
		setup: ServerSetup{Refuse: refuseByChannel},
		run:   (*serverCheck).stopsThere,
	},
	{
		id: "P9.5_TriedIsSaid", group: "upstream", over: upForms, needs: []Feature{Upstream, Outages}, clock: anyClock,
		text: "MUST: a frame that may have been appended by a log that doesn't answer stops the batch with tried; its repeat is in the channel once.",
		run:  (*serverCheck).triedIsSaid,
	},
	{
		id: "P9.6_RepeatAnywhere", group: "lost answers", over: upForms, needs: []Feature{Upstream, SessionWS}, clock: anyClock,
		text: "MUST: a repeat of what was appended is a duplicate, over whatever line or request it comes.",
		run:  (*serverCheck).repeatAnywhere,
	},
	{
		id: "P9.6_RepeatAtAnotherNode", group: "nodes", over: upForms, needs: []Feature{Upstream, Nodes}, clock: anyClock,
		text: "MUST: a repeat at another node of what was appended is a duplicate with the first position.",
		run:  (*serverCheck).repeatAtAnotherNode,
	},
	{
		id: "P9.6_RefusedRepeatIsUnknown", group: "lost answers", over: upForms, needs: []Feature{Upstream, Rights}, clock: anyClock,
		text:  "MUST: a repeat that is refused now is answered unknown, but for bad_channel and invalid.",
		setup: ServerSetup{Refuse: refuseByChannel},
		run:   (*serverCheck).refusedRepeatIsUnknown,
	},
	{
		id: "P9.6_RememberedAsLongAsSaid", group: "lost answers", over: upForms, needs: []Feature{Upstream, SessionWS},
		text:  "MUST: for as long as the open's remembered says, a repeat of what was appended is a duplicate.",
		setup: ServerSetup{Remember: 10 * time.Minute},
		run:   (*serverCheck).rememberedAsLongAsSaid,
	},
	{
		id: "P9.7_RefusedForGood", group: "upstream", over: upForms, needs: []Feature{Upstream, Rights}, clock: anyClock,
		text:  "MUST: forbidden, the program's own codes, bad_channel, invalid, too_large and stale refuse a frame for good, each by its code.",
		setup: ServerSetup{Refuse: refuseByChannel, MaxMessage: 1000},
		run:   (*serverCheck).refusedForGood,
	},
	{
		id: "P9.7_TooManyProducers", group: "upstream", over: upForms, needs: publishing, clock: anyClock,
		text:  "MUST: where too many producers are remembered, a new one is refused with busy and a delay, and those that are remembered go on.",
		setup: ServerSetup{MaxProducers: 2},
		run:   (*serverCheck).tooManyProducers,
	},
	{
		id: "P9.8_ProducersOfRequestsAreOthers", group: "upstream", over: upForms, needs: []Feature{Upstream, PublishByRequest}, clock: anyClock,
		text: "MUST: a producer of section 7 and one of section 9 that have the same name and number are two.",
		run:  (*serverCheck).producersOfRequestsAreOthers,
	},
	{
		id: "P9.9_Answered", group: "calls", over: upForms, needs: calling, clock: anyClock,
		text:  "MUST: a call is answered with its id and the handler's data, of each encoding.",
		setup: ServerSetup{Answer: answerByName},
		run:   (*serverCheck).callIsAnswered,
	},
	{
		id: "P9.9_MalformedCall", group: "malformed input", over: upForms, needs: calling, clock: anyClock,
		text:  "MUST: a call that breaks a rule of its form, or is part of a batch, is refused with bad_request.",
		setup: ServerSetup{Answer: answerByName},
		run:   (*serverCheck).malformedCall,
	},
	{
		id: "P9.10_UnknownAfterTheDeadline", group: "calls", over: upForms, needs: calling,
		text:  "MUST: a call whose handler takes longer than its deadline is answered unknown then.",
		setup: ServerSetup{Answer: answerByName, CallTimeout: 4 * time.Second},
		run:   (*serverCheck).unknownAfterTheDeadline,
	},
	{
		id: "P9.11_HandlerSeesTheKey", group: "calls", over: upForms, needs: calling, clock: anyClock,
		text:  "MUST: the handler sees the key of a call, and a call that is repeated with its key is answered again.",
		setup: ServerSetup{Answer: answerByName},
		run:   (*serverCheck).handlerSeesTheKey,
	},
	{
		id: "P9.12_OnlySoMany", group: "calls", over: []form{sessionWS}, needs: calling,
		text:  "MUST: a client has a stated number of calls in work, by line and by request together; one more is busy, and other clients' are not.",
		setup: ServerSetup{Answer: answerByName, MaxCalls: 3},
		run:   (*serverCheck).onlySoManyCalls,
	},
	{
		id: "P9.12_SlowCallHoldsUpNobody", group: "calls", over: upForms, needs: calling,
		text:  "MUST: while one call takes its time, others are answered, and events come, also over the same line.",
		setup: ServerSetup{Answer: answerByName},
		run:   (*serverCheck).slowCallHoldsUpNobody,
	},
	{
		id: "P9.13_FailsWithoutItsText", group: "calls", over: upForms, needs: calling, clock: anyClock,
		text:  "MUST: a handler that fails is answered failed without its text, or with the program's own code.",
		setup: ServerSetup{Answer: answerByName},
		run:   (*serverCheck).failsWithoutItsText,
	},
}

// refuseByChannel is the program of most of these clauses: what it does about
// a publish is the channel's name.
func refuseByChannel(action, _, channel string) (code string) {
	if action != "publish" {
		return ""
	}
	switch channel {
	case "forbidden", "busy":
		return channel
	case "own":
		return "pay_first"
	case "slow":
		time.Sleep(5 * time.Second)
	}
	return ""
}

// answerByName handles calls by their names.
func answerByName(ctx context.Context, name, key string, data []byte) (answer []byte, code string) {
	switch name {
	case "key":
		return fmt.Appendf(nil, "%q", key), ""
	case "own":
		return nil, "no_sugar"
	case "fails":
		return nil, "failed"
	case "slow":
		select {
		case <-ctx.Done():
			return nil, "failed"
		case <-time.After(5 * time.Second):
		}
	case "deaf":
		time.Sleep(20 * time.Second)
	}
	return data, ""
}

// A mouth says one frame to a server, and returns what answers it. A refusal of
// the whole is an item with Close.
type mouth func(frame string) wireclient.Item

// mouth is a client's of the clause's way up.
func (c *serverCheck) mouth() mouth { return c.mouthOver(c.form, c.site) }

func (c *serverCheck) mouthOver(way form, s *site) mouth {
	if way.carrier == "up" {
		return func(frame string) wireclient.Item { return c.up(s, "", frame) }
	}
	r := c.lineOver(sessionWS, s, s.http, helloOf(1))
	return func(frame string) wireclient.Item {
		r.say(frame)
		return r.next()
	}
}

// reaches reads on until the event at a position, whatever comes before.
func (r *reading) reaches(position string) {
	for {
		it := r.next()
		switch {
		case it.Event && it.Position == position:
			return
		case it.Close != nil, it.End != nil:
			r.check.fatalf("%s: %s came, and not the event at %q", r.form.name, inWords(it), position)
		}
	}
}

// up says a frame by request.
func (c *serverCheck) up(s *site, token, frame string) wireclient.Item {
	return c.upBody(s, `{"up":{"version":1,"token":"`+token+`"},`+strings.TrimPrefix(frame, "{"))
}

func (c *serverCheck) upBody(s *site, body string) wireclient.Item {
	a := c.postUp(s, body)
	var answer struct {
		Published []wireclient.Outcome
		Answer    *wireclient.Reply
		Error     *wireclient.Reason
	}
	if err := json.Unmarshal([]byte(a.text), &answer); err != nil {
		c.fatalf("POST /up of %.200s was answered %d with %.200q: %v", body, a.status, a.text, err)
	}
	if (a.status == http.StatusOK) != (answer.Error == nil) {
		c.errorf("POST /up of %.200s was answered with the status %d and %.200q", body, a.status, a.text)
	}
	return wireclient.Item{Published: answer.Published, Reply: answer.Answer, Close: answer.Error}
}

// postUp posts a body to {base}/up.
func (c *serverCheck) postUp(s *site, body string, headers ...string) httpAnswer {
	return c.askAt(s, s.http, http.MethodPost, "/up", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// aForm is one that the server has.
func (c *serverCheck) aForm(forms ...form) form {
	for _, f := range forms {
		if f.lacking(c.server) == "" {
			return f
		}
	}
	c.fatalf("the server has none of %d forms of reading that would do", len(forms))
	return form{}
}

// theEnd is the data of the event by which contents knows that it has read all.
const theEnd = `"the end of what the channel holds"`

// contents are a channel's events, from its oldest on.
func (c *serverCheck) contents(s *site, channel string) (events []wireclient.Item) {
	end := c.publish(channel, theEnd)
	r := c.readOver(c.aForm(plainPoll, sessionWS, sessionSSE, sessionPoll, plainWS, plainSSE), s, channel, "earliest")
	defer r.stream.Close()
	seen := map[string]bool{} // whether each comes once is for others to say
	for {
		it := r.next()
		switch {
		case it.Event && it.Position == end:
			return events
		case it.Event && string(it.Data) != theEnd && !seen[it.Position]:
			events = append(events, it)
			seen[it.Position] = true
		case it.End != nil || it.Close != nil:
			c.fatalf("%s came while the channel %q was read from its oldest event on", inWords(it), channel)
		}
	}
}

// holds has a channel hold the events with these data, and no others.
func (c *serverCheck) holds(channel string, want ...string) {
	got := []string{}
	for _, e := range c.contents(c.site, channel) {
		got = append(got, string(e.Data))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		c.errorf("the channel %q holds %.300q, not %.300q", channel, got, want)
	}
}

// expect compares what came with what should have come.
func (c *serverCheck) expect(what, got, want string) {
	if got != want {
		c.errorf("%s: %q came, not %q", what, got, want)
	}
}
