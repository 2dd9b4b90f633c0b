package conformance_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// saysInstead replaces words of what the server says, pair by pair.
func saysInstead(pairs ...string) testee.Rewriter {
	r := strings.NewReplacer(pairs...)
	return testee.Rewriter{Down: func(s testee.Said) []string { return []string{r.Replace(s.Text)} }}
}

// hearsInstead replaces words of what clients say.
func hearsInstead(pairs ...string) testee.Rewriter {
	r := strings.NewReplacer(pairs...)
	return testee.Rewriter{Up: func(s testee.Said) []string { return []string{r.Replace(s.Text)} }}
}

// optionsOf is a server with other options.
func optionsOf(change func(*server.Options)) testee.Variant { return testee.Variant{Options: change} }

// anAppendLog appends in a way of its own.
type anAppendLog struct {
	eventlog.Log
	append func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error)
}

func (l *anAppendLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	return l.append(ctx, l.Log, ch, b)
}

// appending is a server whose log appends in a way of its own.
func appending(how func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error)) testee.Variant {
	return testee.Variant{Log: func(log eventlog.Log) eventlog.Log { return &anAppendLog{log, how} }}
}

var refusedEntry = regexp.MustCompile(`\{"seq":\d+,"error":\{[^}]*\}\},?`)

var upstreamFaults = []serverFault{
	{
		name:  "does without the memory of producers",
		fails: "P9.4_DuplicateIsSaid P9.5_TriedIsSaid P9.6_RepeatAnywhere P9.6_RepeatAtAnotherNode P9.6_RememberedAsLongAsSaid P9.7_RefusedForGood P9.7_TooManyProducers P9.6_CopyMadeOnTheWay P9.6_LostAnswerOfAPublish",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			if strings.HasPrefix(b.Producer.ID, "p:") {
				b.Producer = eventlog.Producer{}
			}
			return log.Append(ctx, ch, b)
		}),
	},
	{
		name:     "answers a repeat as if it were new",
		fails:    "P9.4_DuplicateIsSaid P9.6_RepeatAnywhere P9.6_RepeatAtAnotherNode P9.6_RememberedAsLongAsSaid P9.7_TooManyProducers",
		Rewriter: saysInstead(`,"duplicate":true`, ""),
	},
	{
		name: "refuses a request up with a token that does not verify", fails: "P9.1_TokenIsNoCondition",
		Variant: testee.Variant{Handler: func(next http.Handler) http.Handler {
			return readingBodies(next, "/up", func(w http.ResponseWriter, body string) bool {
				if token := tokenSaid.FindStringSubmatch(body); token != nil && !strings.Contains(token[1], ".") {
					transport.WriteRefusal(w, transport.Refuse(transport.CodeUnauthorized, "a token that does not verify"))
					return false
				}
				return true
			})
		}},
	},
	{
		name: "takes a close without a token for that of the session that came last", fails: "P9.1_CloseNeedsItsToken",
		Variant: testee.Variant{Handler: takesTheLastToken},
	},
	{
		name: "reads frames of a version it does not speak", fails: "P9.1_WhatCantBeRead",
		Rewriter: hearsInstead(`{"up":{"version":2}`, `{"up":{"version":1}`),
	},
	{
		name: "bounds what comes up as it bounds frames", fails: "P9.1_LargestMessage",
		Variant: testee.Variant{Handler: func(next http.Handler) http.Handler {
			return readingBodies(next, "/up", func(w http.ResponseWriter, body string) bool {
				if len(body) > 64<<10 {
					transport.WriteRefusal(w, transport.Refuse(transport.CodeTooLarge, "the body is too large"))
					return false
				}
				return true
			})
		}},
	},
	{
		name: "overlooks the Content-Encoding of a body", fails: "P9.1_NoContentEncoding",
		Variant: testee.Variant{Handler: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Del("Content-Encoding")
				next.ServeHTTP(w, r)
			})
		}},
	},
	{
		name: "forgets what kind a message is of", fails: "P9.2_AppendedAsSaid P9.2_MalformedBatch P9.9_Answered",
		Rewriter: hearsInstead(`,"encoding":"base64"`, ""),
	},
	{
		name: "appends all but each eleventh of a producer's, and acknowledges it", fails: "P9.2_ComesToReadersInOrder",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			if n := b.Producer.Seq; n > 0 && n%11 == 0 {
				at, err := log.Seek(ctx, ch, eventlog.Start{})
				return at, false, err
			}
			return log.Append(ctx, ch, b)
		}),
	},
	{
		name: "appends the messages of a publish one by one", fails: "P9.2_NextToEachOther P9.4_DuplicateIsSaid (P9.6_RepeatAnywhere)",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (at eventlog.Position, duplicate bool, err error) {
			for i, m := range b.Messages {
				one := eventlog.Batch{Messages: []eventlog.Message{m}}
				if i == 0 {
					one.Producer = b.Producer
				} else {
					time.Sleep(time.Millisecond)
				}
				if at, duplicate, err = log.Append(ctx, ch, one); err != nil || duplicate {
					return at, duplicate, err
				}
			}
			return at, false, nil
		}),
	},
	{
		name: "leaves out messages of reserved types and appends the rest", fails: "P9.2_AllOrNothing P9.6_RefusedRepeatIsUnknown P9.7_RefusedForGood",
		Rewriter: hearsInstead(`,{"data":2,"type":"throughline.x"}`, "", `"type":"throughline.x"`, `"type":"x"`, `"type":"open"`, `"type":"x"`),
	},
	{
		name: "takes fewer frames in a batch than stated", fails: "P9.2_AsManyAsStated",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if strings.Count(s.Text, `"seq":`) == 64 {
				return []string{strings.Replace(s.Text, `"frames":[`, `"frames":[{},`, 1)}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "mends a batch that breaks a rule", fails: "P9.2_MalformedBatch",
		Rewriter: hearsInstead(`"seq":0`, `"seq":1`),
	},
	{
		name: "has a second batch on a line wait in silence", fails: "P9.3_OneBatchUnderWay",
		Variant: eachLine(oneBatch),
	},
	{
		name: "asks for one right at a time", fails: "P9.3_SlowBatchHoldsUpNobody",
		Variant: optionsOf(func(o *server.Options) {
			one, ask := make(chan struct{}, 1), o.Authorize
			o.Authorize = func(ctx context.Context, who server.Identity, what server.Action, ch server.Channel) error {
				one <- struct{}{}
				defer func() { <-one }()
				return ask(ctx, who, what, ch)
			}
		}),
	},
	{
		name: "has no entry for what it refuses", fails: "P9.4_AnEntryForEach P9.7_RefusedForGood P9.7_TooManyProducers P9.2_AllOrNothing P9.5_StopsThere P9.6_RefusedRepeatIsUnknown P9.6_RepeatAtAnotherNode",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string { return []string{refusedEntry.ReplaceAllString(s.Text, "")} }},
	},
	{
		name: "answers with the position before the message", fails: "P9.4_AnEntryForEach P9.2_AppendedAsSaid P9.1_AnyNode P9.2_ComesToReadersInOrder (P9.6_RepeatAnywhere)",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			before, _ := log.Seek(ctx, ch, eventlog.Start{})
			at, duplicate, err := log.Append(ctx, ch, b)
			if b.Producer != (eventlog.Producer{}) && !duplicate {
				at = before
			}
			return at, duplicate, err
		}),
	},
	{
		name: "refuses for good what is to be tried later", fails: "P9.5_StopsThere (P7.1_Rights)",
		Variant: optionsOf(func(o *server.Options) {
			ask := o.Authorize
			o.Authorize = func(ctx context.Context, who server.Identity, what server.Action, ch server.Channel) error {
				err := ask(ctx, who, what, ch)
				if r, ok := errors.AsType[*transport.Refusal](err); ok && r.Class == transport.Later && what == server.Publish {
					return transport.Refuse(transport.CodeForbidden, "no")
				}
				return err
			}
		}),
	},
	{
		name: "does not say that it tried", fails: "P9.5_TriedIsSaid",
		Rewriter: saysInstead(`,"tried":true`, ""),
	},
	{
		name: "treats a repeat as a first copy", fails: "P9.6_RefusedRepeatIsUnknown",
		Rewriter: hearsInstead(`,"repeat":true`, ""),
	},
	{
		name: "promises to remember for longer than it does", fails: "P9.6_RememberedAsLongAsSaid P6.3_OpenSaysTheBounds",
		Rewriter: openSays(`"remembered":`, func(n int) int { return 100 * n }),
	},
	{
		name: "forgets about a producer rather than say busy", fails: "P9.7_TooManyProducers",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			at, duplicate, err := log.Append(ctx, ch, b)
			if errors.Is(err, eventlog.ErrBusy) {
				return log.Append(ctx, ch, eventlog.Batch{Messages: b.Messages})
			}
			return at, duplicate, err
		}),
	},
	{
		name: "has one book of producers for both sections", fails: "P9.8_ProducersOfRequestsAreOthers",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			if n := len(b.Producer.ID); n > 22 {
				b.Producer.ID = b.Producer.ID[n-22:]
			}
			return log.Append(ctx, ch, b)
		}),
	},
	{
		name: "does not say which encoding data have", fails: "(P12.2_Answer) P9.2_AppendedAsSaid P9.9_Answered (P3.6_AsEvent) (P4.2_OneTextMessageEach)",
		Rewriter: saysInstead(`,"encoding":"base64"`, ""),
	},
	{
		name: "mixes up the ids of calls", fails: "(P12.9_AsByGET) P9.9_Answered P9.12_OnlySoMany P9.12_SlowCallHoldsUpNobody P9.10_UnknownAfterTheDeadline P9.11_HandlerSeesTheKey P9.13_FailsWithoutItsText",
		Rewriter: saysInstead(`{"answer":{"id":`, `{"answer":{"id":1`),
	},
	{
		name: "mends a call that breaks a rule", fails: "P9.9_MalformedCall",
		Rewriter: hearsInstead(`"id":-1`, `"id":1`),
	},
	{
		name: "waits for handlers as long as they take", fails: "P9.10_UnknownAfterTheDeadline",
		Variant: optionsOf(func(o *server.Options) { o.CallTimeout = time.Hour }),
	},
	{
		name: "keeps the key from the handler", fails: "P9.11_HandlerSeesTheKey (P9.9_MalformedCall)",
		Rewriter: hearsInstead(`,"key":`, `,"lock":`),
	},
	{
		name: "takes any number of calls", fails: "P9.12_OnlySoMany",
		Variant: optionsOf(func(o *server.Options) { o.MaxCalls = 1000 }),
	},
	{
		name: "works on one call at a time", fails: "P9.12_SlowCallHoldsUpNobody P9.12_OnlySoMany",
		Variant: optionsOf(func(o *server.Options) {
			one, answer := make(chan struct{}, 1), o.OnCall
			if answer == nil {
				return
			}
			o.OnCall = func(ctx context.Context, r server.Request) (server.Payload, error) {
				one <- struct{}{}
				defer func() { <-one }()
				return answer(ctx, r)
			}
		}),
	},
	{
		name: "shows why a handler failed", fails: "P9.13_FailsWithoutItsText",
		Variant: optionsOf(func(o *server.Options) {
			answer := o.OnCall
			if answer == nil {
				return
			}
			o.OnCall = func(ctx context.Context, r server.Request) (server.Payload, error) {
				p, err := answer(ctx, r)
				if _, own := errors.AsType[*transport.Refusal](err); err != nil && !own {
					err = transport.Refuse(transport.CodeFailed, "%v", err)
				}
				return p, err
			}
		}),
	},
	{
		name: "keeps its log to itself", fails: "P9.1_AnyNode P9.6_RepeatAtAnotherNode (P2.1_DrainLosesNothing)",
		Variant: testee.Variant{Node: func(l eventlog.Log, nth int) eventlog.Log {
			if nth == 0 {
				return l
			}
			return nil // the server's own
		}},
	},
}

// oneBatch leaves out batches that come before the one before was answered.
func oneBatch() testee.Rewriter {
	var underWay atomic.Bool
	return testee.Rewriter{
		Up: func(s testee.Said) []string {
			if strings.HasPrefix(s.Text, `{"publish"`) && !underWay.CompareAndSwap(false, true) {
				return nil
			}
			return []string{s.Text}
		},
		Down: func(s testee.Said) []string {
			if strings.HasPrefix(s.Text, `{"published"`) {
				underWay.Store(false)
			}
			return []string{s.Text}
		},
	}
}

// readingBodies is a handler that sees the bodies of requests to one path first.
func readingBodies(next http.Handler, path string, see func(w http.ResponseWriter, body string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, path) {
			body, _ := io.ReadAll(r.Body)
			if !see(w, string(body)) {
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
		}
		next.ServeHTTP(w, r)
	})
}

var tokenSaid = regexp.MustCompile(`"token":"([^"]+)"`)

// takesTheLastToken has closes without a token mean the session that came last.
func takesTheLastToken(next http.Handler) http.Handler {
	var mu sync.Mutex
	last := ""
	return testee.Rewriter{
		Down: func(s testee.Said) []string {
			mu.Lock()
			defer mu.Unlock()
			if found := tokenSaid.FindStringSubmatch(s.Text); found != nil {
				last = found[1]
			}
			return []string{s.Text}
		},
		Up: func(s testee.Said) []string {
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(s.Text, `"close"`) {
				return []string{strings.Replace(s.Text, `"token":""`, `"token":"`+last+`"`, 1)}
			}
			return []string{s.Text}
		},
	}.Handler(next)
}
