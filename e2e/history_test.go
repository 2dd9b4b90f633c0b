package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
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
	var asked, packed atomic.Int32
	counting := newGate(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.srv.ServeHTTP(rw, r)
		if strings.HasSuffix(r.URL.Path, "/history") {
			asked.Add(1)
			if rw.Header().Get("Content-Encoding") == "gzip" {
				packed.Add(1)
			}
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
	if len(got) != 250 || got[0] != 0 || got[249] != 249 || packed.Load() != 3 {
		t.Fatalf("%d events, %d of %d answers compressed", len(got), packed.Load(), asked.Load())
	}
	var twice [2][]int
	p.eval(&twice, `import("/realtime/client.js").then(async ({ connect }) => {
		const client = connect("/realtime");
		const [last] = await Array.fromAsync(client.channel("room").history({ backwards: true, limit: 1 }));
		const read = `+read+`;
		const options = { until: last.position, backwards: true, limit: 50 };
		return [await read(client, options), await read(client, options)];
	})`)
	if before := int32(3 + 1 + 1); len(twice[1]) != 50 || twice[1][49] != 200 || fmt.Sprint(twice[0]) != fmt.Sprint(twice[1]) || asked.Load() != before {
		t.Errorf("%d and %d events, and %d requests, not %d: the browser has the page", len(twice[0]), len(twice[1]), asked.Load(), before)
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
