package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// openSlow opens the page, and waits until it shows clients that keep up.
func openSlow(t *testing.T, name, url string) *page {
	t.Helper()
	p := open(t, name, url)
	p.eval(nil, `void Object.assign(globalThis, {
		states: [],
		row: (name) => document.querySelector('.client[data-name="' + name + '"]'),
		state: (name) => row(name)?.dataset.state,
		number: (name, what) => Number(row(name).querySelector("." + what).textContent.replaceAll(",", "")),
	})`)
	p.becomes(`["Client 1", "Client 2", "Client 3", "Client 4", "This page"].every((name) => state(name) === "live" && number(name, "last") > 0)`, true)
	return p
}

// TestSlowClientsCanBeWatched: a client that is stalled from the page is evicted
// before one's eyes, waits, comes back and catches up. Nothing is missing, for it
// and for all others; a page that is opened later shows the last minute, too.
func TestSlowClientsCanBeWatched(t *testing.T) {
	t.Parallel() // it mostly waits
	url := startExample(t, "slow").url
	p := openSlow(t, "slow", url)
	p.eval(nil, `void document.querySelector('[name=rate][value="100"]').click()`)
	p.eval(nil, `void document.querySelector("#stall").click()`)
	p.becomes(`state("Client 1")`, "stalled")
	p.becomes(`state("Client 1") === "evicted" && /back in [1-4] s/.test(row("Client 1").innerText)`, true)
	p.becomes(`document.querySelector("#evictions").textContent`, "1")
	p.eval(nil, `void document.querySelector("#read").click()`)
	p.becomes(`/is kept out, and waits|On trial|Caught up/.test(row("Client 1").innerText)`, true)
	p.becomes(`state("Client 1")`, "caught-up")
	p.becomes(`state("Client 1")`, "live")
	p.becomes(`["Client 1", "Client 2", "Client 3", "Client 4", "This page"].every((name) => number(name, "last") > 300 && number(name, "missing") === 0)`, true)
	p.becomes(`document.querySelector("#missing").textContent`, "0")

	later := openSlow(t, "later", url)
	later.becomes(`row("Client 1").querySelectorAll(".strip path.evicted")[0].getAttribute("d").length > 0`, true)
	later.eval(nil, `void document.querySelector("#modem").click()`)
	later.becomes(`state("Modem 5") !== undefined && row("Modem 5").innerText.includes("256 kbit/s")`, true)
	later.eval(nil, `void row("Modem 5").querySelector(".remove").click()`)
	later.becomes(`row("Modem 5") === null`, true)
	p.becomes(`document.querySelector('[name=rate]:checked').value`, "100")
	for _, p := range []*page{p, later} {
		p.mu.Lock()
		for _, line := range p.said {
			t.Errorf("the page said: %s", line)
		}
		p.mu.Unlock()
	}
}

// TestSlowClientsFitTheScreen: the page is no wider than a telephone, whatever is
// going on. SLOW_PICTURES is a folder to leave pictures in.
func TestSlowClientsFitTheScreen(t *testing.T) {
	t.Parallel() // it mostly waits
	p := openSlow(t, "slow", startExample(t, "slow").url)
	p.eval(nil, `void ["#stall", "#modem", "#ws", "#sse"].forEach((id) => document.querySelector(id).click())`)
	p.becomes(`/back in/.test(row("Client 1").innerText) && document.querySelectorAll(".client").length`, 8) // the calls come in any order
	p.eval(nil, `import("./app.js").then(({ inWords }) => void Object.assign(globalThis, { inWords }))`)
	p.resize(1280, 860)
	p.becomes(`(() => { // whatever a row says, it is no taller
		const line = row("Client 2").querySelector(".state span"), high = line.getBoundingClientRect().height;
		const all = ["live", "late", "stalled", "evicted", "trial", "caught-up"].flatMap((state) =>
			[true, false].flatMap((reads) => [0, 9000].map((back) => inWords({ state, reads, back, lag: 9999, toGo: 9999, name: "" })[1])));
		return all.filter((words) => {
			const other = line.cloneNode();
			other.textContent = words;
			line.after(other);
			const taller = other.getBoundingClientRect().height > high + 1;
			other.remove();
			return taller;
		}).join();
	})()`, "")
	p.becomes(`inWords({ state: "trial", reads: true, back: -1, lag: 3348, toGo: 0, name: "" }).join(": ")`, "On trial: still 3,348 behind")
	p.becomes(`row("Client 2").querySelectorAll(".strip .tick").length + row("Client 2").querySelector(".axis").textContent`, "31,00010010")
	for _, width := range []int{375, 1280} {
		p.resize(width, 860)
		var wide int
		if p.eval(&wide, "document.documentElement.scrollWidth"); wide > width {
			t.Errorf("%d px wide, on a screen of %d", wide, width)
		}
		folder := os.Getenv("SLOW_PICTURES")
		for _, scheme := range []string{"light", "dark"} {
			if folder == "" {
				break
			}
			p.cdp("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
			p.picture(filepath.Join(folder, fmt.Sprintf("slow-%d-%s.png", width, scheme)))
		}
	}
}
