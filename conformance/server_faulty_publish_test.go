package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
)

// Faults of §7.
var publishFaults = []serverFault{
	{
		name: "takes for JSON what looks like it", fails: "P7.1_ContentTypes",
		Variant: asked("publish", func(_ http.ResponseWriter, r *http.Request, _ url.Values) bool {
			if body := reread(r); json.Valid(body) {
				r.Header.Set("Content-Type", "application/json")
			}
			return false
		}),
	},
	{
		name: "publishes as text what is no JSON", fails: "P7.1_BadBodies P8.3_Publishing",
		Variant: asked("publish", func(_ http.ResponseWriter, r *http.Request, _ url.Values) bool {
			if body := reread(r); strings.Contains(r.Header.Get("Content-Type"), "json") && !json.Valid(body) {
				r.Header.Set("Content-Type", "text/plain")
			}
			return false
		}),
	},
	{
		name: "publishes as much of a message as it takes", fails: "P7.1_TooLarge",
		Variant: takesAsMuch(),
	},
	{
		name: "has a channel to publish to for who names none", fails: "P7.1_BadRequests",
		Variant: asked("publish", func(_ http.ResponseWriter, _ *http.Request, query url.Values) bool {
			if !query.Has("channel") {
				query.Set("channel", "room")
			}
			return false
		}),
	},
	{
		name: "gives what has no type one of its own", fails: "P7.1_Types",
		Variant: asked("publish", func(_ http.ResponseWriter, _ *http.Request, query url.Values) bool {
			if query.Get("type") == "" {
				query.Set("type", "published")
			}
			return false
		}),
	},
	{
		name: "asks for no right to publish", fails: "P7.1_Rights P9.6_RefusedRepeatIsUnknown P9.3_SlowBatchHoldsUpNobody P9.4_AnEntryForEach P9.5_StopsThere P9.7_RefusedForGood",
		Variant: testee.Variant{Options: func(o *server.Options) {
			ask := o.Authorize
			o.Authorize = func(ctx context.Context, who server.Identity, what server.Action, ch server.Channel) error {
				if what == server.Publish {
					return nil
				}
				return ask(ctx, who, what, ch)
			}
		}},
	},
	{
		name: "does not say how long it remembers", fails: "P7.2_Answer P7.3_Remembered",
		Rewriter: said("publish", func(text string) string { return strings.Replace(text, `"remembered"`, `"kept"`, 1) }),
	},
	{
		name: "knows no Idempotency-Key", fails: "P7.3_RepeatsAreDuplicates P7.3_NumbersRise P7.3_ManyAtOnce P7.3_KeysOfSubjects P7.3_Remembered P7.3_BadKeys P7.4_Busy P7.4_Unavailable (P7.3_CopyMadeOnTheWay)",
		Variant: asked("publish", func(_ http.ResponseWriter, r *http.Request, _ url.Values) bool {
			r.Header.Del("Idempotency-Key")
			r.Header.Del("Producer-Seq")
			return false
		}),
	},
	{
		name: "knows no Producer-Seq", fails: "P7.3_NumbersRise P7.3_BadKeys P7.4_Busy",
		Variant: asked("publish", func(_ http.ResponseWriter, r *http.Request, _ url.Values) bool {
			r.Header.Del("Producer-Seq")
			return false
		}),
	},
	{
		name: "has one set of numbers for all channels", fails: "P7.3_EachChannelForItself",
		Variant: appends(oneSetOfNumbers),
	},
	{
		name: "looks for a message and appends it in two steps", fails: "P7.3_ManyAtOnce P7.3_CopyMadeOnTheWay",
		Variant: appends(looksAndAppends),
	},
	{
		name: "takes equal keys of all subjects for one", fails: "P7.3_KeysOfSubjects",
		Variant: appends(keysOfAll),
	},
	{
		name: "forgets producers sooner than it says", fails: "P7.3_Remembered",
		Variant: appends(forgetsProducers),
	},
	{
		name: "appends for nobody when it is busy", fails: "P7.4_Busy",
		Variant: appends(neverBusy),
	},
}

// takesAsMuch cuts what is larger than a message may be.
func takesAsMuch() testee.Variant {
	most := 0
	v := asked("publish", func(_ http.ResponseWriter, r *http.Request, _ url.Values) bool {
		if body := reread(r); most > 0 && len(body) > most {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body[:most])), int64(most)
		}
		return false
	})
	v.Options = func(o *server.Options) { most = o.MaxMessage }
	return v
}

// reread reads the body of a request, and leaves it as it was.
func reread(r *http.Request) []byte {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body
}
