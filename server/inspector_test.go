package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// An inspecting world has an inspector, on a network of its own.
type inspecting struct {
	*world
	http *http.Client
	base string
}

func inspectorOf(w *world, mount func(h http.Handler) http.Handler, base string) *inspecting {
	network := memnet.New()
	hs := &http.Server{Handler: mount(w.srv.Inspector()), ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() { _ = hs.Serve(network); close(served) }()
	transport := &http.Transport{DialContext: network.Dial, DisableCompression: true}
	w.Cleanup(func() {
		_ = w.srv.Close()
		_ = hs.Close()
		<-served
		transport.CloseIdleConnections()
	})
	return &inspecting{w, &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, "http://127.0.0.1:1" + base}
}

func unchanged(h http.Handler) http.Handler { return h }

// look opens a channel of the page's, from the beginning.
func (i *inspecting) look(channel string) wireclient.Stream {
	i.Helper()
	s, err := wireclient.SSE(i.ctx, i.http, i.base+"realtime/sse?channel="+channel+"&after=earliest", "")
	if err != nil {
		i.Fatal(err)
	}
	return s
}

// A shown snapshot is what a page gets, as far as tests look at it.
type shown struct {
	Connections  map[string]int
	Away, Trials int
	Evictions    uint64
	GreatestLag  uint64
	MaxLag       int
	Up           time.Duration
	Health       struct {
		Failing map[string]struct {
			For     float64
			Breaker string
		}
	}
	Memory struct {
		Stage       string
		Used, Limit int64
	}
	Log                   struct{ Bytes int64 }
	Lines, Absent, Topics json.RawMessage
	Channels              []struct {
		Name        string
		Subscribers int
		Head        uint64
		Held        struct{ Events int }
	}
}

// now returns the newest snapshot.
func (i *inspecting) now() (v shown, text string) {
	i.Helper()
	time.Sleep(time.Second)
	s, err := wireclient.SSE(i.ctx, i.http, i.base+"realtime/sse?channel=snapshot&after=last%3D1", "")
	if err != nil {
		i.Fatal(err)
	}
	defer s.Close()
	time.Sleep(1500 * time.Millisecond) // the first one may be from before
	var data []byte
	for range 2 {
		data = i.nextEvent(s)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		i.Fatal(err)
	}
	return v, string(data)
}

func (i *inspecting) nextEvent(s wireclient.Stream) []byte {
	i.Helper()
	for {
		if it := i.next(s); it.Event {
			return it.Data
		}
	}
}

// TestInspectorShows a healthy client, one that stalls, and, once it is evicted,
// that it is kept out, with the reason; and nothing that is secret.
func TestInspectorShows(t *testing.T) {
	o := server.Options{
		WriteTimeout: 10 * time.Second, EvictionDelay: time.Minute, MaxLag: 77,
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Subject: r.URL.Query().Get("user")}, nil
		},
	}
	inBubble(t, o, func(w *world) {
		i := inspectorOf(w, unchanged, "/inspect/")
		stalled, err := wireclient.SSESession(w.ctx, w.http, base+"/sse?user=lin", hello("r", ""))
		if err != nil {
			t.Fatal(err)
		}
		defer stalled.Close()
		first, err := stalled.Next()
		if err != nil {
			t.Fatal(err)
		}
		h := hello("r", "")
		well, err := wireclient.WS(w.ctx, w.http, base+"/ws?user=%3Cb%3Eada", &h)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			for _, err := well.Next(); err == nil; _, err = well.Next() {
			}
		}()
		defer func() { well.Close(); <-read }()
		w.stall("r", 3_000_000)
		v, text := i.now()
		if v.Connections["sse"] != 1 || v.Connections["ws"] != 1 || v.GreatestLag < 10 || v.MaxLag != 77 || v.Log.Bytes < 3_000_000 || v.Up < time.Second {
			t.Errorf("while it is stalled: %s", text)
		}
		if len(v.Channels) != 1 || v.Channels[0].Name != "r" || v.Channels[0].Subscribers != 2 || v.Channels[0].Held.Events != 50 || v.Channels[0].Head != 50 {
			t.Errorf("channels: %+v", v.Channels)
		}
		if lines := string(v.Lines); strings.Index(lines, `"lin"`) > strings.Index(lines, "ada") || strings.Contains(text, "<b>") {
			t.Errorf("lines: %s", lines)
		}
		time.Sleep(10 * time.Second)
		v, text = i.now()
		if v.Away != 1 || v.Evictions != 1 || v.GreatestLag != 0 || !strings.Contains(string(v.Absent), `"subject":"lin"`) ||
			!strings.Contains(string(v.Absent), "it did not take in time what it was sent (WriteTimeout)") || strings.Contains(string(v.Lines), "lin") {
			t.Errorf("when it was evicted: %s", text)
		}
		if token := first.Open.Token; strings.Contains(text, token) || strings.Contains(text, token[:20]) {
			t.Errorf("it shows a token: %s", text)
		}
	})
}

// TestInspectorShowsWhatFails: a log that is down, as Readyz has it, and memory
// that is short. A log that does not answer holds no snapshot up.
func TestInspectorShowsWhatFails(t *testing.T) {
	log := &soundedLog{}
	inBubbleWith(t, log.open, server.Options{}, func(w *world) {
		i := inspectorOf(w, unchanged, "/inspect/")
		if _, text := i.now(); !strings.Contains(text, `"health":{"ready":true}`) || strings.Contains(text, `"memory"`) {
			t.Errorf("while all is well: %s", text)
		}
		log.down.Store(true)
		s := i.look("snapshot")
		defer s.Close()
		time.Sleep(10 * time.Second)
		v, text := i.now()
		if f := v.Health.Failing["log"]; f.Breaker == "" || f.For < 5 {
			t.Errorf("while the log fails: %s", text)
		}
		log.deaf.Store(true)
		log.slow.Store(int64(time.Minute))
		before := v.Up
		if v, text = i.now(); v.Up-before < 2*time.Second || v.Health.Failing["log"].For < 8 {
			t.Errorf("while the log does not answer, %v later: %s", v.Up-before, text)
		}
		log.slow.Store(0)
		log.down.Store(false)
		time.Sleep(2 * time.Minute)
		if _, text = i.now(); !strings.Contains(text, `"health":{"ready":true}`) {
			t.Errorf("once it answers again: %s", text)
		}
	})
	inBubble(t, server.Options{MemoryLimit: 1}, func(w *world) {
		i := inspectorOf(w, unchanged, "/inspect/")
		if v, text := i.now(); v.Memory.Stage != "evicting" || v.Memory.Used <= 1 || v.Memory.Limit != 1 {
			t.Errorf("while memory is short: %s", text)
		}
	})
}

// TestInspectorRests: nothing is done while nobody looks, before and after; what
// the plot gets counts evictions from the first look on.
func TestInspectorRests(t *testing.T) {
	inBubble(t, server.Options{WriteTimeout: time.Second}, func(w *world) {
		i := inspectorOf(w, unchanged, "/inspect/")
		w.evictOne()
		time.Sleep(time.Hour)
		s := i.look("pulse")
		time.Sleep(10*time.Second + time.Millisecond)
		w.evictOne()
		time.Sleep(3 * time.Second)
		s.Close()
		pulses, evictions := i.pulses()
		if pulses < 16 || pulses > 17 || evictions != 1 { // one at once, and one a second
			t.Errorf("%d pulses, %d evictions", pulses, evictions)
		}
		time.Sleep(time.Minute)
		if again, _ := i.pulses(); again > pulses+7 { // it lingered, and began anew
			t.Errorf("%d pulses in a minute in which nobody looked", again-pulses)
		}
	})
}

// evictOne has a client evicted, within 2 s.
func (w *world) evictOne() {
	w.Helper()
	s, err := wireclient.SSE(w.ctx, w.http, base+"/sse?channel=heavy", "")
	if err != nil {
		w.Fatal(err)
	}
	w.stall("heavy", 3_000_000)
	time.Sleep(2 * time.Second)
	s.Close()
}

// pulses looks for a moment, and counts what the plot has had.
func (i *inspecting) pulses() (n int, evictions uint64) {
	i.Helper()
	a, err := wireclient.PlainPoll(i.ctx, i.http, i.base+"realtime/poll?channel=pulse&after=earliest")
	if err != nil {
		i.Fatal(err)
	}
	for it, err := a.Next(); err == nil; it, err = a.Next() {
		var p struct{ Evictions uint64 }
		if it.Event && json.Unmarshal(it.Data, &p) == nil {
			n++
			evictions += p.Evictions
		}
	}
	time.Sleep(6 * time.Second) // it lingers
	return n, evictions
}

// TestInspectorEnds: with its server, also while somebody looks, and while
// nobody ever did. What comes later is told to come back.
func TestInspectorEnds(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		i := inspectorOf(w, unchanged, "/")
		if w.srv.Inspector() != w.srv.Inspector() {
			t.Error("each call makes another one")
		}
		s := i.look("snapshot")
		_ = i.nextEvent(s)
		began := time.Now()
		if err := w.srv.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		for it, err := s.Next(); err == nil; it, err = s.Next() {
			if it.Close != nil && it.Close.Code != "shutdown" {
				t.Errorf("the page was told %+v", it.Close)
			}
		}
		s.Close()
		if err := w.srv.Close(); err != nil {
			t.Error(err)
		}
		late := w.srv.Inspector()
		for path, want := range map[string]int{"/": 200, "/realtime/sse": 503} {
			r := httptest.NewRecorder()
			late.ServeHTTP(r, httptest.NewRequest("GET", path, nil))
			if r.Code != want {
				t.Errorf("%s: %d", path, r.Code)
			}
		}
	})
	inBubble(t, server.Options{}, func(w *world) { w.srv.Inspector() })
}

// TestInspectorIsMountedAnywhere: under any prefix, stripped or not, the page and
// all that it links to is found.
func TestInspectorIsMountedAnywhere(t *testing.T) {
	strip := func(prefix string) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler { return http.StripPrefix(prefix, h) }
	}
	for name, c := range map[string]struct {
		mount func(http.Handler) http.Handler
		base  string
	}{
		"at the root":               {unchanged, "/"},
		"under a prefix":            {unchanged, "/tools/v2/inspect/"},
		"under the feed's own name": {unchanged, "/realtime/"},
		"stripped":                  {strip("/tools/inspect"), "/tools/inspect/"},
		"stripped with its slash":   {strip("/tools/inspect/"), "/tools/inspect/"},
		"stripped in part":          {strip("/tools"), "/tools/a:b c/"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, server.Options{}, func(w *world) {
				i := inspectorOf(w, c.mount, strings.ReplaceAll(c.base, " ", "%20"))
				for path, want := range map[string]string{
					"": "text/html", "inspector.js": "text/javascript", "inspector.css": "text/css", "icon.svg": "image/svg+xml",
					"realtime/client.js": "text/javascript",
				} {
					r := i.get(path)
					if got := r.Header.Get("Content-Type"); r.StatusCode != 200 || !strings.HasPrefix(got, want) {
						t.Errorf("%s: %d, %s", path, r.StatusCode, got)
					}
				}
				s := i.look("snapshot")
				defer s.Close()
				_ = i.nextEvent(s)
				if c.base == "/" || name == "stripped with its slash" {
					return // there is nothing without the slash
				}
				i.base = strings.TrimSuffix(i.base, "/")
				r := i.get("?a=b")
				to, err := r.Location()
				if err != nil || r.StatusCode != 307 || to.String() != i.base+"/" {
					t.Errorf("without the slash: %d, %v, %v", r.StatusCode, to, err)
				}
			})
		})
	}
}

func (i *inspecting) get(path string) *http.Response {
	i.Helper()
	r, err := i.http.Get(i.base + path)
	if err != nil {
		i.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		i.Fatal(err)
	}
	return r
}

// TestInspectorIsSafe: it has its headers, only its own channels are to be read,
// nothing can be brought up, and no page of another origin gets anything,
// though the server's own clients may come from there.
func TestInspectorIsSafe(t *testing.T) {
	srv, err := server.New(server.Options{AllowedOrigins: []string{"https://app.example.com"}, Authorize: allow})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	do := func(method, path, body string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		srv.Inspector().ServeHTTP(w, r)
		return w
	}
	page := do("GET", "/inspect/", "")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := page.Header().Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, inline := range []string{"<style", "style=", "onclick", "<script>"} {
		if strings.Contains(page.Body.String(), inline) {
			t.Errorf("the page has %s, which its policy forbids", inline)
		}
	}
	if again := do("GET", "/inspect/", "", "If-None-Match", page.Header().Get("ETag")); again.Code != http.StatusNotModified {
		t.Errorf("asked again: %d", again.Code)
	}
	for what, c := range map[string]struct {
		w    *httptest.ResponseRecorder
		want int
	}{
		"another channel":     {do("GET", "/realtime/poll?channel=room", ""), 403},
		"a publish":           {do("POST", "/realtime/publish?channel=snapshot", "{}"), 403},
		"another origin":      {do("GET", "/realtime/poll?channel=snapshot", "", "Origin", "https://evil.example"), 403},
		"the clients' origin": {do("GET", "/realtime/poll?channel=snapshot", "", "Origin", "https://app.example.com"), 403},
		"another site":        {do("GET", "/realtime/poll?channel=snapshot", "", "Sec-Fetch-Site", "cross-site"), 403},
		"a POST of the page":  {do("POST", "/inspect/", ""), 405},
		"what is not there":   {do("GET", "/inspect/favicon.ico", ""), 404},
	} {
		if c.w.Code != c.want {
			t.Errorf("%s: %d %s", what, c.w.Code, c.w.Body)
		}
	}
}

// An inspector is mounted behind the program's own login.
func ExampleServer_Inspector() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()
	login := func(next http.Handler) http.Handler { // or whatever the program has
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != "of the house" {
				w.Header().Set("WWW-Authenticate", "Basic")
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)
	mux.Handle("/inspect/", login(srv.Inspector()))

	for _, password := range []string{"", "of the house"} {
		r := httptest.NewRequest("GET", "/inspect/", nil)
		if password != "" {
			r.SetBasicAuth("ada", password)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// 401
	// 200
}
