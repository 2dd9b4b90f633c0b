package conformance_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
)

// Faults of P2.9.
var filterFaults = []serverFault{
	{
		name: "reads what nobody wants", fails: "P2.9_OnlyWhatIsWanted P2.9_PositionsAreTheSame P2.3_MovesOverWhatIsLeftOut P5.4_LeftOutIsNoNews",
		Variant: filters(func(f *eventlog.Filter) { *f = eventlog.Filter{} }),
	},
	{
		name: "knows no keys to select by", fails: "P2.9_OnlyWhatIsWanted P2.9_PositionsAreTheSame",
		Variant: filters(func(f *eventlog.Filter) { f.Keys = nil }),
	},
	{
		name: "takes as many words as it likes", fails: "P2.9_BadFilters",
		Variant: each([]string{"sse", "ws", "poll"}, func(_ *http.Request, query url.Values) {
			for _, name := range []string{"type", "tag", "key"} {
				query[name] = query[name][:min(len(query[name]), 16)]
			}
		}),
	},
	{
		name: "does not say where it is while nothing comes", fails: "P2.3_MovesOverWhatIsLeftOut",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if moved.MatchString(s.Text) {
				return nil
			}
			return []string{s.Text}
		}},
	},
}

// moved says where a channel is, and nothing else, after what the clause that is
// about that has published.
var moved = regexp.MustCompile(`"channel":"moves","position":"a4\.[^"]*"\}`)

// filters changes what live reads select by.
func filters(change func(f *eventlog.Filter)) testee.Variant {
	return broken(logFault{read: func(l *brokenLog, ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
		change(&limit.Filter)
		return l.Log.Read(ctx, ch, after, limit)
	}})
}

// Faults of §12.
var pastFaults = []serverFault{
	{
		name: "knows no end of a part", fails: "P12.1_Bounds P12.2_PagesJoin P12.3_Filters P12.4_Gaps P12.6_Caches P12.8_BadRequests P12.9_AsByGET (P12.6_NotPastTheRight)",
		Variant: asks(func(q url.Values) { q.Del("until") }),
	},
	{
		name: "knows one order", fails: "P12.1_Bounds P12.2_PagesJoin P12.3_Filters (P12.4_Gaps) P12.8_BadRequests P12.9_AsByGET P12.6_Caches",
		Variant: asks(func(q url.Values) { q.Del("order") }),
	},
	{
		name: "does not say when it was", fails: "P12.1_Bounds P12.2_Answer (P12.9_AsByGET)",
		Rewriter: replaced("history", `"time":`, `"when":`),
	},
	{
		name: "calls each page the last", fails: "P12.2_Answer P12.2_PagesJoin P12.3_Filters P12.9_AsByGET (P12.4_Gaps)",
		Rewriter: replaced("history", `"done":false`, `"done":true`),
	},
	{
		name: "goes on at the head", fails: "P12.2_Answer P12.2_PagesJoin P12.3_Filters P12.9_AsByGET",
		Rewriter: said("history", func(text string) string {
			return regexp.MustCompile(`"next":"[^"]*"(.*)"head":("[^"]*")`).ReplaceAllString(text, `"next":$2$1"head":$2`)
		}),
	},
	{
		name: "has no filter for what was", fails: "P12.3_Filters P12.6_Caches P12.8_BadRequests P12.9_AsByGET",
		Variant: asks(func(q url.Values) {
			maps.DeleteFunc(q, func(name string, _ []string) bool { return name == "type" || name == "tag" || name == "key" })
		}),
	},
	{
		name: "says nothing of what was lost", fails: "P12.4_Gaps",
		Rewriter: said("history", func(text string) string { return regexp.MustCompile(`,"gap":\{[^}]*\}`).ReplaceAllString(text, "") }),
	},
	{
		name: "tells what was to whoever asks", fails: "P12.5_HistoryIsARight P12.6_NotPastTheRight P1.4_HistoryIsARight",
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
		name: "lets everything be kept by everybody", fails: "P12.6_Caches P12.6_NotPastTheRight",
		Variant: keeps("public, max-age=3600, immutable"),
	},
	{
		name: "lets nothing be kept", fails: "P12.6_Caches P12.6_NotPastTheRight",
		Variant: keeps("no-store"),
	},
	{
		name: "answers any ETag with 304", fails: "P12.6_Caches P12.6_NotPastTheRight",
		Variant: asked("history", func(w http.ResponseWriter, r *http.Request, _ url.Values) bool {
			if r.Header.Get("If-None-Match") == "" {
				return false
			}
			w.Header().Set("ETag", r.Header.Get("If-None-Match"))
			w.WriteHeader(http.StatusNotModified)
			return true
		}),
	},
	{
		name: "compresses for who takes anything", fails: "P12.7_Compressed P5.6_Compressed",
		Variant: compresses(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Accept-Encoding", "gzip")
			next.ServeHTTP(w, r)
		}),
	},
	{
		name: "compresses in several members", fails: "P12.7_Compressed P5.6_Compressed",
		Variant: compresses(func(next http.Handler, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "gzip" {
				next.ServeHTTP(w, r)
				return
			}
			r.Header.Del("Accept-Encoding")
			plain := httptest.NewRecorder()
			next.ServeHTTP(plain, r)
			maps.Copy(w.Header(), plain.Header())
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Del("Content-Length")
			for part := range bytes.SplitAfterSeq(plain.Body.Bytes(), []byte("},")) {
				z := gzip.NewWriter(w)
				_, _ = z.Write(part)
				_ = z.Close()
			}
		}),
	},
	{
		name: "makes something of any question", fails: "P12.8_BadRequests",
		Variant: asks(func(q url.Values) {
			if q.Get("order") == "backwards" {
				q.Set("order", "desc")
			}
		}),
	},
	{
		name: "makes something of any frame", fails: "P12.9_BadFrames",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			return []string{strings.Replace(s.Text, `"order":"backwards"`, `"order":"desc"`, 1)}
		}},
	},
	{
		name: "answers a question for history as another", fails: "P12.9_AsByGET",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{strings.Replace(s.Text, `"answer":{"id":7,"events"`, `"answer":{"id":6,"events"`, 1)}
		}},
	},
}

// asks changes what is asked of history.
func asks(change func(q url.Values)) testee.Variant {
	return asked("history", func(_ http.ResponseWriter, _ *http.Request, q url.Values) bool {
		change(q)
		return false
	})
}

// keeps says of each page for how long it may be kept.
func keeps(how string) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/history") {
				w = &keptWriter{w, how}
			}
			next.ServeHTTP(w, r)
		})
	}}
}

type keptWriter struct {
	http.ResponseWriter
	how string
}

func (w *keptWriter) WriteHeader(status int) {
	w.Header().Set("Cache-Control", w.how)
	w.ResponseWriter.WriteHeader(status)
}

func (w *keptWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// compresses does something else for who names a coding.
func compresses(instead func(next http.Handler, w http.ResponseWriter, r *http.Request)) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") == "" {
				next.ServeHTTP(w, r)
				return
			}
			instead(next, w, r)
		})
	}}
}
