package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// openCluster starts the nodes and opens the page, and waits until it is served.
func openCluster(t *testing.T, args ...string) *page {
	t.Helper()
	_, err := exec.LookPath("redis-server")
	need(t, !errors.Is(err, exec.ErrNotFound), "redis-server", "apt-get install redis-server")
	p := open(t, "cluster", startExample(t, "cluster", args...).url)
	p.eval(nil, `void Object.assign(globalThis, {
		states: [],
		text: (id) => document.getElementById(id).textContent,
		number: (id) => Number(text(id).replaceAll(",", "")),
		nodes: () => [...document.querySelectorAll(".node")],
		node: (name) => nodes().find((node) => node.dataset.node === name),
		press: (id) => document.getElementById(id).click(),
	})`)
	p.becomes(`text("node").startsWith("node ") && number("received") > 3 && nodes().length`, 3)
	return p
}

// goesOn waits until the page has got so many numbers more.
func goesOn(p *page) {
	p.Helper()
	var from int
	p.eval(&from, `number("received")`)
	p.becomes(fmt.Sprintf(`number("received") > %d`, from+5), true)
}

// TestNodesAreKilledUnderAPage: the page's node is killed from the page, which goes on
// at another one, over each carrier, and misses nothing; also while Redis is away.
func TestNodesAreKilledUnderAPage(t *testing.T) {
	t.Parallel() // it mostly waits
	p := openCluster(t)
	for _, carrier := range []string{"websocket", "sse"} {
		p.eval(nil, fmt.Sprintf(`void document.querySelector('[value="%s"]').click()`, carrier))
		p.becomes(`text("carrier")`, map[string]string{"websocket": "over WebSocket", "sse": "over SSE"}[carrier])
		p.becomes(`text("node").startsWith("node ")`, true)
		p.eval(nil, `void (globalThis.before = text("node"), press("kill-mine"))`)
		p.becomes(`text("node").startsWith("node ") && text("node") !== before && node(before).dataset.state`, "down")
		goesOn(p)
		p.eval(nil, `void node(before).querySelector("button").click()`)
		p.becomes(`node(before).dataset.state`, "up")
	}
	p.eval(nil, `void document.querySelector('[value="poll"]').click()`)
	p.becomes(`text("carrier")`, "over Long-poll")
	p.eval(nil, `void nodes()[1].querySelector("button").click()`)
	p.becomes(`nodes()[1].dataset.state`, "down")
	goesOn(p)
	p.eval(nil, `void press("cut")`)
	p.becomes(`text("cut").startsWith("Redis is cut")`, true)
	p.becomes(`text("cut")`, "Cut Redis for 5 s")
	goesOn(p)
	p.becomes(`["missing", "repeated", "gaps"].map(text).join()`, "0,0,0")
}

// TestNodesAreKilledByTheScript: one is killed again and again, and the page fits the
// screen. CLUSTER_PICTURES is a folder to leave pictures in.
func TestNodesAreKilledByTheScript(t *testing.T) {
	t.Parallel() // it mostly waits
	p := openCluster(t, "-kill", "1s")
	p.becomes(`nodes().reduce((sum, node) => sum + Number(/killed\s(\d+)/.exec(node.textContent)?.[1] ?? 0), 0) >= 5`, true)
	p.becomes(`text("every")`, "Stop killing one every 1 s")
	goesOn(p)
	p.becomes(`["missing", "repeated", "gaps"].map(text).join()`, "0,0,0")
	for _, width := range []int{375, 1280} {
		p.resize(width, 860)
		var wide int
		if p.eval(&wide, "document.documentElement.scrollWidth"); wide > width {
			t.Errorf("%d px wide, on a screen of %d", wide, width)
		}
		folder := os.Getenv("CLUSTER_PICTURES")
		for _, scheme := range []string{"light", "dark"} {
			if folder == "" {
				break
			}
			p.cdp("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
			p.becomes(`text("node").startsWith("node ")`, true)
			p.picture(filepath.Join(folder, fmt.Sprintf("cluster-%d-%s.png", width, scheme)))
		}
	}
	p.eval(nil, `void press("every")`)
	p.becomes(`text("every") === "Kill one every 3 s" && nodes().every((node) => node.dataset.state === "up")`, true)
}
