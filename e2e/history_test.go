package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/throughline/throughline/server"
)

// A page reads what a channel holds, by the module that is loaded for it, and by
// the plain script; and what can't change it asks for once, as the browser keeps
// it. What it is sent is compressed.
func TestHistoryInAPage(t *testing.T) {
	w := start(t, server.Options{})
	for n := range 250 {
		w.publish("room", fmt.Sprint(n))
	}
	var mu sync.Mutex // held while a page is served: who has been answered may be ahead of the handler's end
	var asked, packed int
	counts := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return asked, packed
	}
	counting := newGate(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/history") {
			w.srv.ServeHTTP(rw, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		w.srv.ServeHTTP(rw, r)
		asked++
		if rw.Header().Get("Content-Encoding") == "gzip" {
			packed++
		}
	}))
	p := open(t, "ada", listen(t, counting))
	const read = `(async (client, options) => {
		const got = [];
		for await (const { data } of client.channel("room").history(options)) got.push(data);
		return got;
	})`
	var got []int
	p.eval(&got, `import("/realtime/client.js").then(({ connect }) => `+read+`(connect("/realtime"), {}))`)
	if a, z := counts(); len(got) != 250 || got[0] != 0 || got[249] != 249 || a != 3 || z != 3 {
		t.Fatalf("%d events, %d of %d answers compressed", len(got), z, a)
	}
	var twice [2][]int
	p.eval(&twice, `import("/realtime/client.js").then(async ({ connect }) => {
		const client = connect("/realtime");
		const [last] = await Array.fromAsync(client.channel("room").history({ backwards: true, limit: 1 }));
		const read = `+read+`;
		const options = { until: last.position, backwards: true, limit: 50 };
		return [await read(client, options), await read(client, options)];
	})`)
	if a, _ := counts(); len(twice[1]) != 50 || twice[1][49] != 200 || fmt.Sprint(twice[0]) != fmt.Sprint(twice[1]) || a != 3+1+1 {
		t.Errorf("%d and %d events, and %d requests, not 5: the browser has the page", len(twice[0]), len(twice[1]), a)
	}
	p.eval(&got, `new Promise((done) => {
		const script = document.createElement("script");
		script.src = "/realtime/client.global.js";
		script.onload = () => done(`+read+`(Throughline.connect("/realtime"), { limit: 3 }));
		document.head.append(script);
	})`)
	if fmt.Sprint(got) != "[0 1 2]" {
		t.Errorf("by the plain script: %v", got)
	}
}
