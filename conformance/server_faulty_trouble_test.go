package conformance_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
)

// busyRoom is the channel in which the suite has much going on.
const busyRoom = "busy room"

var troubleFaults = []serverFault{
	{
		name: "says lost where a node is only behind", fails: "P6.15_LaggingNode",
		Variant: testee.Variant{Node: func(l eventlog.Log, _ int) eventlog.Log { return &forgottenLag{l} }},
	},
	{
		name: "goes on where it stopped itself, not where the client says",
		fails: "P6.12_SwitchToSSE P6.12_SwitchToWS P6.12_SwitchToPoll P6.12_OldLineLeftOpen P5.5_LostAnswerIsAskedForAgain P5.5_AnswersAreLost P5.5_PollsThatAreDoubled " +
			"P2.1_CutAnywhere P6.3_SilentLineIsLeft P6.15_RefusedOnTheWay P6.15_UpgradeThatDies P6.15_StreamsThatAreHeldBack P8.3_StalledReaderIsBrokenOff (P8.3_SlowReaderIsToldWhy) (P6.15_NodesInTurn) (P2.1_DrainLosesNothing)",
		Variant: testee.Variant{Handler: ownCursor},
	},
	{
		name: "begins a session's new line when the one before has ended", fails: "(P8.4_OthersComeIn) P6.12_OldLineLeftOpen (P6.3_SilentLineIsLeft)",
		Variant: testee.Variant{Handler: oneLineAtATime},
	},
	{
		name: "writes to one client at a time", fails: "P2.1_StalledReaderHoldsUpNobody",
		Variant: testee.Variant{Handler: oneWriteAtATime},
	},
	{
		name: "waits for who reads nothing as long as it takes", fails: "P8.3_StalledReaderIsBrokenOff",
		Variant: optionsOf(func(o *server.Options) { o.WriteTimeout = 24 * time.Hour }),
	},
	{
		name: "lets readers fall behind as far as they will", fails: "P8.3_SlowReaderIsToldWhy",
		Variant: optionsOf(func(o *server.Options) { o.MaxLag = 1 << 30 }),
	},
	{
		name: "has slow readers back at once", fails: "P8.3_SlowReaderIsToldWhy",
		Variant: optionsOf(func(o *server.Options) {
			if o.EvictionDelay > 0 {
				o.EvictionDelay = time.Millisecond
			}
		}),
	},
	{
		name: "never takes a peer for dead", fails: "P4.4_DeadPeerIsBrokenOff",
		Variant: optionsOf(func(o *server.Options) { o.PeerTimeout = 24 * time.Hour }),
	},
	{
		name: "takes nothing but a pong for a sign of life", fails: "P4.4_AnyFrameIsASignOfLife",
		Rewriter: testee.Rewriter{Up: func(s testee.Said) []string {
			if s.Text == `{"unsubscribe":["no such"]}` {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name: "calls all back at the same time", fails: "P6.13_ReturnsAreSpread",
		Variant: optionsOf(func(o *server.Options) { o.DrainTime = time.Nanosecond }),
	},
	{
		name: "ends streams without a retry", fails: "P3.11_DrainedStream (P3.11_RefusedForAWhile) (P8.3_SlowReaderIsToldWhy)",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path == "sse" && s.Plain && aRetryAlone.MatchString(s.Text) {
				return nil
			}
			return []string{s.Text}
		}},
	},
	{
		name: "closes WebSockets as if it were for good when it ends", fails: "P4.5_DrainedSocket (P4.5_ShutdownSaysWhen)",
		Variant: closing(func(code uint16, reason string) (uint16, string) {
			if strings.HasPrefix(reason, "shutdown") {
				return 4002, "shutdown"
			}
			return code, reason
		}),
	},
	{
		name: "ends polls without a goodbye", fails: "P5.4_DrainedPoll (P6.13_GoodbyeIsLast)",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if s.Path == "poll" {
				s.Text = goodbyeInPoll.ReplaceAllString(s.Text, "")
			}
			return []string{s.Text}
		}},
	},
	{
		name: "does not say when newcomers may try again", fails: "P8.3_NewcomersAreSentElsewhere",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			if strings.HasPrefix(s.Text, `{"error":{"code":"shutdown"`) {
				return []string{`{"error":{"code":"shutdown","class":"later"}}`}
			}
			return []string{s.Text}
		}},
	},
	{
		name: "as another node leaves out the first event that it reads", fails: "P2.1_DrainLosesNothing P6.15_KilledNode P6.15_NodesInTurn (P6.15_AnyNode)",
		Variant: testee.Variant{Node: func(l eventlog.Log, nth int) eventlog.Log {
			if nth == 0 {
				return l
			}
			return &headlessLog{Log: l}
		}},
	},
	{
		name: "calls a history that is lost trimmed", fails: "(P12.4_Gaps) P2.5_RestartThatLostEverything P2.5_RewrittenTellsTheHead P6.10_SubscribeInFlight",
		Rewriter: testee.Rewriter{Down: func(s testee.Said) []string {
			return []string{strings.ReplaceAll(s.Text, `"reason":"rewritten"`, `"reason":"trimmed"`)}
		}},
	},
	{
		name: "does not speak HTTP/1.0", fails: "P5.3_ThroughHTTP10",
		Variant: testee.Variant{Handler: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMinor == 0 {
					w.WriteHeader(http.StatusHTTPVersionNotSupported)
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
	},
	{
		name: "appends each copy of a message that has a key", fails: "P7.3_CopyMadeOnTheWay",
		Variant: appending(func(ctx context.Context, log eventlog.Log, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			if strings.Contains(b.Producer.ID, "a key of this message") {
				b.Producer = eventlog.Producer{}
			}
			return log.Append(ctx, ch, b)
		}),
	},
}

var (
	aRetryAlone   = regexp.MustCompile(`^retry: ?\d+$`)
	goodbyeInPoll = regexp.MustCompile(`,"close":\{"code":"shutdown"[^}]*\}`)
	placeSaid     = regexp.MustCompile(`(?m)"channel":"busy room","position":"([^"]+)"|"busy room":"([^"]+)"|^id: (.+)$`)
	placeAsked    = regexp.MustCompile(`"channel":"busy room","after":"[^"]+"`)
)

// ownCursor has a server go on after what it said last in the busy room.
func ownCursor(next http.Handler) http.Handler {
	var mu sync.Mutex
	last := ""
	hears := testee.Rewriter{
		Down: func(s testee.Said) []string {
			mu.Lock()
			defer mu.Unlock()
			for _, found := range placeSaid.FindAllStringSubmatch(s.Text, -1) {
				last = found[1] + found[2] + found[3]
			}
			return []string{s.Text}
		},
		Up: func(s testee.Said) []string {
			mu.Lock()
			defer mu.Unlock()
			if last != "" {
				s.Text = placeAsked.ReplaceAllString(s.Text, `"channel":"busy room","after":"`+last+`"`)
			}
			return []string{s.Text}
		},
	}.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		switch channel := query.Get("channel"); {
		case channel == "":
			hears.ServeHTTP(w, r)
		case channel != busyRoom:
			next.ServeHTTP(w, r)
		default:
			r.URL.RawQuery = goesOnAt(&mu, &last, query)
			hears.ServeHTTP(w, r)
		}
	})
}

func goesOnAt(mu *sync.Mutex, last *string, query url.Values) string {
	mu.Lock()
	defer mu.Unlock()
	if query.Has("after") && *last != "" {
		query.Set("after", *last)
	}
	return query.Encode()
}

// oneLineAtATime has a hello in the busy room wait until the line before has
// ended.
func oneLineAtATime(next http.Handler) http.Handler {
	line := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		waits := false
		if strings.HasSuffix(r.URL.Path, "/sse") && r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			waits = bytes.Contains(body, []byte(busyRoom))
		}
		if waits {
			select {
			case line <- struct{}{}:
				defer func() { <-line }()
			case <-r.Context().Done():
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// oneWriteAtATime has responses wait for each other.
func oneWriteAtATime(next http.Handler) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&inTurn{w, turn}, r)
	})
}

type inTurn struct {
	http.ResponseWriter
	turn chan struct{}
}

func (w *inTurn) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *inTurn) Write(p []byte) (int, error) {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	return w.ResponseWriter.Write(p)
}

func (w *inTurn) FlushError() error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// headlessLog leaves out the first event that is read.
type headlessLog struct {
	eventlog.Log
	once sync.Once
}

func (l *headlessLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	if err == nil && len(page.Events) > 0 && ch != core.Control {
		l.once.Do(func() { page.Events = page.Events[1:] })
	}
	return page, err
}

// forgottenLag takes a position that a node has not seen for one that is lost.
type forgottenLag struct{ eventlog.Log }

func (l *forgottenLag) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	if err != nil && strings.Contains(err.Error(), "not seen") {
		head, _ := l.Log.Seek(ctx, ch, eventlog.Start{})
		return page, &eventlog.Lost{From: after, To: head, Reason: eventlog.Rewritten}
	}
	return page, err
}
