package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// An inspectedWorld is a server on a port of its own that can go and come back,
// with its inspector at /tools/inspect/. Clients say by ?user= who they are.
type inspectedWorld struct {
	*testing.T
	address string
	log     *downLog
	ctx     context.Context
	srv     *server.Server
	stop    func()
}

func startInspected(t *testing.T) *inspectedWorld {
	t.Helper()
	needBrowser(t)
	memory := eventlog.NewMemory(eventlog.MemoryOptions{})
	w := &inspectedWorld{T: t, address: freeAddress(t), log: &downLog{Memory: memory}, ctx: t.Context()}
	w.start()
	t.Cleanup(func() { w.stop(); _ = memory.Close() })
	return w
}

// A downLog can't be asked while it is down.
type downLog struct {
	*eventlog.Memory
	down atomic.Bool
}

func (l *downLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if l.down.Load() {
		return eventlog.Position{}, eventlog.ErrUnavailable
	}
	return l.Memory.Seek(ctx, ch, s)
}

func (w *inspectedWorld) start() {
	w.Helper()
	w.srv = serve(w.T, server.Options{
		Log: w.log,
		Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{
			"quotes:*": {MaxLag: 50, Slow: server.SkipToLatest},
		}}},
		WriteTimeout:  2 * time.Second,
		EvictionDelay: 20 * time.Second,
		DrainTime:     time.Millisecond,
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Subject: r.URL.Query().Get("user")}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", w.address)
	if err != nil {
		w.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/realtime/", w.srv)
	mux.Handle("/tools/inspect/", http.StripPrefix("/tools/inspect", w.srv.Inspector()))
	hs := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ConnContext: w.srv.ConnContext}
	served := make(chan struct{})
	go func() { _ = hs.Serve(l); close(served) }()
	w.stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.srv.Shutdown(ctx)
		_ = hs.Close()
		<-served
		w.stop = func() {}
	}
}

func (w *inspectedWorld) base() string { return "http://" + w.address + "/realtime/" }

// follow has somebody follow channels, and keep up. It may end whenever the server
// does.
func (w *inspectedWorld) follow(user, carrier string, channels ...string) {
	w.Helper()
	h := wireclient.HelloFor("", channels...)
	target := w.base() + carrier + "?user=" + url.QueryEscape(user)
	var s wireclient.Stream
	var err error
	switch carrier {
	case "ws":
		s, err = wireclient.WS(w.ctx, http.DefaultClient, target, &h)
	case "sse":
		s, err = wireclient.SSESession(w.ctx, http.DefaultClient, target, h)
	default:
		s = wireclient.NewPollStream(w.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			for i := range h.Channels {
				h.Channels[i].After = at[h.Channels[i].Channel]
			}
			a, err := wireclient.SessionPoll(ctx, http.DefaultClient, target+"&wait=25s", h)
			if err == nil && a.Open != nil && a.Open.Token != "" {
				h.Token = a.Open.Token
			}
			return a, err
		})
	}
	if err != nil {
		w.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			if _, err := s.Next(); err != nil {
				return
			}
		}
	}()
	w.Cleanup(func() { s.Close(); <-read })
}

// stall has somebody begin to read a channel, and read no further. It returns the
// token of the session, which may be that of one before.
func (w *inspectedWorld) stall(user, channel, token, after string) string {
	w.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	hello := wireclient.HelloFor(after, channel)
	hello.Token, hello.Line = token, uint64(time.Now().UnixMilli())
	body, err := json.Marshal(map[string]any{"hello": hello})
	if err != nil {
		w.Fatal(err)
	}
	_, err = fmt.Fprintf(c, "POST /realtime/sse?user=%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		url.QueryEscape(user), w.address, len(body), body)
	if err != nil {
		w.Fatal(err)
	}
	lines := bufio.NewReaderSize(c, 16)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			w.Fatalf("%q: %v", line, err)
		}
		if _, after, found := strings.Cut(line, `"token":"`); found {
			token, _, _ = strings.Cut(after, `"`)
		}
		if strings.Contains(line, `{"open":`) {
			return token
		}
	}
}

func (w *inspectedWorld) flood(channel string, events, bytes int) {
	w.Helper()
	for range events {
		_, err := w.srv.Publish(w.ctx, channel, server.Message{Data: fmt.Appendf(nil, `"%0*d"`, bytes, 1)})
		if err != nil {
			w.Fatal(err)
		}
	}
}

// rows is JavaScript for the text of the rows of a table.
func rows(table string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#%s tbody tr")].map((row) => row.innerText).join("\n")`, table)
}

const inspectorState = `document.body.dataset.state`

// TestInspector: the page shows a session that appears, an eviction in its table
// and its plot, that the server goes, and that it is back. It does not believe
// what clients are called.
func TestInspector(t *testing.T) {
	t.Parallel() // it mostly waits
	w := startInspected(t)
	p := open(t, "inspector", "http://"+w.address+"/tools/inspect/")
	p.becomes(inspectorState, "live")
	p.becomes(`document.querySelector("#lines + .empty").hidden`, false)

	const wicked = `<img src=x onerror="document.title='wicked'">`
	w.follow("ada", "ws", "room")
	w.follow(wicked, "sse", "room", "<b>bold</b>")
	p.becomes(rows("lines")+`.includes("ada")`, true)
	p.becomes(rows("lines")+`.includes(`+quote(wicked)+`)`, true)
	p.becomes(rows("channels")+`.includes("<b>bold</b>")`, true)
	p.becomes(`document.querySelectorAll("td img, td b").length + document.title`, "0Inspector")
	p.becomes(`document.querySelector("#transports").textContent`, "sse 1 · ws 1")

	w.stall("lin", "heavy", "", "")
	p.becomes(rows("lines")+`.includes("lin")`, true)
	w.flood("heavy", 100, 60_000)
	p.becomes(`Number(document.querySelector("#lag").textContent) > 9`, true)
	p.becomes(rows("absent")+`.includes("lin")`, true)
	p.becomes(rows("absent")+`.includes("it did not take in time what it was sent (WriteTimeout)")`, true)
	p.becomes(rows("lines")+`.includes("lin")`, false)
	p.becomes(`document.querySelector("#evictions").textContent`, "1")
	p.becomes(`document.querySelectorAll("#plot rect.evictions").length`, 1)
	p.becomes(`/ 1\seviction\./.test(document.querySelector("#plot svg").getAttribute("aria-label"))`, true)
	p.eval(nil, `document.querySelector("#plot").dispatchEvent(new PointerEvent("pointermove", { clientX: 0 }))`)
	p.becomes(`/^\d+ s ago: greatest lag/.test(document.querySelector("#readout").textContent)`, true)
	p.eval(nil, `document.querySelector("#plot").dispatchEvent(new PointerEvent("pointerleave"))`)
	p.fits()

	w.stop()
	p.becomes(inspectorState, "gone")
	p.becomes(`/last seen \d+\ss ago/.test(document.querySelector("#state").textContent)`, true)
	w.start()
	p.becomes(inspectorState, "live")
	p.becomes(`document.querySelector("#evictions").textContent`, "0")
	p.becomes(`document.querySelectorAll("#plot rect.evictions").length`, 1)
	w.follow("ada", "ws", "room")
	p.becomes(rows("lines")+`.includes("ada")`, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.said {
		if !strings.Contains(line, "Failed to load resource") && !strings.Contains(line, "WebSocket connection") {
			t.Errorf("the page logged %s", line)
		}
	}
}

// TestInspectorTellsApart: plain clients have their addresses, and the names that
// logs have of their connections, here and when they are kept out; each channel
// has its own limit; what fails is said above all else.
func TestInspectorTellsApart(t *testing.T) {
	t.Parallel() // it mostly waits
	w := startInspected(t)
	p := open(t, "inspector", "http://"+w.address+"/tools/inspect/")
	p.becomes(inspectorState, "live")
	p.becomes(`document.querySelector("#trouble").hidden`, true)
	for range 2 {
		w.stallPlain("heavy")
	}
	w.follow("ada", "ws", "quotes:EURUSD")
	p.becomes(rows("lines")+`.split("127.0.0.1").length`, 3)
	var here []string
	p.eval(&here, `[...document.querySelectorAll("#lines tbody tr")].filter((row) => row.cells[0].textContent.includes("127.0.0.1")).map((row) => row.cells[1].textContent).sort()`)
	if len(here) != 2 || here[0] == here[1] || !strings.Contains(here[0], "plain") {
		t.Errorf("plain clients are told apart by %q", here)
	}
	p.becomes(`document.querySelector("#lag-sub").textContent`, "median 0") // the limits differ
	p.becomes(`[...document.querySelectorAll("#channels tbody tr")].map((row) => row.cells[0].firstChild.textContent + " " + row.cells[2].innerText.replace(/\s+/g, " ")).sort().join()`,
		"heavy 1,000,quotes:EURUSD 50 then skips")

	w.flood("heavy", 100, 60_000)
	p.becomes(`document.querySelector("#away").textContent`, "2")
	var out []string
	p.eval(&out, `[...document.querySelectorAll("#absent tbody tr")].filter((row) => row.cells[0].textContent.includes("127.0.0.1")).map((row) => row.cells[1].textContent).sort()`)
	if !slices.Equal(here, out) {
		t.Errorf("of those that are kept out %q, before %q", out, here)
	}

	w.log.down.Store(true)
	p.becomes(`document.querySelector("#trouble").innerText.replace(/[\d\s]+/g, " ")`, "The log fails for s, and is not asked for now: its breaker is open.")
	p.becomes(`/Live · .* · The log fails/.test(document.querySelector("#state").textContent)`, true)
	p.becomes(`document.title`, "⚠ Inspector")
	p.fits()
	w.log.down.Store(false)
	p.becomes(`document.querySelector("#trouble").hidden && !document.body.dataset.trouble && document.title`, "Inspector")
}

// stallPlain has a plain client follow a channel, and read nothing.
func (w *inspectedWorld) stallPlain(channel string) {
	w.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err = fmt.Fprintf(c, "GET /realtime/sse?channel=%s HTTP/1.1\r\nHost: %s\r\n\r\n", channel, w.address); err != nil {
		w.Fatal(err)
	}
}

// TestInspectorWords: a length of time is told to about a hundredth, and what fails
// with how bad that is.
func TestInspectorWords(t *testing.T) {
	w := startInspected(t)
	p := open(t, "inspector", "http://"+w.address+"/tools/inspect/")
	p.eval(nil, `import("./inspector.js").then(({ duration, troubles }) => void Object.assign(globalThis, { duration, troubles }))`)
	for seconds, want := range map[int]string{
		0: "0 s", 89: "89 s", 90: "90 s", 99: "99 s", 100: "1 min 40 s", 120: "2 min", 599: "9 min 59 s", 600: "10 min", 630: "11 min",
		5400: "90 min", 6000: "1 h 40 min", 35_990: "10 h", 86_400: "24 h", 500_000: "6 d",
	} {
		p.becomes(fmt.Sprintf(`duration(%d * 1e9).replaceAll("\u00a0", " ")`, seconds), want)
	}
	for seen, want := range map[string]string{
		`health: { ready: true }`: "",
		`health: { failing: { store: { for: 3 } }, degraded: { OnCall: { for: 90, breaker: "half-open" } } }`: "bad: The session store fails for 3 s.|" +
			"warn: OnCall fails for 90 s, and is tried again: its breaker is half-open.",
		`health: { failing: { server: { for: 0 } } }`: "bad: Going away This server takes no more clients.",
		`health: {}, memory: { stage: "trimming", used: 85e6, limit: 100e6 }`: "warn: Memory is short " +
			"The log gives up its oldest events. 85 % of 100 MB are used.",
		`health: {}, memory: { stage: "evicting", used: 97e6, limit: 100e6 }`: "bad: Memory is short " +
			"The log gives up its oldest events, new clients are refused, and who lags most is evicted. 97 % of 100 MB are used.",
	} {
		p.becomes(`troubles({ `+seen+` }).map(({ kind, what, more }) => kind + ": " + what + " " + more).join("|").replaceAll("\u00a0", " ")`, want)
	}
}

func quote(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

// screens are what the page has to look good on.
var screens = []struct {
	name          string
	width, height int
}{{"375", 375, 812}, {"1280", 1280, 860}}

// fits checks that the page does not scroll sideways on any screen, and that no
// number of the plot runs out of it.
func (p *page) fits() {
	p.Helper()
	for _, s := range screens {
		p.resize(s.width, s.height)
		p.becomes(`document.documentElement.scrollWidth <= innerWidth && innerWidth`, s.width)
		p.becomes(`document.querySelector("#plot svg").clientWidth <= document.querySelector("#plot").clientWidth`, true)
		p.becomes(`[...document.querySelectorAll("#plot text")].filter((e) => {
			const inner = e.getBoundingClientRect(), outer = e.ownerSVGElement.getBoundingClientRect();
			return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.height < 10;
		}).length`, 0)
	}
}

func (p *page) resize(width, height int) {
	p.Helper()
	p.cdp("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 2, "mobile": false})
}

// TestInspectorPictures takes pictures for people to look at if the environment names
// a folder for them, and takes a minute and a half then.
func TestInspectorPictures(t *testing.T) {
	folder := os.Getenv("INSPECTOR_PICTURES")
	if folder == "" {
		t.Skip("INSPECTOR_PICTURES=folder is not set")
	}
	w := startInspected(t)
	p := open(t, "inspector", "http://"+w.address+"/tools/inspect/")
	p.becomes(inspectorState, "live")
	for i, user := range []string{"ada", "grace", "edsger", "barbara", "tony", "", "frances", "donald"} {
		w.follow(user, []string{"ws", "ws", "sse", "ws", "poll"}[i%5], "room:lobby", []string{"quotes:EURUSD", "orders", "room:42"}[i%3])
	}
	tokens := map[string]string{}
	began := time.Now()
	for second := range 85 {
		w.flood("room:lobby", 3, 60)
		w.flood("quotes:EURUSD", 8+second%5, 200)
		w.flood("orders", 1+second%2, 900)
		switch user := []string{"lin", "alan", "john", "kathleen"}[second%4]; second {
		case 12, 40, 41, 66:
			tokens[user] = w.stall(user, "heavy", "", "")
			w.flood("heavy", 30+7*(second%5), 20_000)
		case 83:
			w.stall("linus", "orders", "", "")
			w.stall("lin", "heavy", tokens["lin"], "earliest")
			w.flood("orders", 20, 30_000)
		}
		time.Sleep(time.Until(began.Add(time.Duration(second+1) * time.Second)))
	}
	for _, s := range screens {
		p.resize(s.width, s.height)
		for scheme, suffix := range map[string]string{"light": "", "dark": "-dark"} {
			p.cdp("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
			p.becomes(`matchMedia("(prefers-color-scheme: `+scheme+`)").matches`, true)
			p.picture(filepath.Join(folder, "inspector-"+s.name+suffix+".png"))
		}
	}
	w.log.down.Store(true)
	p.becomes(`document.querySelector("#trouble").innerText.includes("breaker")`, true)
	p.picture(filepath.Join(folder, "inspector-fails.png"))
	w.stop()
	p.becomes(inspectorState, "gone")
	p.picture(filepath.Join(folder, "inspector-gone.png"))
}

// picture writes the whole page to a file.
func (p *page) picture(file string) {
	p.Helper()
	var height int
	p.eval(&height, "document.documentElement.scrollHeight")
	var width int
	p.eval(&width, "innerWidth")
	p.resize(width, height)
	var shot struct{ Data string }
	if err := json.Unmarshal(p.cdp("Page.captureScreenshot", map[string]any{"format": "png"}), &shot); err != nil {
		p.Fatal(err)
	}
	data, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, strings.NewReader(shot.Data)))
	if err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil { //nolint:gosec // a picture for everybody
		p.Fatal(err)
	}
}
