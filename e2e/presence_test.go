package e2e

import (
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// Who is here stays the same while a page changes what carries it and while it
// is cut off for a moment; and it is right in the stated time after the page's
// tab is killed: the grace and two intervals.
func TestPresenceOfKilledTab(t *testing.T) {
	const grace, interval = 3 * time.Second, time.Second
	for _, carrier := range []string{"websocket", "sse", "poll"} {
		t.Run(carrier, func(t *testing.T) {
			t.Parallel() // it mostly waits
			w := start(t, server.Options{PresenceGrace: grace, PresenceInterval: interval})
			ada := open(t, "ada", w.origin)
			ada.connect("/realtime", map[string]any{"transports": []string{carrier}})
			ada.eval(nil, `import("/realtime/presence.js").then(({ presence }) => {
				window.totals = [];
				window.here = presence(client, "room");
				here.onChange(() => totals.push(here.total));
			})`)
			ada.until("totals.length === 1")

			door := newGate(w.srv) // bob has one of his own, so that ada meets none of his trouble
			bob := open(t, "bob", listen(t, door))
			bob.connect("/realtime", nil)
			bob.follow("room", "latest")
			bob.until(`carrier() === "websocket"`)
			ada.until("here.total === 1")
			for _, step := range []struct {
				forbidden []string
				then      string
			}{
				{[]string{"ws"}, "sse"},
				{[]string{"ws", "sse"}, "poll"},
				{[]string{"ws", "sse", "poll", "up"}, "waiting"},
				{nil, "websocket"},
			} {
				door.allow()
				door.forbid(step.forbidden...)
				bob.until(`carrier() === %q`, step.then)
				time.Sleep(grace / 2) // less than the grace, also for two of them in a row
			}
			var totals []int
			if ada.eval(&totals, "totals"); len(totals) != 2 || totals[1] != 1 {
				t.Errorf("ada was told %v, not of bob alone", totals)
			}

			bob.crash()
			killed := time.Now()
			ada.becomes("here.total", 0)
			if late := time.Since(killed); late < grace/2 || late > grace+2*interval+500*time.Millisecond {
				t.Errorf("bob left %v after his tab was killed", late)
			} else {
				t.Logf("bob left %v after his tab was killed", late.Round(10*time.Millisecond))
			}
		})
	}
}
