package redis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
)

// configured reads the lines of a file that people are told to copy, but for those
// that a test has its own of.
func configured(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/deploying/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		word, _, _ := strings.Cut(line, " ")
		if line != "" && word != "#" && word != "port" && word != "bind" {
			lines = append(lines, line)
		}
	}
	return lines
}

// until waits until something is so.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// watched is a primary with two replicas, by links that can be cut, and the sentinels.
type watched struct {
	primary   *redistest.Server
	replicas  []*redistest.Server
	links     []*redistest.Link
	sentinels []string
}

// startWatched starts what docs/deploying.md says.
func startWatched(t *testing.T) *watched {
	t.Helper()
	config := configured(t, "redis.conf")
	w := &watched{primary: redistest.Start(t, redistest.Options{Config: config})}
	for range 2 {
		link := redistest.StartLink(t, w.primary.Addr())
		w.links = append(w.links, link)
		w.replicas = append(w.replicas, redistest.Start(t, redistest.Options{ReplicaOf: link.Addr(), Config: config}))
	}
	client := w.primary.Client(t)
	until(t, "the replicas are there", func() bool { // else sentinels learn of them when they ask again, after 10 s
		return strings.Count(client.Info(t.Context(), "replication").Val(), "state=online") == 2
	})
	var sentinel []string
	for _, line := range configured(t, "sentinel.conf") {
		sentinel = append(sentinel, strings.Replace(line, "10.0.0.1 6379", strings.Replace(w.primary.Addr(), ":", " ", 1), 1))
	}
	for range 3 {
		w.sentinels = append(w.sentinels, redistest.Start(t, redistest.Options{Sentinel: sentinel}).Addr())
	}
	for _, address := range w.sentinels {
		s := goredis.NewSentinelClient(&goredis.Options{Addr: address})
		t.Cleanup(func() { _ = s.Close() })
		until(t, "the sentinels know each other", func() bool {
			others, err := s.Sentinels(t.Context(), "throughline").Result()
			replicas, err2 := s.Replicas(t.Context(), "throughline").Result()
			return err == nil && err2 == nil && len(others) == 2 && len(replicas) == 2
		})
	}
	until(t, "the primary takes writes", func() bool { return client.Set(t.Context(), "a", "1", 0).Err() == nil })
	return w
}

// open opens a node that asks the sentinels.
func (w *watched) open(t *testing.T, o Options) *node {
	t.Helper()
	n := &node{client: goredis.NewFailoverClient(&goredis.FailoverOptions{
		MasterName: "throughline", SentinelAddrs: w.sentinels, DialTimeout: time.Second,
	})}
	var err error
	if n.Log, err = Open(t.Context(), n.client, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// A follower reads a channel of a node as an engine does.
type follower struct {
	mu    sync.Mutex
	texts []string // guarded by mu: what came; a gap is its reason
}

func (f *follower) follow(ctx context.Context, n *node, ch eventlog.Channel, at eventlog.Position) {
	woken := make(chan struct{}, 1)
	defer n.Watch(ch, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	for ctx.Err() == nil {
		page, err := n.Read(ctx, ch, at, eventlog.Limit{})
		f.mu.Lock()
		var lost *eventlog.Lost
		switch {
		case err == nil:
			for _, e := range page.Events {
				f.texts = append(f.texts, string(e.Data))
			}
			at = page.Next
		case errors.As(err, &lost):
			f.texts = append(f.texts, string(lost.Reason))
			at = lost.To
		}
		f.mu.Unlock()
		if err == nil && page.More() || lost != nil {
			continue
		}
		select {
		case <-woken:
		case <-ctx.Done():
		case <-time.After(time.Second): // an error: later
		}
	}
}

func (f *follower) has(text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.texts, text)
}

// TestSentinelFailover: the primary is killed while two nodes publish and read. What was
// acknowledged as being on a replica is there. Of what was not, some is lost, and whoever
// had read it hears of it. All goes on at the new primary by itself.
func TestSentinelFailover(t *testing.T) {
	t.Parallel() // it mostly waits
	w := startWatched(t)
	safe, fast := eventlog.Channel{Name: "safe"}, eventlog.Channel{Name: "fast"}
	o := Options{
		Timeout:       time.Second,
		CheckInterval: time.Second,
		Durability: func(ch eventlog.Channel) Durability {
			return Durability{Replicas: map[eventlog.Channel]int{safe: 1}[ch]}
		},
	}
	publishing, reading := w.open(t, o), w.open(t, o)
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	followers := map[eventlog.Channel]*follower{safe: {}, fast: {}}
	for ch, f := range followers {
		at, err := reading.Seek(ctx, ch, eventlog.Start{})
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() { f.follow(ctx, reading, ch, at) })
	}
	// publish repeats one until it is acknowledged; its producer's number keeps it single.
	publish := func(ch eventlog.Channel, n int) {
		b := eventlog.Batch{
			Producer: eventlog.Producer{ID: "test", Seq: uint64(n)},
			Messages: []eventlog.Message{{Kind: eventlog.Text, Data: fmt.Append(nil, n)}},
		}
		for ctx.Err() == nil {
			if _, _, err := publishing.Append(ctx, ch, b); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	for n := 1; n <= 20; n++ {
		publish(safe, n)
		publish(fast, n)
	}
	for ch, f := range followers {
		until(t, "all is read of "+ch.Name, func() bool { return f.has("20") })
	}

	for _, l := range w.links { // what the primary takes from now on nobody else has
		l.Hang()
	}
	publish(fast, 21)
	until(t, "it is read", func() bool { return followers[fast].has("21") })
	if err := w.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for _, l := range w.links {
		l.Cut()
	}
	publish(safe, 21)
	t.Logf("%v after the kill an event is acknowledged", time.Since(killed).Round(10*time.Millisecond))
	until(t, "it hears of the loss", func() bool { return followers[fast].has("rewritten") })
	publish(fast, 22) // before, the gap might stand for it, too
	for ch, f := range followers {
		last := map[eventlog.Channel]string{safe: "21", fast: "22"}[ch]
		until(t, "it goes on with "+ch.Name, func() bool { return f.has(last) })
	}
	t.Logf("%v after the kill all is read", time.Since(killed).Round(10*time.Millisecond))
	stop()
	work.Wait()
	var numbers []string
	for n := range 20 {
		numbers = append(numbers, fmt.Sprint(n+1))
	}
	for ch, more := range map[eventlog.Channel]string{safe: " 21", fast: " 21 rewritten 22"} {
		if got, want := strings.Join(followers[ch].texts, " "), strings.Join(numbers, " ")+more; got != want {
			t.Errorf("%s: %s, want %s", ch.Name, got, want)
		}
	}
}

// TestDeposedPrimaryAnswersNothing: a primary that its replicas and sentinels can't reach,
// and that a node still can, refuses all that it is asked, reads too, before another one
// may be promoted.
func TestDeposedPrimaryAnswersNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	config := configured(t, "redis.conf")
	primary := redistest.Start(t, redistest.Options{Config: config})
	link := redistest.StartLink(t, primary.Addr())
	redistest.Start(t, redistest.Options{ReplicaOf: link.Addr(), Config: config})
	until(t, "the primary takes writes", func() bool {
		return primary.Client(t).Set(t.Context(), "a", "1", 0).Err() == nil
	})
	n := openOn(t, primary, Options{})
	t.Cleanup(func() { _ = n.Close() })
	ch := eventlog.Channel{Name: "a"}
	born, err := n.Seek(t.Context(), ch, eventlog.Start{})
	if err != nil {
		t.Fatal(err)
	}
	one := eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}}
	if _, _, err := n.Append(t.Context(), ch, one); err != nil {
		t.Fatal(err)
	}
	asks := map[string]func() error{
		"read":   func() error { _, err := n.Read(t.Context(), ch, born, eventlog.Limit{}); return err },
		"seek":   func() error { _, err := n.Seek(t.Context(), ch, eventlog.Start{Last: 1}); return err },
		"range":  func() error { _, err := n.Range(t.Context(), ch, eventlog.Range{}, eventlog.Limit{}); return err },
		"append": func() error { _, _, err := n.Append(t.Context(), ch, one); return err },
	}
	for what, ask := range asks {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	link.Hang()
	hung := time.Now()
	until(t, "it refuses", func() bool { return asks["read"]() != nil })
	took := time.Since(hung)
	t.Logf("reads are refused after %v", took.Round(10*time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("reads are refused after %v, and a replica is promoted after 5 s (docs/deploying)", took)
	}
	for what, ask := range asks {
		if err := ask(); !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, errNotDone) || !strings.Contains(err.Error(), "NOREPLICAS") {
			t.Errorf("%s: %v", what, err)
		}
	}
	link.Restore()
	until(t, "it answers again", func() bool { return asks["read"]() == nil })
}

// TestFullRedis: when memory is full, publishes fail, certainly not done, and reads go on.
// With room again, so do publishes.
func TestFullRedis(t *testing.T) {
	s := redistest.Start(t, redistest.Options{MaxMemory: "4mb"})
	n := openOn(t, s, Options{})
	t.Cleanup(func() { _ = n.Close() })
	ch := eventlog.Channel{Name: "a"}
	born, err := n.Seek(t.Context(), ch, eventlog.Start{})
	if err != nil {
		t.Fatal(err)
	}
	one := eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: make([]byte, 100<<10)}}}
	appended := 0
	for ; appended < 100; appended++ {
		if _, _, err = n.Append(t.Context(), ch, one); err != nil {
			break
		}
	}
	if !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, errNotDone) || !strings.Contains(err.Error(), "OOM") {
		t.Fatalf("after %d events: %v", appended, err)
	}
	for at, read := born, 0; read < appended; {
		page, err := n.Read(t.Context(), ch, at, eventlog.Limit{})
		if err != nil || len(page.Events) == 0 {
			t.Fatalf("after %d of %d events: %v", read, appended, err)
		}
		at, read = page.Next, read+len(page.Events)
	}
	if err := s.Client(t).ConfigSet(t.Context(), "maxmemory", "64mb").Err(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.Append(t.Context(), ch, one); err != nil {
		t.Error(err)
	}
}

// TestAnotherFormIsRefused: a program does not touch what one of another version has made.
func TestAnotherFormIsRefused(t *testing.T) {
	o := Options{Prefix: newPrefix()}
	n := open(t, o)
	t.Cleanup(func() { _ = n.Close() })
	if got := n.client.HGet(t.Context(), n.foundation(), "form").Val(); got != form {
		t.Errorf("form %q", got)
	}
	if err := n.client.HSet(t.Context(), n.foundation(), "form", "2").Err(); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(t.Context(), n.client, o); err == nil || !strings.Contains(err.Error(), `form "2"`) {
		t.Errorf("%v, %v", l, err)
	}
}
