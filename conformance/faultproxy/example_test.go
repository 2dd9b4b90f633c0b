package faultproxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"

	"github.com/throughline/throughline/conformance/faultproxy"
)

// A client that polls has to live with an answer that gets lost, and with a proxy
// that has no server for a moment.
func Example() {
	polls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		polls++
		fmt.Fprintf(w, "poll %d", polls)
	}))
	defer server.Close()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	p := faultproxy.New(faultproxy.Options{
		Listener: l,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
		},
	})
	defer p.Close()
	p.Add(faultproxy.Rule{Path: "/poll", Times: 1, Fault: faultproxy.DropAnswer{}})
	p.Add(faultproxy.Rule{Path: "/poll", Times: 1, Fault: faultproxy.Answer{Status: 503}})

	for range 3 {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Post("http://"+l.Addr().String()+"/poll", "", nil)
		if err != nil {
			fmt.Println("broken")
			continue
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		fmt.Printf("%d %q\n", r.StatusCode, body)
	}
	for _, e := range p.Log()[:3] {
		fmt.Println(e.Request, "-", e.What)
	}
	// Output:
	// broken
	// 503 ""
	// 200 "poll 2"
	// POST /poll - DropAnswer{}
	// POST /poll - answered 200, 0 bytes passed on
	// POST /poll - ended: the answer was dropped
}
