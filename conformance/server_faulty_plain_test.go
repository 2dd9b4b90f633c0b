package conformance_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// Faults of §§1 and 3: positions, starts, and streams for EventSources.
var plainFaults = slices.Concat(positionFaults, streamFaults, plainWSFaults, plainPollFaults, malformedFaults)

var positionFaults = []serverFault{
	{
		name: "gives some positions a slash", fails: "P1.1_Text",
		Rewriter: replaced("poll", `"positions":{"other":"a0.`, `"positions":{"other":"a0/`),
	},
	{
		name: "counts one too many for last=N", fails: "P1.3_Starts P3.2_StartsForSeveral",
		Variant: each([]string{"sse"}, func(_ *http.Request, query url.Values) {
			if n, ok := strings.CutPrefix(query.Get("after"), "last="); ok && len(n) == 1 && n > "0" && n < "9" {
				query.Set("after", "last="+string(n[0]+1))
			}
		}),
	},
	{
		name: "begins with the second event that is still held", fails: "P1.3_EarliestStillHeld",
		Variant: broken(logFault{seek: skipsOne}),
	},
	{
		name: "asks for no right to history", fails: "P1.4_HistoryIsARight",
		Variant: testee.Variant{Options: func(o *server.Options) {
			ask := o.Authorize
			o.Authorize = func(ctx context.Context, who server.Identity, what server.Action, ch server.Channel) error {
				if what == server.History {
					return nil
				}
				return ask(ctx, who, what, ch)
			}
		}},
	},
	{
		name: "takes what it can't read for latest", fails: "P1.5_Unreadable",
		Variant: each([]string{"poll"}, func(_ *http.Request, query url.Values) {
			if strings.ContainsAny(query.Get("after"), "! \n\x00") {
				query.Del("after")
			}
		}),
	},
}

var streamFaults = []serverFault{
	{
		name: "takes 17 channels", fails: "P3.1_UpToSixteenChannels P8.3_NotUnderstood",
		Variant: each([]string{"sse"}, func(_ *http.Request, query url.Values) {
			if len(query["channel"]) == 17 {
				query["channel"] = query["channel"][:16]
			}
		}),
	},
	{
		name: "prefers the query to the Last-Event-ID", fails: "P3.2_LastEventIDWins P3.2_EventSourceGoesOn P3.8_EventSourceOfSeveral",
		Variant: each([]string{"sse"}, func(r *http.Request, query url.Values) {
			if query.Get("after") != "" {
				r.Header.Del("Last-Event-ID")
			}
		}),
	},
	{
		name: "says no retry when a stream begins", fails: "P3.3_BeginsWithRetryAndID P3.7_GapIsABlock",
		Rewriter: said("sse", func(text string) string {
			if first, rest, more := strings.Cut(text, "\n"); more && strings.HasPrefix(first, "retry: ") {
				return rest
			}
			return text
		}),
	},
	{
		name: "puts all lines of a payload into one", fails: "P3.4_OneBlockAnEvent P3.5_EventSourceShowsPayloads P2.2_Payloads P2.1_AllFormsShowTheSame",
		Rewriter: said("sse", func(text string) string {
			if strings.Contains(text, "event: ") {
				return text
			}
			return strings.ReplaceAll(text, "\ndata: ", "")
		}),
	},
	{
		name: "shows what looks like a data URL as it is", fails: "P3.5_DataURLs P3.5_EventSourceShowsPayloads P2.2_Payloads",
		Rewriter: said("sse", func(text string) string { return dataURL.ReplaceAllStringFunc(text, ofADataURL) }),
	},
	{
		name: "knows no as=event for one channel", fails: "P3.6_AsEvent P2.2_Members",
		Variant: each([]string{"sse"}, func(_ *http.Request, query url.Values) {
			if len(query["channel"]) == 1 {
				query.Del("as")
			}
		}),
	},
	{
		name: "names all types, asked or not", fails: "P3.6_NamedEvents P3.4_OneBlockAnEvent P3.9_CommentsInSilence",
		Variant: each([]string{"sse"}, func(_ *http.Request, query url.Values) { query.Set("events", "named") }),
	},
	{
		name: "gives a gap the id of where it begins", fails: "P3.7_GapIsABlock",
		Rewriter: said("sse", func(text string) string {
			_, from, gap := strings.Cut(text, `"gap":{"from":"`)
			from, _, _ = strings.Cut(from, `"`)
			if i := strings.LastIndex(text, "\nid: "); gap && i > 0 {
				return text[:i] + "\nid: " + from
			}
			return text
		}),
	},
	{
		name: "lets events have a type of its own", fails: "P3.7_ReservedTypes",
		Variant: appends(func(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			b.Messages = slices.Clone(b.Messages)
			for i := range b.Messages {
				b.Messages[i].Type = strings.TrimPrefix(b.Messages[i].Type, "throughline.")
			}
			return l.Log.Append(ctx, ch, b)
		}),
	},
	{
		name: "begins anew with vectors", fails: "P3.8_VectorsResumeEach P3.8_VectorOfAnotherList P3.8_VectorBeforeAGap P3.8_EventSourceOfSeveral",
		Variant: each([]string{"sse"}, func(r *http.Request, _ url.Values) {
			if strings.HasPrefix(r.Header.Get("Last-Event-ID"), "v") {
				r.Header.Del("Last-Event-ID")
			}
		}),
	},
	{
		name: "says nothing on a silent stream", fails: "P3.9_CommentsInSilence",
		Rewriter: unsaid("sse", func(text string) bool { return text == ":" }),
	},
	{
		name: "leaves out the channels that are refused", fails: "P3.10_OneRefusedRefusesAll",
		Variant: asking("sse", func(_ http.ResponseWriter, query url.Values, refusal func(channel string) error) bool {
			if names := query["channel"]; len(names) > 1 {
				query["channel"] = slices.DeleteFunc(names, func(name string) bool { return refusal(name) != nil })
			}
			return false
		}),
	},
	{
		name: "refuses an EventSource for a while with a 503", fails: "P3.11_RefusedForAWhile P3.11_EventSourceEnds",
		Variant: asking("sse", func(w http.ResponseWriter, query url.Values, refusal func(channel string) error) bool {
			for _, channel := range query["channel"] {
				if r, ok := errors.AsType[*transport.Refusal](refusal(channel)); ok && r.Class == transport.Later {
					transport.WriteRefusal(w, r)
					return true
				}
			}
			return false
		}),
	},
	{
		name: "ends streams without a word", fails: "P8.4_KeptOutByEachCarrier P3.11_EndsWithRetry P3.11_RefusedForAWhile P3.11_EventSourceEnds P3.11_DrainedStream",
		Rewriter: unsaid("sse", func(text string) bool { return strings.HasPrefix(text, "retry: ") && !strings.Contains(text, "\n") }),
	},
}

var plainWSFaults = []serverFault{
	{
		name: "takes the first of several channels", fails: "P4.1_OneChannel P5.1_OneChannel P8.3_NotUnderstood",
		Variant: each([]string{"ws", "poll"}, func(_ *http.Request, query url.Values) {
			if names := query["channel"]; len(names) > 1 {
				query["channel"] = names[:1]
			}
		}),
	},
	{
		name: "passes over what is sent on a plain WebSocket", fails: "P4.3_NothingMayBeSent",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if s.Plain && s.Path == "ws" {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name: "is silent for hours", fails: "P4.4_PingsInSilence P3.9_CommentsInSilence P6.3_OpenSaysTheBounds",
		Variant: testee.Variant{Options: func(o *server.Options) {
			if o.Heartbeat > 0 {
				o.Heartbeat = 3 * time.Hour
			}
		}},
	},
	{
		name: "answers no pings", fails: "P4.4_AnswersPings",
		Variant: frames(func(frame []byte) []byte {
			if frame[0] == 0x8A {
				return nil
			}
			return frame
		}),
	},
	{
		name: "closes without saying why", fails: "P4.5_RefusedForGood P4.5_RefusedForAWhile P4.5_ShutdownSaysWhen P4.3_NothingMayBeSent P1.4_HistoryIsARight P4.5_DrainedSocket",
		Variant: closing(func(code uint16, reason string) (uint16, string) {
			if code > 4000 {
				return 4000, ""
			}
			return code, reason
		}),
	},
	{
		name: "answers no close frame", fails: "P4.5_ClosesWhenAsked P4.5_ClosesWhenBehind",
		Variant: closing(func(code uint16, reason string) (uint16, string) {
			if code == 1000 {
				return 0, ""
			}
			return code, reason
		}),
	},
	{
		name: "closes broken frames as if all were well", fails: "P4.5_BrokenFrames",
		Variant: closing(func(code uint16, reason string) (uint16, string) {
			if code == 1002 {
				return 1000, ""
			}
			return code, reason
		}),
	},
	{
		name: "closes text that is not UTF-8 with a code of its own", fails: "P4.5_TextIsUTF8",
		Variant: closing(func(code uint16, reason string) (uint16, string) {
			if code == 1007 {
				return 4002, reason
			}
			return code, reason
		}),
	},
	{
		name: "knows no messages in fragments", fails: "P4.5_FragmentsAreOneMessage P4.5_TextIsUTF8",
		Variant: noFragments(),
	},
	{
		name: "takes messages of any length", fails: "P6.14_EndlessMessages P6.3_OpenSaysTheBounds",
		Variant: testee.Variant{Options: func(o *server.Options) {
			if o.MaxFrame > 0 {
				o.MaxFrame = 1 << 20
			}
		}},
	},
}

var plainPollFaults = []serverFault{
	{
		name: "cuts long waits shorter than it says", fails: "P5.2_Waits",
		Variant: each([]string{"poll"}, func(_ *http.Request, query url.Values) {
			if d, err := time.ParseDuration(query.Get("wait")); err == nil && d > 30*time.Second {
				query.Set("wait", "30s")
			}
		}),
	},
	{
		name: "forgets the last event of an answer of five", fails: "P5.3_LoopOfPolls P5.5_AskedAgain P2.7_NeverSilent P2.1_BeforeTheFirstEvent (P2.1_InOrderOnce) (P2.2_Payloads) (P1.1_Text)",
		Rewriter: said("poll", forgetsTheLast),
	},
	{
		name: "keeps an answer back for some seconds", fails: "P5.2_Waits P5.4_WaitsOnlyForNews P5.4_NewsEndsTheWait (P5.4_DrainedPoll)",
		Rewriter: said("poll", func(text string) string {
			time.Sleep(3 * time.Second)
			return text
		}),
	},
}

var dataURL = regexp.MustCompile(`(?m)^data: data:;base64,(.*)$`)

// ofADataURL is what a data URL stands for, if that looks like one.
func ofADataURL(text string) string {
	decoded, err := base64.StdEncoding.DecodeString(dataURL.FindStringSubmatch(text)[1])
	if err != nil || !strings.HasPrefix(string(decoded), "data:") {
		return text
	}
	return "data: " + string(decoded)
}

// asking is asked with the program's right to read at hand.
func asking(path string, change func(w http.ResponseWriter, query url.Values, refusal func(channel string) error) (answered bool)) testee.Variant {
	var program func(channel string) error
	v := asked(path, func(w http.ResponseWriter, r *http.Request, query url.Values) bool {
		return r.Method == http.MethodGet && change(w, query, program)
	})
	v.Options = func(o *server.Options) {
		ask := o.Authorize
		program = func(channel string) error {
			return ask(context.Background(), server.Identity{}, server.Subscribe, server.Channel{Name: channel})
		}
	}
	return v
}

// forgetsTheLast drops the tail of a batch, and says the position all the same.
func forgetsTheLast(text string) string {
	const event = `{"channel":"room","position":"`
	if strings.Count(text, event) != 5 || strings.Count(text, `"type":"said"`) != 5 {
		return text
	}
	i := strings.LastIndex(text, event)
	end := strings.Index(text[i:], `],"positions"`)
	if end < 0 {
		return text
	}
	return strings.TrimSuffix(text[:i], ",") + text[i+end:]
}

var malformedFaults = []serverFault{
	{
		name: "has a channel for who names none", fails: "P3.1_NoChannel P3.11_EventSourceEnds",
		Variant: each([]string{"sse", "poll"}, func(_ *http.Request, query url.Values) {
			if !query.Has("channel") {
				query.Set("channel", "default")
			}
		}),
	},
	{
		name: "takes waits that are none for none", fails: "P5.2_BadWaits",
		Variant: each([]string{"poll"}, func(_ *http.Request, query url.Values) {
			_, err := time.ParseDuration(query.Get("wait"))
			if _, number := strconv.Atoi(query.Get("wait")); err != nil && number != nil {
				query.Del("wait")
			}
		}),
	},
	{
		name: "mends the names of channels", fails: "P8.3_BadChannelNames P8.3_NamesAreUTF8",
		Variant: each([]string{"poll"}, func(_ *http.Request, query url.Values) {
			for i, name := range query["channel"] {
				query["channel"][i] = strings.Trim(strings.ToValidUTF8(name, "?"), "\n\t\x7f")
			}
		}),
	},
	{
		name: "answers to any method", fails: "P8.3_BadMethods",
		Variant: asked("poll", func(_ http.ResponseWriter, r *http.Request, _ url.Values) bool {
			if r.Method != http.MethodPost {
				r.Method = http.MethodGet
			}
			return false
		}),
	},
	{
		name: "has a page for who makes no handshake", fails: "P8.3_BadHandshakes",
		Variant: asked("ws", func(w http.ResponseWriter, r *http.Request, _ url.Values) bool {
			if r.Header.Get("Upgrade") != "" {
				return false
			}
			_, _ = w.Write([]byte("a WebSocket is here"))
			return true
		}),
	},
}
