package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKilledChatGoesOn: the chat with a folder for its data is killed (kill -9) in the
// middle of what two pages say, and started again, three times. The pages go on: none
// of them misses a message, or sees one twice, and one that is opened then shows what
// was said before.
func TestKilledChatGoesOn(t *testing.T) {
	t.Parallel() // it mostly waits
	chat := startExample(t, "chat", "-data", t.TempDir())
	pages := []*page{open(t, "ada", chat.url), open(t, "bob", chat.url)}
	for _, p := range pages {
		p.eval(nil, `void Object.assign(globalThis, {
			shown: () => document.querySelectorAll(".messages .message").length,
			number: (id) => Number(document.getElementById(id).textContent),
		})`)
		p.eval(nil, `void document.querySelector("#talk").click()`) // three messages a second
	}
	for range 3 {
		for _, p := range pages {
			p.eval(nil, "void (globalThis.from = shown())")
			p.becomes("shown() >= from + 10", true)
		}
		chat.kill()
		for _, p := range pages {
			p.becomes(`document.querySelector("#state").textContent .startsWith("Online") === false`, true)
		}
		chat.begin()
	}
	for _, p := range pages {
		p.becomes("shown() >= from + 20", true)
		p.eval(nil, `void document.querySelector("#talk").click()`)
	}
	for _, p := range pages {
		p.becomes(`document.querySelectorAll(".outbox > *").length === 0`, true)
		p.becomes(`[number("lost"), number("repeated")]`, []int{0, 0})
	}
	// Who said the last message shows all: when both show the same, that is what was said.
	const end = `[...document.querySelectorAll(".messages .text")].slice(-20).map((p) => p.textContent).join("\n")`
	var said, heard string
	for deadline := time.Now().Add(patience); said == "" || said != heard; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("ada shows\n%s\nand bob\n%s", said, heard)
		}
		pages[0].eval(&said, end)
		pages[1].eval(&heard, end)
	}
	later := open(t, "later", chat.url)
	later.becomes(end, said)
}

// TestOrdersAreMadeAgain: two pages see the same table, whoever changes it, while the
// program is killed (kill -9), and the table that it has made is deleted.
func TestOrdersAreMadeAgain(t *testing.T) {
	t.Parallel() // it mostly waits
	folder := t.TempDir()
	orders := startExample(t, "orders", "-data", folder)
	ada, bob := open(t, "ada", orders.url), open(t, "bob", orders.url)
	const table = `[...document.querySelectorAll("#orders tr")].map((row) => [...row.cells].slice(1, 4).map((cell) => cell.textContent).join(" ")).join(", ")`
	place := func(p *page, item string) {
		p.becomes(`document.querySelector("#placing").hidden`, true)
		p.eval(nil, `void (document.querySelector("[name=item]").value = "`+item+`", document.querySelector("#place button").click())`)
	}
	both := func(want string) {
		t.Helper()
		ada.becomes(table, want)
		bob.becomes(table, want)
	}
	place(ada, "Tea")
	both("Tea 2 placed")
	bob.eval(nil, `void document.querySelector("#orders td:last-child button").click()`)
	both("Tea 2 paid")
	file := filepath.Join(folder, "orders.json")
	for _, lose := range []bool{false, true} {
		for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			if _, err := os.Stat(file); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("the table was not saved: %v", err)
			}
		}
		orders.kill()
		if lose {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		ada.becomes(`document.querySelector("#state").textContent`, "The server is away: trying again…")
		place(ada, "Milk") // said while nobody is there to hear it
		ada.becomes(`document.querySelector("#placing").textContent`, "Milk × 2: being placed…")
		ada.eval(nil, `void document.querySelector("#place button").click()`) // the same order still
		bob.eval(nil, `void document.querySelector("#orders .link").click()`)
		bob.becomes(`/^What happened can't be fetched now/.test(document.querySelector("#one-failed").textContent)`, true)
		bob.eval(nil, `void document.querySelector("#one").close()`)
		orders.begin()
		bob.becomes(table+`.split(", ")[0]`, "Milk 2 placed")
	}
	both("Milk 2 placed, Milk 2 placed, Tea 2 paid")
	past := `[...document.querySelectorAll("#past li")].map((item) => item.textContent.split(" ").pop()).join(", ")`
	ada.becomes(past, "placed, placed, paid, placed")
	ada.eval(nil, `void document.querySelector("#rebuild").click()`)
	ada.becomes(`/Made again of 4 events/.test(document.querySelector("#rebuilt").textContent)`, true)
	both("Milk 2 placed, Milk 2 placed, Tea 2 paid")
	// A row stands on one line where there is room, and its texts do on a phone.
	ada.becomes(`new Set([...document.querySelectorAll("#orders tr:first-child td:last-child button")].map((button) => button.offsetTop)).size`, 1)
	ada.cdp("Emulation.setDeviceMetricsOverride", map[string]any{"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": true})
	ada.becomes(`(([id, item]) => {
		const text = document.createRange();
		const bottom = (node) => (text.selectNodeContents(node), text.getBoundingClientRect().bottom);
		return innerWidth === 375 && Math.abs(bottom(id.firstChild.firstChild) - bottom(item)) <= 2;
	})(document.querySelector("#orders tr").cells)`, true)
	// A page that can't fetch the table says so, and fetches it as soon as it can.
	ada.cdp("Network.enable", nil)
	ada.cdp("Network.setBlockedURLs", map[string]any{"urls": []string{"*/orders"}})
	ada.eval(nil, `void document.querySelector("#rebuild").click()`)
	ada.becomes(`/^The orders can't be fetched/.test(document.querySelector("#trouble").textContent)`, true)
	place(ada, "Jam")
	ada.cdp("Network.setBlockedURLs", map[string]any{"urls": []string{}})
	ada.becomes(`document.querySelector("#trouble").hidden`, true)
	both("Jam 2 placed, Milk 2 placed, Milk 2 placed, Tea 2 paid")
	ada.becomes(past, "placed, placed, placed, paid, placed")
	later := open(t, "later", orders.url) // sees what was before it, too
	later.becomes(past, "placed, placed, placed, paid, placed")
	bob.eval(nil, `void document.querySelector("#orders tr:last-child .link").click()`) // what happened to the tea
	bob.becomes(`[...document.querySelectorAll("#one[open] li")].map((item) => item.textContent.split(": ").pop()).join(", ")`, "placed, paid")
	for _, p := range []*page{ada, bob, later} {
		p.mu.Lock()
		for _, line := range p.said {
			if !strings.Contains(line, "Failed to load resource") && !strings.Contains(line, "WebSocket connection") && !strings.Contains(line, "net::ERR") {
				t.Errorf("the page said: %s", line)
			}
		}
		p.mu.Unlock()
	}
}
