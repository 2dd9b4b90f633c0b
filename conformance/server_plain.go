package conformance

import (
	"slices"
	"time"
)

// What §§1 to 5 of PROTOCOL.md promise to plain EventSources, WebSockets and polls.
var plainClauses = slices.Concat(positionClauses, plainSSEClauses, eventSourceClauses, plainWSClauses, plainPollClauses, malformedClauses)

// refuseSome refuses channels by their names.
func refuseSome(_, _, channel string) (code string) {
	return map[string]string{"secret": "forbidden", "crowded": "busy 1500"}[channel]
}

var (
	overPlainSSE  = []form{plainSSE}
	overPlainWS   = []form{plainWS}
	overPlainPoll = []form{plainPoll}
)

var plainSSEClauses = []serverClause{
	{
		id: "P3.1_UpToSixteenChannels", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: a plain stream takes 16 channels, and 17 are refused with too_many_channels.",
		run:  (*serverCheck).upToSixteenChannels,
	},
	{
		id: "P3.2_LastEventIDWins", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: a stream goes on after the Last-Event-ID of its request, whatever its query says.",
		run:  (*serverCheck).lastEventIDWins,
	},
	{
		id: "P3.2_StartsForSeveral", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: with several channels a start in \"after\" holds for each of them, a vector for all, and a single position is refused with bad_position.",
		run:  (*serverCheck).startsForSeveral,
	},
	{
		id: "P3.3_BeginsWithRetryAndID", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: a stream is text/event-stream, and begins with a block of a retry and of an id without data.",
		run:  (*serverCheck).beginsWithRetryAndID,
	},
	{
		id: "P3.4_OneBlockAnEvent", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: an event is one block with its position as id and its payload as data, a line of it each.",
		run:  (*serverCheck).oneBlockAnEvent,
	},
	{
		id: "P3.5_DataURLs", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: binary data, what holds a carriage return, and text that looks like a data URL come as data URLs in base64.",
		run:  (*serverCheck).dataURLs,
	},
	{
		id: "P3.6_AsEvent", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: with as=event the data of a block is the JSON object of the event, on one line.",
		run:  (*serverCheck).asEvent,
	},
	{
		id: "P3.6_NamedEvents", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: with events=named a block names the event's type, unless that is \"message\", and without it no type is named.",
		run:  (*serverCheck).namedEvents,
	},
	{
		id: "P3.7_GapIsABlock", group: "plain use", over: overPlainSSE, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: a gap is a block of the type throughline.gap with its JSON as data and its own \"to\" as id, before which no block has that id.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).gapIsABlock,
	},
	{
		id: "P3.7_ReservedTypes", group: "plain use", clock: anyClock,
		text: "MUST: no event has a type that begins with \"throughline.\", nor \"open\" or \"error\".",
		run:  (*serverCheck).reservedTypes,
	},
	{
		id: "P3.8_VectorsResumeEach", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: with several channels each block's id is a vector with which every channel goes on after what came of it.",
		run:  (*serverCheck).vectorsResumeEach,
	},
	{
		id: "P3.8_VectorOfAnotherList", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: a vector of other channels, or of these in another order, is refused with bad_position.",
		run:  (*serverCheck).vectorOfAnotherList,
	},
	{
		id: "P3.8_VectorBeforeAGap", group: "plain use", over: overPlainSSE, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: a vector that comes before a gap has the lost position still, so that who comes back with it hears of the gap.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).vectorBeforeAGap,
	},
	{
		id: "P3.9_CommentsInSilence", group: "heartbeats", over: overPlainSSE,
		text:  "MUST: a silent stream carries a comment at each interval, and nothing that an EventSource would show.",
		setup: ServerSetup{Heartbeat: 10 * time.Second},
		run:   (*serverCheck).commentsInSilence,
	},
	{
		id: "P3.10_OneRefusedRefusesAll", group: "plain use", over: overPlainSSE, clock: anyClock, needs: []Feature{Rights},
		text:  "MUST: if one of the channels is refused, the whole request is.",
		setup: ServerSetup{Refuse: refuseSome},
		run:   (*serverCheck).oneRefusedRefusesAll,
	},
	{
		id: "P3.11_RefusedForAWhile", group: "plain use", over: overPlainSSE, clock: anyClock, needs: []Feature{Rights},
		text:  "MUST: who is refused but may return after a while is answered with a stream that holds a retry and ends.",
		setup: ServerSetup{Refuse: refuseSome},
		run:   (*serverCheck).refusedForAWhile,
	},
	{
		id: "P3.11_EndsWithRetry", group: "plain use", over: overPlainSSE,
		text: "MUST: a server that goes away ends a stream in good order, with a retry as the last thing in it, and tells who comes then the same.",
		run:  (*serverCheck).endsWithRetry,
	},
}

var eventSourceClauses = []serverClause{
	{
		id: "P3.2_EventSourceGoesOn", group: "plain use", over: overPlainSSE,
		text: "MUST: an EventSource whose connection is cut again and again shows a page every event once, in order.",
		run:  (*serverCheck).eventSourceGoesOn,
	},
	{
		id: "P3.8_EventSourceOfSeveral", group: "plain use", over: overPlainSSE,
		text: "MUST: an EventSource of several channels whose connection is cut again and again shows every event of each once, in order.",
		run:  (*serverCheck).eventSourceOfSeveral,
	},
	{
		id: "P3.5_EventSourceShowsPayloads", group: "plain use", over: overPlainSSE, clock: anyClock,
		text: "MUST: an EventSource shows each payload as it was published, or as a data URL of it.",
		run:  (*serverCheck).eventSourceShowsPayloads,
	},
	{
		id: "P3.11_EventSourceEnds", group: "plain use", over: overPlainSSE, needs: []Feature{Rights},
		text:  "MUST: an EventSource that is not to return is answered so that it ends for good, and one that may, so that it comes back after the time it was told.",
		setup: ServerSetup{Refuse: refuseSome},
		run:   (*serverCheck).eventSourceEnds,
	},
}

var plainWSClauses = []serverClause{
	{
		id: "P4.1_OneChannel", group: "plain use", over: overPlainWS, clock: anyClock,
		text: "MUST: a plain WebSocket of two channels is refused with 400 too_many_channels, and told of the session protocol.",
		run:  (*serverCheck).oneChannel,
	},
	{
		id: "P4.2_OneTextMessageEach", group: "plain use", over: overPlainWS, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: what comes is one JSON object in a text message each: the opening, or a gap in its place, then events.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).oneTextMessageEach,
	},
	{
		id: "P4.3_NothingMayBeSent", group: "malformed input", over: overPlainWS,
		text: "MUST: a client that sends something on a plain WebSocket is closed with 4002 bad_request.",
		run:  (*serverCheck).nothingMayBeSent,
	},
	{
		id: "P4.4_PingsInSilence", group: "heartbeats", over: overPlainWS,
		text:  "MUST: a silent WebSocket carries a ping at each interval, and stays while they are answered.",
		setup: ServerSetup{Heartbeat: 10 * time.Second, PeerTimeout: 5 * time.Second},
		run:   (*serverCheck).pingsInSilence,
	},
	{
		id: "P4.4_AnswersPings", group: "heartbeats", over: []form{plainWS, sessionWS}, clock: anyClock,
		text: "MUST: a ping of the client's is answered with a pong of the same bytes (RFC 6455 §5.5.3).",
		run:  (*serverCheck).answersPings,
	},
	{
		id: "P4.5_RefusedForGood", group: "plain use", over: overPlainWS, needs: []Feature{Rights},
		text:  "MUST: who is not to come back as it is, is closed with 4002 and the code of the refusal.",
		setup: ServerSetup{Refuse: refuseSome},
		run:   func(c *serverCheck) { c.closedWith("secret", `^4002 forbidden$`) },
	},
	{
		id: "P4.5_RefusedForAWhile", group: "plain use", over: overPlainWS, needs: []Feature{Rights},
		text:  "MUST: who may come back after a while is closed with 4001, the code of the refusal, and the delay in milliseconds.",
		setup: ServerSetup{Refuse: refuseSome},
		run:   func(c *serverCheck) { c.closedWith("crowded", `^4001 busy \d+$`) },
	},
	{
		id: "P4.5_ShutdownSaysWhen", group: "plain use", over: overPlainWS,
		text: "MUST: a server that goes away closes with 4001, \"shutdown\" and a delay in milliseconds.",
		run:  (*serverCheck).shutdownSaysWhen,
	},
	{
		id: "P4.5_ClosesWhenAsked", group: "plain use", over: []form{plainWS, sessionWS}, clock: anyClock,
		text: "MUST: a close frame of the client's is answered with one, and the connection ends (RFC 6455 §§5.5.1, 7.1.1).",
		run:  (*serverCheck).closesWhenAsked,
	},
	{
		id: "P4.5_ClosesWhenBehind", group: "plain use", over: []form{plainWS, sessionWS},
		text: "MUST: a close frame of a client's that has not read all yet is answered, too, after the frame that is under way.",
		run:  (*serverCheck).closesWhenBehind,
	},
}

var plainPollClauses = []serverClause{
	{
		id: "P5.1_OneChannel", group: "plain use", over: overPlainPoll, clock: anyClock,
		text: "MUST: a plain poll of two channels is refused with 400 too_many_channels, and told of the session protocol.",
		run:  (*serverCheck).oneChannel,
	},
	{
		id: "P5.2_Waits", group: "plain use", over: overPlainPoll,
		text:  "MUST: a poll without news is answered when the wait it asks for is over, in a Go duration or whole seconds, or the longest that the server allows; without one at once.",
		setup: ServerSetup{MaxWait: 40 * time.Second},
		run:   (*serverCheck).waits,
	},
	{
		id: "P5.3_Answer", group: "plain use", over: overPlainPoll, clock: anyClock, needs: []Feature{Retention},
		text:  "MUST: an answer has events, gaps, and for each channel the position where to go on: that of its last event, or gap.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).plainPollAnswer,
	},
	{
		id: "P5.3_LoopOfPolls", group: "plain use", over: overPlainPoll, clock: anyClock,
		text: "MUST: who polls again and again with the position of the last answer gets every event once, in order.",
		run:  (*serverCheck).loopOfPolls,
	},
	{
		id: "P5.4_WaitsOnlyForNews", group: "plain use", over: overPlainPoll,
		text: "MUST: a poll that presents no position, or after whose position something is there, is answered at once, whatever wait it asks for.",
		run:  (*serverCheck).waitsOnlyForNews,
	},
	{
		id: "P5.4_NewsEndsTheWait", group: "plain use", over: overPlainPoll,
		text:  "MUST: a poll that waits is answered as soon as an event comes.",
		setup: ServerSetup{MaxWait: 40 * time.Second},
		run:   (*serverCheck).newsEndsTheWait,
	},
	{
		id: "P5.5_AskedAgain", group: "plain use", over: overPlainPoll, clock: anyClock,
		text: "MUST: a poll that is asked again with the same position has the same events in its answer.",
		run:  (*serverCheck).askedAgain,
	},
}
