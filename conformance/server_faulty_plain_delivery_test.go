package conformance_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
)

// Faults of §2: of what comes, and in which order. Most show only where a channel
// has many events, or where one comes back, as such faults do.
var deliveryFaults = []serverFault{
	{
		name: "says each sixtieth event of a channel twice", fails: "P2.1_InOrderOnce P2.1_CatchUpMeetsLive P2.1_LargeBacklog P5.3_LoopOfPolls " +
			"(P8.3_StalledReaderIsBrokenOff) (P5.5_PollsThatAreDoubled) (P6.12_SwitchToSSE) (P6.15_KilledNode) (P5.5_AnswersAreLost) (P2.1_DrainLosesNothing)",
		Variant: pages(func(_ eventlog.Channel, _ eventlog.Position, p *eventlog.Page) {
			for i, e := range p.Events {
				if e.At.Offset%60 == 0 {
					p.Events = append(p.Events[:i+1:i+1], p.Events[i:]...)
					return
				}
			}
		}),
	},
	{
		name: "drops the event at the end of a page that is not the last", fails: "P2.1_LargeBacklog (P8.3_SlowReaderIsToldWhy)",
		Variant: pages(func(_ eventlog.Channel, _ eventlog.Position, p *eventlog.Page) {
			if n := len(p.Events); p.More() && n > 3 && p.Events[n-1].At.Offset > 100 {
				p.Events = p.Events[:n-1]
			}
		}),
	},
	{
		name: "loses the 25th event of channels with short names", fails: "P2.8_EachChannelInItsOrder",
		Variant: pages(func(ch eventlog.Channel, _ eventlog.Position, p *eventlog.Page) {
			for i, e := range p.Events {
				if e.At.Offset == 25 && len(ch.Name) == 1 {
					p.Events = append(p.Events[:i:i], p.Events[i+1:]...)
					return
				}
			}
		}),
	},
	{
		name: "begins after the first event for who was there before it", fails: "P2.1_BeforeTheFirstEvent (P2.1_InOrderOnce) (P9.2_AppendedAsSaid)",
		Variant: pages(func(ch eventlog.Channel, after eventlog.Position, p *eventlog.Page) {
			if after.Offset == 0 && len(p.Events) == 5 && ch.Name == "room" && p.Events[0].Type == "said" && p.Events[4].Type == "said" {
				p.Events = p.Events[1:]
			}
		}),
	},
	{
		name: "keeps to itself that the place of an unwritten channel was renewed", fails: "P2.3_MovesOnInSilence",
		Variant: pages(func(_ eventlog.Channel, after eventlog.Position, p *eventlog.Page) {
			if len(p.Events) == 0 && after.Offset == 0 {
				p.Next, p.Head = after, after
			}
		}),
	},
	{
		name: "takes who comes back for the one who is still there", fails: "P1.2_GoesOnAfterTheEvent P2.1_TwiceAtOnce P2.1_BeforeTheOldLineIsDead",
		Variant: mistakesReturns(),
	},
	{
		name: "takes the server's cursor instead of the client's", fails: "P2.1_AgainAndAgain P5.5_AskedAgain P2.6_OpensWhereItGoesOn (P2.1_ReplayEqualsLive) (P6.15_UpgradeThatDies) (P2.5_RestartThatLostEverything)",
		Variant: serversCursor(),
	},
	{
		name: "opens at a place that was not presented", fails: "P2.6_OpensWhereItGoesOn P1.2_GoesOnAfterTheEvent P2.1_CatchUpMeetsLive P4.2_OneTextMessageEach P6.15_KilledNode",
		Rewriter: said("ws", func(text string) string {
			if strings.Contains(text, `"type"`) {
				return text
			}
			return anOpening.ReplaceAllString(text, `${1}0"}`)
		}),
	},
	{
		name: "goes on after what is trimmed, and says nothing", fails: "P2.4_TrimmedIsSaid P2.4_GapWhileReading P2.6_OneGapOfSeveral P2.7_NeverSilent P3.7_GapIsABlock P3.8_VectorBeforeAGap P4.2_OneTextMessageEach P5.3_Answer P1.3_EarliestStillHeld",
		Variant: goesOnSilently(eventlog.Trimmed),
	},
	{
		name: "goes on at the head of another history, and says nothing", fails: "P2.5_RewrittenTellsTheHead P1.5_AnotherChannels P1.5_Forged P6.9_EachChannelIsAnswered P2.5_RestartThatLostEverything",
		Variant: goesOnSilently(eventlog.Rewritten),
	},
	{
		name: "compares offsets and forgets the marks", fails: "P2.5_RewrittenTellsTheHead P1.5_AnotherChannels P1.5_Forged P6.9_EachChannelIsAnswered P2.5_RestartThatLostEverything",
		Variant: losses(comparesOffsets),
	},
	{
		name: "shows a carriage return as nothing", fails: "P2.2_Payloads P2.1_AllFormsShowTheSame",
		Rewriter: replaced("ws", `\r`, ``),
	},
	{
		name: "forgets the types of what is read from the history", fails: "P2.1_ReplayEqualsLive",
		Variant: pages(func(_ eventlog.Channel, _ eventlog.Position, p *eventlog.Page) {
			for i := range p.Events {
				if p.Events[i].At != p.Head {
					p.Events[i].Type = "message"
				}
			}
		}),
	},
	{
		name: "leaves out the usual type", fails: "P2.2_Types",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path == "sse" && !s.Plain {
				return []string{strings.Replace(s.Text, `"type":"message",`, ``, 1)}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "says an encoding where there is none", fails: "P2.2_Members P2.2_Payloads",
		Rewriter: replaced("poll", `"type":"message","data":"`, `"type":"message","encoding":"json","data":"`, `"type":"said","data":""`, `"type":"said","encoding":"json","data":""`),
	},
}

// anOpening is one that goes on after an event.
var anOpening = regexp.MustCompile(`^(\{"channel":"[^"]*","position":"a[1-9a-z][^"]*)"\}$`)

// serversCursor answers a poll after the last place it answered with, to whoever
// asks.
func serversCursor() testee.Variant {
	var last lastAnswers
	v := asked("poll", func(_ http.ResponseWriter, r *http.Request, query url.Values) bool {
		if r.Method == http.MethodGet && strings.HasPrefix(query.Get("after"), "a") {
			query.Set("after", last.of(query.Get("channel"), query.Get("after")))
		}
		return false
	})
	listen := said("poll", last.hear)
	inner := v.Handler
	v.Handler = func(next http.Handler) http.Handler {
		last.forget()
		return inner(listen.Handler(next))
	}
	return v
}
