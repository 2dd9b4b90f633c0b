package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// TestMain is a node where the program under test has started itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-node" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs the whole of it until the test ends.
func start(t *testing.T) (c *cluster, url string) {
	t.Helper()
	c, err := startCluster(t.Context(), "")
	if errors.Is(err, errMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen("127.0.0.1:0", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, c) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * endWithin):
			t.Error("the program does not end")
		}
	})
	return c, link(l.Addr())
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A reader reads the ticks over one carrier, and comes back whenever it is cut off.
type reader struct {
	carrier string

	mu       sync.Mutex
	position string
	numbers  []uint64
	gaps     int
	lines    int
}

func (r *reader) run(ctx context.Context, base string) {
	for ctx.Err() == nil {
		if s, err := r.open(ctx, base); err == nil {
			for err == nil {
				var it wireclient.Item
				if it, err = s.Next(); err == nil {
					r.take(it)
				}
			}
			s.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *reader) open(ctx context.Context, base string) (wireclient.Stream, error) {
	r.mu.Lock()
	after := r.position
	r.lines++
	r.mu.Unlock()
	query := wireclient.Query(after, ticks)
	switch r.carrier {
	case "ws":
		return wireclient.WS(ctx, http.DefaultClient, strings.Replace(base, "http", "ws", 1)+"realtime/ws"+query, nil)
	case "sse":
		return wireclient.SSE(ctx, http.DefaultClient, base+"realtime/sse"+query, "")
	}
	return wireclient.PlainPoll(ctx, http.DefaultClient, base+"realtime/poll"+query+"&wait=5s")
}

func (r *reader) take(it wireclient.Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if it.Position != "" {
		r.position = it.Position
	}
	if it.Gap != nil {
		r.gaps++
	}
	if it.Event {
		var tick tick
		_ = json.Unmarshal(it.Data, &tick)
		r.numbers = append(r.numbers, tick.N)
	}
}

// last is the last number it has, or 0.
func (r *reader) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.numbers) == 0 {
		return 0
	}
	return r.numbers[len(r.numbers)-1]
}

// judge says what is missing, and what came twice.
func (r *reader) judge(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 1; i < len(r.numbers); i++ {
		if r.numbers[i] != r.numbers[i-1]+1 {
			t.Errorf("%s: %d came after %d", r.carrier, r.numbers[i], r.numbers[i-1])
		}
	}
	if r.gaps > 0 || len(r.numbers) < 20 {
		t.Errorf("%s: %d gaps were told, %d numbers came", r.carrier, r.gaps, len(r.numbers))
	}
	t.Logf("%s: %d numbers by %d lines", r.carrier, len(r.numbers), r.lines)
}

// Nodes are killed one after the other, then Redis is cut off: nobody misses anything.
func TestKilledNodesLoseNothing(t *testing.T) {
	c, url := start(t)
	ctx, stop := context.WithCancel(t.Context())
	readers := []*reader{{carrier: "ws"}, {carrier: "sse"}, {carrier: "poll"}}
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for _, r := range readers {
		all.Go(func() { r.run(ctx, url) })
	}
	goOn := func(what string) {
		t.Helper()
		from := c.snapshot().Published
		eventually(t, "all go on after "+what, func() bool {
			for _, r := range readers {
				if r.last() < from+5 {
					return false
				}
			}
			return true
		})
	}
	goOn("the beginning")
	for _, n := range c.nodes { // at any time at most one is down
		c.kill(n)
		goOn("a kill of " + n.name)
		if err := c.start(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	c.kill(c.nodes[0])
	c.kill(c.nodes[1])
	goOn("a kill of two")
	c.relay.cut(500 * time.Millisecond)
	goOn("a cut of Redis")
	if s := c.snapshot(); s.Kills != 5 {
		t.Errorf("%+v", s)
	}
	stop()
	all.Wait()
	for _, r := range readers {
		r.judge(t)
	}
}

// The script kills one node at a time, and starts it again.
func TestScriptKills(t *testing.T) {
	t.Parallel() // it mostly waits
	c, _ := start(t)
	c.killEvery(400 * time.Millisecond)
	eventually(t, "three kills", func() bool { return c.snapshot().Kills >= 3 })
	c.killEvery(0)
	eventually(t, "all are up", func() bool {
		for _, n := range c.snapshot().Nodes {
			if n.State != up {
				return false
			}
		}
		return true
	})
}

func TestThePageAndItsButtons(t *testing.T) {
	t.Parallel() // it mostly waits
	c, base := start(t)
	for path, want := range map[string]string{
		"":                   "<title>Throughline many nodes</title>",
		"app.js":             `from "./realtime/client.js"`,
		"style.css":          "light-dark",
		"realtime/client.js": "export",
		"realtime/auth.js":   "export",
		"cluster/state":      `"name":"node 1"`,
	} {
		r, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %.80q", path, r.Status, body)
		}
	}
	press := func(what, origin string, form url.Values) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, base+"cluster/"+what, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", origin)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	own, second := strings.TrimSuffix(base, "/"), url.Values{"node": {"node 2"}}
	state := func() view { return c.snapshot().Nodes[1] }
	if got := press("kill", "http://elsewhere.test", second); got != http.StatusForbidden || state().State != up {
		t.Errorf("a foreign page kills: %d", got)
	}
	if got := press("kill", own, second); got != http.StatusNoContent || state().State != down {
		t.Errorf("kill: %d, %+v", got, state())
	}
	if got := press("start", own, second); got != http.StatusNoContent || state().State != up {
		t.Errorf("start: %d, %+v", got, state())
	}
	if got := press("kill", own, url.Values{"node": {"node 9"}}); got != http.StatusNotFound {
		t.Errorf("one that is not there: %d", got)
	}
	if got := press("cut", own, nil); got != http.StatusNoContent || c.snapshot().Cut == 0 {
		t.Errorf("cut: %d", got)
	}
	if got := press("every", own, url.Values{"switch": {"on"}}); got != http.StatusNoContent || c.snapshot().Every != 3000 {
		t.Errorf("every: %d", got)
	}
	if got := press("every", own, url.Values{"switch": {"off"}}); got != http.StatusNoContent || c.snapshot().Every != 0 {
		t.Errorf("every: %d", got)
	}
}

// What is started ends with the program, also where that fails half-way.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel() // it mostly waits
	gone := func(address string) bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}
	c, err := startCluster(t.Context(), "")
	if errors.Is(err, errMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{c.redis.address, c.relay.address()}
	var pids []int
	for _, n := range c.nodes {
		addresses = append(addresses, n.address)
		pids = append(pids, n.process.cmd.Process.Pid)
	}
	pids = append(pids, c.redis.cmd.Process.Pid)
	c.close()
	for _, address := range addresses {
		if !gone(address) {
			t.Errorf("somebody still listens on %s", address)
		}
	}
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil && p.Signal(syscall.Signal(0)) == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	if _, err := os.Stat(c.redis.dir); !os.IsNotExist(err) {
		t.Errorf("its folder: %v", err)
	}
	if err := c.start(t.Context(), c.nodes[0]); err != nil || c.nodes[0].state != down {
		t.Errorf("one is started after the end: %v", err)
	}
	if _, err := startCluster(t.Context(), "127.0.0.1:1"); err == nil { // nothing is there
		t.Error("nodes start without a Redis")
	}
}

// The counters of the page are made of what publishers say: numbers that are there.
func TestNumbersGoOnFromTheLog(t *testing.T) {
	t.Parallel()
	var seen []string
	log := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"events":[{"data":{"n":41}}]}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, string(body)+" "+r.Header.Get("Producer-Seq"))
		if len(seen) == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	c := &cluster{}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	c.publish(log.URL + "/")
	eventually(t, "three numbers", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.published >= 43
	})
	c.cancel()
	c.work.Wait()
	log.Close()
	for i, want := range []uint64{42, 42, 43} { // one was sent again
		number := want - 41
		if want := `{"n":` + strconv.FormatUint(want, 10) + `} ` + strconv.FormatUint(number, 10); seen[i] != want {
			t.Errorf("%d: %q, want %q", i, seen[i], want)
		}
	}
}

// A node that can't welcome a page because Redis is away sends it away for a while, and
// not for good.
func TestNoWelcomeIsNoRefusalForGood(t *testing.T) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	srv, err := server.New(server.Options{Log: log, Authorize: authorize})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	who := server.Client{Identity: server.Identity{Subject: "page-1"}}
	if err := welcome(t.Context(), srv, "node 1", who); err != nil {
		t.Error(err)
	}
	_ = log.Close()
	err = welcome(t.Context(), srv, "node 1", who)
	if refusal, ok := errors.AsType[*transport.Refusal](err); !ok || refusal.Class != transport.Later {
		t.Errorf("%v", err)
	}
}

func TestWithoutRedisItSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if c, err := startCluster(t.Context(), ""); !errors.Is(err, errMissing) || c != nil {
		t.Errorf("%v, %v", c, err)
	}
}
