package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// The inspector's page (docs/inspector.md).
var (
	//go:embed inspector/index.html
	inspectorPage []byte
	//go:embed inspector/inspector.css
	inspectorStyle []byte
	//go:embed inspector/inspector.js
	inspectorScript []byte
	//go:embed inspector/icon.svg
	inspectorIcon []byte
)

const (
	// inspectorInterval is how often the page is told how things are.
	inspectorInterval = time.Second
	// inspectorLingers is how long it goes on when nobody looks any more: who polls
	// is back soon.
	inspectorLingers = 5 * time.Second
	// inspectorMost is how many connections, absent clients and channels are shown.
	inspectorMost = 50
	// inspectorPulses is how many points its plot has: two minutes.
	inspectorPulses = 120
	// inspectorPages is how many pages may be open.
	inspectorPages = 100
)

// The channels of the page.
const (
	snapshotChannel = "snapshot" // how things are; only the newest counts
	pulseChannel    = "pulse"    // what the plot shows, for two minutes
)

// Inspector returns a page that shows how this server's clients are: their
// connections and how far they lag, who is kept out and why, and the channels. It
// is nowhere until the program mounts it, under any prefix that ends with "/":
//
//	mux.Handle("/inspect/", login(srv.Inspector()))
//
// Put it behind your own login, as here: whoever can open it sees subjects,
// addresses of clients without one, the names of channels, and the first eight
// characters of session ids. It shows no tokens, credentials or payloads, and
// takes no orders. Only pages of the same origin may use it, whatever
// AllowedOrigins says.
//
// While a page is open, a snapshot is taken each second and sent to it through
// Throughline itself: by a second, small Server behind this handler, with a log
// of its own in memory. A channel of the program's log would do as well, but then
// each look would be written to a disk or another machine, all nodes would write
// into the same one, and Authorize would have to know of it. This way nothing that
// the page does can touch what the program's clients get. When nobody looks,
// nothing runs. Shutdown and Close end it. Each call returns the same handler,
// which shows this server and not the others that share its log.
func (s *Server) Inspector() http.Handler {
	s.inspector.open()
	return &s.inspector
}

// An inspector is the page's handler, and what feeds it. The zero value is one
// that is not mounted.
type inspector struct {
	// Static after lookInto.
	watched *Server
	kept    eventlog.Log // its log, without what stands before it
	began   time.Time

	mu     sync.Mutex
	feed   *Server          // guarded by mu: what carries the snapshots; nil: not mounted, or closed
	log    *eventlog.Memory // guarded by mu: of the feed
	closed bool             // guarded by mu
	seen   time.Time        // guarded by mu: when somebody looked last
	stop   chan struct{}    // guarded by mu: ends what runs; nil: nothing does
	runs   sync.WaitGroup   // what runs; begun under mu, or by one that runs
}

// lookInto says which server is looked into.
func (i *inspector) lookInto(s *Server) { i.watched, i.kept, i.began = s, s.log, time.Now() }

// open makes what the page needs, once.
func (i *inspector) open() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || i.feed != nil {
		return
	}
	i.log = eventlog.NewMemory(eventlog.MemoryOptions{
		Retain: func(ch Channel) eventlog.Retention {
			if ch.Name == snapshotChannel {
				return eventlog.Retention{Events: 1}
			}
			return eventlog.Retention{Events: inspectorPulses, Age: inspectorPulses * inspectorInterval}
		},
		MaxBytes: 16 << 20,
	})
	read := []Action{Subscribe, History}
	feed, err := New(Options{
		Log: i.log,
		Namespaces: map[string]Namespace{"": {Rules: map[string]Rule{
			snapshotChannel: {Allow: read, MaxLag: 1, Slow: SkipToLatest},
			pulseChannel:    {Allow: read},
		}}},
		Authorize:      func(context.Context, Identity, Action, Channel) error { return errors.New("not for the inspector") },
		OnSubscribe:    func(context.Context, Client, Channel) error { i.look(); return nil },
		MaxConnections: inspectorPages,
		MemoryLimit:    -1, // what it takes is bounded
		DrainTime:      time.Second,
		Logger:         slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err) // these options work
	}
	i.feed = feed
}

// look notes that somebody looks, and begins to take snapshots.
func (i *inspector) look() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen = time.Now()
	if i.stop != nil || i.closed {
		return
	}
	i.stop = make(chan struct{})
	r := &inspectorRun{inspector: i, feed: i.feed, stop: i.stop, asks: make(chan readiness, 1), last: readiness{Ready: true}}
	i.runs.Go(r.run)
}

// unwatched reports whether nobody has looked for a while. If so, what runs has to
// end.
func (i *inspector) unwatched(looking bool) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if looking {
		i.seen = time.Now()
	}
	if time.Since(i.seen) < inspectorLingers {
		return false
	}
	i.stop = nil
	return true
}

// close ends it all.
func (i *inspector) close(ctx context.Context) error {
	i.mu.Lock()
	feed, log := i.feed, i.log
	i.feed, i.closed = nil, true
	if i.stop != nil {
		close(i.stop)
		i.stop = nil
	}
	i.mu.Unlock()
	i.runs.Wait() // it waits for nobody
	if feed == nil {
		return nil
	}
	return errors.Join(feed.Shutdown(ctx), log.Close())
}

// An inspectorRun takes snapshots while somebody looks.
type inspectorRun struct {
	inspector *inspector
	feed      *Server
	stop      chan struct{}
	told      bool           // it has begun
	evictions uint64         // that were told of
	asks      chan readiness // holds one: what Readyz says, once that is known
	last      readiness
	asking    bool
}

func (r *inspectorRun) run() {
	tick := time.NewTicker(inspectorInterval)
	defer tick.Stop()
	for {
		r.tell()
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		if r.inspector.unwatched(len(r.feed.engine.Inspect(0, nil).Connections) > 0) {
			return
		}
	}
}

// A snapshot is what the page shows but for its plot. Durations are in
// nanoseconds.
type snapshot struct {
	core.Inspection

	Up     time.Duration  `json:"up"`
	Log    *retained      `json:"log,omitempty"` // if the log can say
	Health readiness      `json:"health"`        // as Readyz answers
	Memory *shownPressure `json:"memory,omitempty"`
}

// A shownPressure is what is done about memory that is short.
type shownPressure struct {
	Stage string `json:"stage"`
	Used  int64  `json:"used"` // bytes
	Limit int64  `json:"limit"`
}

// shown returns what is to be seen of the memory; nil: there is enough.
func (m *memory) shown() *shownPressure {
	stage := memoryStage(m.stage.Load())
	if stage == memoryEnough {
		return nil
	}
	return &shownPressure{stage.String(), m.used.Load(), m.limit.bytes}
}

type retained struct {
	Channels int   `json:"channels"`
	Bytes    int64 `json:"bytes"`
}

// A pulse is one second of the plot.
type pulse struct {
	At        int64  `json:"at"` // in ms since 1970, by the clock of this server
	Greatest  uint64 `json:"greatest"`
	Median    uint64 `json:"median"`
	Evictions uint64 `json:"evictions"` // since the one before
}

// health returns what fails, as it was a moment ago, and has that looked at anew:
// what does not answer makes nobody wait.
func (r *inspectorRun) health() readiness {
	select {
	case r.last = <-r.asks:
		r.asking = false
	default:
	}
	if !r.asking {
		r.asking = true
		r.inspector.runs.Go(func() { r.asks <- r.inspector.watched.health.look() })
	}
	return r.last
}

// tell publishes how things are.
func (r *inspectorRun) tell() {
	i := r.inspector
	items, _ := i.kept.(eventlog.Itemized)
	now := snapshot{
		Inspection: i.watched.engine.Inspect(inspectorMost, items),
		Up:         time.Since(i.began),
		Health:     r.health(),
		Memory:     i.watched.memory.shown(),
	}
	if measured, ok := i.kept.(eventlog.Measured); ok {
		size := measured.Size()
		now.Log = &retained{size.Channels, size.Bytes}
	}
	if !r.told { // the plot begins with what happens from now on
		r.told, r.evictions = true, now.Evictions
	}
	r.publish(pulseChannel, pulse{time.Now().UnixMilli(), now.GreatestLag, now.MedianLag, now.Evictions - r.evictions})
	r.evictions = now.Evictions
	r.publish(snapshotChannel, now)
}

// publish appends to the feed's log, which is in memory: it fails only when all is
// over.
func (r *inspectorRun) publish(channel string, value any) {
	if data, err := json.Marshal(value); err == nil {
		_, _ = r.feed.Publish(context.Background(), channel, Message{Data: data})
	}
}

// An inspectorFile is a part of the page, with an ETag that changes with it.
type inspectorFile struct {
	content   []byte
	mediaType string
	etag      string
}

// inspectorFiles are by the last element of their paths.
var inspectorFiles = map[string]inspectorFile{
	"":              newInspectorFile(inspectorPage, "text/html; charset=utf-8"),
	"inspector.css": newInspectorFile(inspectorStyle, "text/css; charset=utf-8"),
	"inspector.js":  newInspectorFile(inspectorScript, "text/javascript; charset=utf-8"),
	"icon.svg":      newInspectorFile(inspectorIcon, "image/svg+xml"),
}

func newInspectorFile(content []byte, mediaType string) inspectorFile {
	sum := sha256.Sum256(content)
	return inspectorFile{content, mediaType, `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// ServeHTTP implements [http.Handler]. As with the server itself, the end of the
// path says what is asked for.
func (i *inspector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if path == "" { // all of it was stripped: what was asked for tells whether it ended with "/"
		path, _, _ = strings.Cut(r.RequestURI, "?")
	}
	name := last(path)
	file, known := inspectorFiles[name]
	switch {
	case known:
		file.ServeHTTP(w, r)
	case last(strings.TrimSuffix(path, "/"+name)) == "realtime":
		i.serveFeed(w, r)
	case strings.Contains(name, "."):
		http.NotFound(w, r)
	default: // its relative links need the slash, and the prefix isn't known here
		w.Header().Set("Location", "./"+url.PathEscape(name)+"/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func (i *inspector) serveFeed(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	feed := i.feed
	i.mu.Unlock()
	if feed == nil {
		transport.WriteRefusal(w, transport.RefuseFor(jittered(time.Second), transport.CodeShutdown, "this server is going away"))
		return
	}
	feed.ServeHTTP(w, r)
}

func (f inspectorFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the inspector is only looked at", http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache") // kept, but asked about each time
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
