package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// A reader is a page that follows what the program publishes, on one transport.
type reader struct {
	*world
	p     *page
	begin string
	n     int
}

// onEachTransport runs a test with a page that reads by each transport.
func onEachTransport(t *testing.T, verb string, test func(r *reader)) {
	t.Helper()
	for _, transport := range []string{"websocket", "sse", "poll"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel() // it mostly waits
			w := start(t, server.Options{})
			r := &reader{world: w, p: openBy(t, verb, "page", w.origin), begin: w.head("room")}
			r.p.connect("/realtime", map[string]any{"transports": []string{transport}})
			r.p.follow("room", r.begin)
			r.p.until(`carrier() === %q`, transport)
			r.publish(10)
			r.reached()
			test(r)
			r.publish(10)
			r.reached()
			o, numbers := w.history("room", r.begin, map[string]int{"go": r.n})
			if v := r.p.verdict(o, numbers, r.begin); !v.OK() || v.Missing+v.Unreached > 0 {
				t.Error(v)
			}
		})
	}
}

func (r *reader) publish(n int) {
	r.Helper()
	for range n {
		r.n++
		r.world.publish("room", fmt.Sprintf(`{"author":"go","n":%d}`, r.n))
	}
}

func (r *reader) reached() {
	r.Helper()
	r.p.until(`seen.all.at(-1)?.position === %q`, r.head("room"))
}

// unmoved demands that nothing of what was published since came through.
func (r *reader) unmoved(n int) {
	r.Helper()
	var got int
	if r.p.eval(&got, "seen.all.length"); got != n {
		r.Errorf("%d events had come, now there are %d", n, got)
	}
}

// The browser freezes a hidden tab: no code of the page runs meanwhile.
func TestClientSurvivesFreeze(t *testing.T) {
	t.Parallel() // it mostly waits
	onEachTransport(t, "openPlain", func(r *reader) {
		r.p.eval(nil, `void document.addEventListener("freeze", () => { told.frozen = true })`)
		r.p.cdp("Page.setWebLifecycleState", map[string]any{"state": "frozen"})
		r.p.becomes("told.frozen", true)
		r.publish(50)
		r.kill("ws")
		r.kill("sse")
		r.kill("poll")
		r.publish(50)
		time.Sleep(300 * time.Millisecond) // in which a page that is awake would have come back
		r.unmoved(10)
		r.p.cdp("Page.setWebLifecycleState", map[string]any{"state": "active"})
		r.reached()
	})
}

// The network goes and comes back.
func TestClientSurvivesOffline(t *testing.T) {
	t.Parallel() // it mostly waits
	onEachTransport(t, "open", func(r *reader) {
		r.p.cdp("Network.enable", nil)
		network := func(offline bool) {
			r.p.cdp("Network.emulateNetworkConditions", map[string]any{
				"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
			})
		}
		network(true)
		r.p.until("!navigator.onLine")
		// The emulation leaves open connections alone, and Chromium itself
		// repeats a request whose connection broke before the answer.
		r.forbid("ws", "sse", "poll")
		r.publish(50)
		r.p.until(`client.state.name !== "online"`)
		r.allow()
		time.Sleep(300 * time.Millisecond) // in which a page that is online would have come back
		r.unmoved(10)
		network(false)
		r.reached()
	})
}

// The user leaves the page and comes back to it: the browser kept it as it was.
func TestClientSurvivesBackForwardCache(t *testing.T) {
	t.Parallel() // it mostly waits
	onEachTransport(t, "open", func(r *reader) {
		r.p.eval(nil, `void addEventListener("pageshow", (e) => { told.restored = e.persisted })`)
		r.p.eval(nil, `void (location.href = "/page.html?elsewhere")`)
		r.p.becomes("document.readyState + location.search", "complete?elsewhere")
		r.publish(50)
		r.p.eval(nil, `void history.back()`)
		r.p.becomes("told.restored", true)
		r.reached()
	})
}
