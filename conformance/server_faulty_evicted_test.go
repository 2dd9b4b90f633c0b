package conformance_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// evictedFor is how long the suite has slow clients kept out the first time.
const evictedFor = 20 * time.Second

// Faults of P8.4 and P8.5.
var evictedFaults = []serverFault{
	{
		name:    "lets in who was evicted a moment ago",
		fails:   "P8.4_KeptOutByEachCarrier P8.4_GoesOnAfterTheDelay P8.4_DelayGrows",
		Variant: optionsOf(func(o *server.Options) { o.EvictionDelay = onlyIf(o.EvictionDelay, time.Millisecond) }),
	},
	{
		name:    "keeps out for longer than it is set to",
		fails:   "P8.4_KeptOutByEachCarrier",
		Variant: optionsOf(func(o *server.Options) { o.EvictionDelay = onlyIf(o.EvictionDelay, time.Hour) }),
	},
	{
		name:  "says the whole delay anew to each who comes too early",
		fails: "P8.4_KeptOutByEachCarrier",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{leftToWait.ReplaceAllString(s.Text, `${1}20000`)}
		}},
	},
	{
		name:    "begins the delay anew when a client comes too early",
		fails:   "P8.4_KeptOutByEachCarrier P8.4_GoesOnAfterTheDelay",
		Variant: testee.Variant{Handler: beginsDelaysAnew},
	},
	{
		name:    "lets in by polls who was evicted from a stream",
		fails:   "P8.4_KeptOutByEachCarrier",
		Variant: testee.Variant{Handler: pollsForAll},
	},
	{
		name:  "closes plain WebSockets of who is kept out without a delay",
		fails: "P8.4_KeptOutByEachCarrier P8.4_GoesOnAfterTheDelay P8.4_DelayGrows",
		Variant: closing(func(code uint16, reason string) (uint16, string) {
			if strings.HasPrefix(reason, "slow_consumer") {
				return 4001, "slow_consumer"
			}
			return code, reason
		}),
	},
	{
		name:    "keeps out for as long each time",
		fails:   "P8.4_DelayGrows",
		Variant: optionsOf(func(o *server.Options) { o.MaxEvictionDelay = o.EvictionDelay }),
	},
	{
		name:    "forgets where it was whom it has kept out",
		fails:   "P8.4_GoesOnAfterTheDelay",
		Variant: testee.Variant{Handler: forgetsPlaces},
	},
	{
		name:    "takes who is far behind when it comes for slow",
		fails:   "P8.4_CatchingUpIsNotSlow",
		Variant: impatient(),
	},
	{
		name:  "keeps out all when one is slow",
		fails: "P8.4_OthersComeIn",
		Variant: knows(func(id server.Identity, err error) (server.Identity, error) {
			if id.Subject == "slow" || id.Subject == "new" {
				id.Subject = "slow and new"
			}
			return id, err
		}),
	},
	{
		name:    "lets WebSockets break as often as they will",
		fails:   "P8.5_BrokenCarrierIsRefused P8.5_InsteadIsOpen P8.5_MayBeTriedAgain P8.5_OthersKeepTheirs",
		Variant: optionsOf(func(o *server.Options) { o.BrokenLines = 1 << 20 }),
	},
	{
		name:    "refuses WebSockets when one has broken",
		fails:   "P8.5_BrokenCarrierIsRefused",
		Variant: optionsOf(func(o *server.Options) { o.BrokenLines = min(o.BrokenLines, 1) }),
	},
	{
		name:    "refuses all carriers when WebSockets break",
		fails:   "P8.5_InsteadIsOpen",
		Variant: testee.Variant{Handler: afterBroken("sse", "poll")},
	},
	{
		name:    "refuses WebSockets to all when those of a session break",
		fails:   "P8.5_OthersKeepTheirs P8.5_MayBeTriedAgain",
		Variant: testee.Variant{Handler: afterBroken("ws")},
	},
	{
		name:     "names the broken carrier among those that are open",
		fails:    "P8.5_InsteadIsOpen",
		Rewriter: inSockets(`"instead":[`, `"instead":["ws",`),
	},
	{
		name:     "names no carriers that are open",
		fails:    "P8.5_InsteadIsOpen",
		Rewriter: inSockets(`"instead":["sse","poll"]`, `"instead":[]`),
	},
	{
		name:     "says in the goodbye another delay than in the close frame",
		fails:    "P8.5_BrokenCarrierIsRefused",
		Rewriter: inSockets(`"broken_carrier","class":"later","after":`, `"broken_carrier","class":"later","after":1`),
	},
	{
		name:    "takes a close frame for a connection that broke",
		fails:   "P8.5_ClosedIsNotBroken",
		Variant: testee.Variant{Handler: deafToClose},
	},
	{
		name:    "counts what broke when it had held for long",
		fails:   "P8.5_UnprovedIsNotCounted",
		Variant: optionsOf(func(o *server.Options) { o.BrokenWithin = 1000 * time.Hour }),
	},
	{
		name:    "counts what broke before it was proved",
		fails:   "P8.5_UnprovedIsNotCounted",
		Variant: countsAll(),
	},
}

func onlyIf(set, other time.Duration) time.Duration {
	if set == 0 {
		return 0
	}
	return other
}

var leftToWait = regexp.MustCompile(`("slow_consumer","class":"later","after":)\d+`)

// inSockets replaces what WebSockets say.
func inSockets(what, with string) testee.Rewriter {
	return testee.Rewriter{Down: func(s testee.Said) []string {
		if s.Path == "ws" {
			s.Text = strings.ReplaceAll(s.Text, what, with)
		}
		return []string{s.Text}
	}}
}

// last is the last element of a request's path.
func last(r *http.Request) string { return r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] }

// tried serves a request whose answer comes at once, and returns it; body is what
// was asked.
func tried(next http.Handler, r *http.Request) (answer *httptest.ResponseRecorder, body []byte) {
	body, _ = io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer = httptest.NewRecorder()
	next.ServeHTTP(answer, r)
	return answer, body
}

func passOn(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func isKeptOut(answer *httptest.ResponseRecorder) bool {
	return answer.Code == http.StatusServiceUnavailable && strings.Contains(answer.Body.String(), transport.CodeSlowConsumer)
}

var tokenAsked = regexp.MustCompile(`"token":"[^"]*"`)

// pollsForAll answers a poll that is refused to who was slow as if it were
// another's.
func pollsForAll(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if last(r) != "poll" {
			next.ServeHTTP(w, r)
			return
		}
		answer, body := tried(next, r)
		if isKeptOut(answer) {
			r.RemoteAddr = "192.0.2.1:1"
			r.Body = io.NopCloser(bytes.NewReader(tokenAsked.ReplaceAll(body, []byte(`"token":""`))))
			answer = httptest.NewRecorder()
			next.ServeHTTP(answer, r)
		}
		passOn(w, answer)
	})
}

// beginsDelaysAnew says, and means, the whole delay to whoever is told to wait.
func beginsDelaysAnew(next http.Handler) http.Handler {
	var until atomic.Int64 // a Unix time in ns
	hears := testee.Rewriter{Down: func(s testee.Said) []string {
		if leftToWait.MatchString(s.Text) || s.Plain && s.Path == "sse" && aRetryAlone.MatchString(s.Text) {
			until.Store(time.Now().Add(evictedFor).UnixNano())
		}
		return []string{s.Text}
	}}.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left := time.Until(time.Unix(0, until.Load()))
		if left <= 0 {
			hears.ServeHTTP(w, r)
			return
		}
		until.Store(time.Now().Add(evictedFor).UnixNano())
		if last(r) == "sse" && r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "retry: %d\n\n", evictedFor.Milliseconds())
			return
		}
		transport.WriteRefusal(w, transport.RefuseFor(evictedFor, transport.CodeSlowConsumer, "this client did not keep up"))
	})
}

// forgetsPlaces has who was refused as slow begin anew when it comes back.
func forgetsPlaces(next http.Handler) http.Handler {
	var refused atomic.Bool
	hears := testee.Rewriter{
		Down: func(s testee.Said) []string {
			if leftToWait.MatchString(s.Text) || s.Plain && s.Path == "sse" && aRetryAlone.MatchString(s.Text) {
				refused.Store(true)
			}
			return []string{s.Text}
		},
		Up: func(s testee.Said) []string {
			if refused.Load() {
				s.Text = placeAsked.ReplaceAllString(s.Text, `"channel":"busy room"`)
			}
			return []string{s.Text}
		},
	}.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if query := r.URL.Query(); query.Has("after") && refused.Load() {
			query.Del("after")
			r.URL.RawQuery = query.Encode()
		}
		hears.ServeHTTP(w, r)
	})
}

// impatient ends a stream that has brought much, and goes on bringing it.
func impatient() testee.Variant {
	var evicts atomic.Bool
	return testee.Variant{
		Options: func(o *server.Options) { evicts.Store(o.EvictionDelay > 0) },
		Handler: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				began, brought := time.Now(), 0
				ctx, cancel := context.WithCancel(r.Context())
				defer cancel()
				testee.Rewriter{Down: func(s testee.Said) []string {
					brought += len(s.Text)
					if !evicts.Load() || s.Path != "sse" || brought < 100<<10 || time.Since(began) < 5*time.Second {
						return []string{s.Text}
					}
					cancel()
					if s.Plain {
						return []string{"retry: 20000"}
					}
					return []string{`data: {"close":{"code":"slow_consumer","class":"later","after":20000}}`}
				}}.Handler(next).ServeHTTP(w, r.WithContext(ctx))
			})
		},
	}
}

// afterBroken refuses some carriers to all, once WebSockets were refused to a
// session.
func afterBroken(paths ...string) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var said atomic.Bool
		hears := testee.Rewriter{Down: func(s testee.Said) []string {
			if strings.Contains(s.Text, `"code":"broken_carrier"`) {
				said.Store(true)
			}
			return []string{s.Text}
		}}.Handler(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, path := range paths {
				if said.Load() && last(r) == path {
					transport.WriteRefusal(w, transport.RefuseFor(time.Minute, transport.CodeBrokenCarrier, "broken"))
					return
				}
			}
			hears.ServeHTTP(w, r)
		})
	}
}

// countsAll refuses WebSockets when a few were short.
func countsAll() testee.Variant {
	var most int
	var short atomic.Int32
	return testee.Variant{
		Options: func(o *server.Options) { most = o.BrokenLines; short.Store(0) },
		Handler: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if most == 0 || last(r) != "ws" {
					next.ServeHTTP(w, r)
					return
				}
				if int(short.Load()) >= most {
					transport.WriteRefusal(w, transport.RefuseFor(time.Minute, transport.CodeBrokenCarrier, "broken"))
					return
				}
				began := time.Now()
				next.ServeHTTP(w, r)
				if time.Since(began) < time.Second {
					short.Add(1)
				}
			})
		},
	}
}

// deafToClose breaks a connection off when a client closes it with words that the
// suite has for that.
func deafToClose(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if last(r) == "ws" {
			w = &lending{ResponseWriter: w, conn: func(c net.Conn) net.Conn { return &deafConn{c} }}
		}
		next.ServeHTTP(w, r)
	})
}

type deafConn struct{ net.Conn }

// closeSaid is the close frame, masked as the suite does.
var closeSaid = func() []byte {
	b := []byte("\x03\xe8it leaves, and will be back")
	for i := range b {
		b[i] ^= []byte{1, 2, 3, 4}[i%4]
	}
	return b
}()

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], closeSaid) {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}
