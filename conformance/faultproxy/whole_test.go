package faultproxy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const timedOut = "HTTP/1.1 504 Gateway Timeout↵Connection: close↵Content-Length: 0↵↵ EOF"

func TestBufferResponse(t *testing.T) {
	for name, c := range map[string]struct {
		fault  BufferResponse
		client []string
	}{
		"held":     {BufferResponse{}, []string{"10s <stream>1↵0↵1↵1↵1↵2↵0↵↵"}},
		"in time":  {BufferResponse{MaxWait: 11 * time.Second}, []string{"10s <stream>1↵0↵1↵1↵1↵2↵0↵↵"}},
		"too late": {BufferResponse{MaxWait: 5 * time.Second}, []string{"5s " + timedOut}},
		"fits":     {BufferResponse{MaxBytes: len(stream) + 3*6 + 5}, []string{"10s <stream>1↵0↵1↵1↵1↵2↵0↵↵"}},
		"too long": {BufferResponse{MaxBytes: len(stream) + 6}, []string{"2s " + timedOut}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.add(Rule{Path: "/poll", Fault: c.fault})
				client, server := w.open(get)
				server.ticks()
				w.until(10 * time.Second)
				_, _ = server.Write([]byte("0\r\n\r\n"))
				w.until(time.Hour)
				client.wants(c.client...)
			})
		})
	}
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: BufferResponse{MaxWait: time.Second}})
		client, server := w.upgraded()
		w.until(time.Minute)
		server.send("a")
		client.wants("0s <switching>", "1m0s a")
	})
}

func TestHTTP10(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: HTTP10{}})
		client := w.client("POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n2\r\nab\r\n")
		w.until(time.Second)
		client.send("1\r\nc\r\n0\r\n\r\n")
		server := w.server()
		server.wants("1s POST /up HTTP/1.0↵Host: x↵Connection: close↵Content-Length: 3↵↵abc")
		server.send("HTTP/1.1 200 Fine enough\r\nConnection: keep-alive\r\nX: y\r\nContent-Length: 2\r\n\r\nok")
		client.wants("1s HTTP/1.0 200 Fine enough↵X: y↵Content-Length: 2↵Connection: close↵↵ok EOF")
	})
	inWorld(t, Options{}, func(w *world) { // a stream passes as it comes
		w.add(Rule{Fault: HTTP10{}})
		client, server := w.open(upgrade)
		server.wants("0s GET /echo HTTP/1.0↵Host: x↵Connection: close↵↵")
		server.send("HTTP/1.0 200 OK\r\n\r\na")
		w.until(time.Second)
		server.send("b")
		client.wants("0s HTTP/1.0 200 OK↵Connection: close↵↵a", "1s b")
		server.Close()
		client.wants("0s HTTP/1.0 200 OK↵Connection: close↵↵a", "1s b EOF")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: HTTP10{}})
		client, server := w.open(get)
		server.send(stream)
		client.wants("0s  reset")
		w.logs("in chunks")
		client, server = w.open(upgrade)
		server.send(switching)
		client.wants("0s  reset")
	})
}

func TestDuplicate(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Duplicate{Apart: 2 * time.Second}})
		client, first := w.open(post)
		first.wants("0s <post>")
		w.until(time.Second)
		first.send(answer)
		client.wants("1s <answer>")
		second := w.server()
		second.wants("2s <post>")
		second.send(strings.Replace(answer, "news", "olds", 1))
		second.wants("2s <post> EOF")
		client.wants("1s <answer>")
		w.logs("copy: answered 200, with a body of 4 bytes")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Duplicate{Apart: 2 * time.Second, Second: true}})
		client := w.client(post)
		one, two := w.server(), w.server() // both are dialled, in some order
		w.until(time.Second)
		if one.bytes() == 0 {
			one, two = two, one
		}
		one.wants("0s <post>")
		two.wants()
		one.send(strings.Replace(answer, "news", "olds", 1))
		w.until(3 * time.Second)
		two.wants("2s <post>")
		client.wants()
		two.send(answer)
		client.wants("3s <answer>")
	})
}

// TestCopiesEnd: an answer that nobody gets is not read for ever.
func TestCopiesEnd(t *testing.T) {
	inWorld(t, Options{Timeout: 5 * time.Second}, func(w *world) {
		w.add(Rule{Fault: Duplicate{Apart: time.Second}})
		client, first := w.open(get)
		w.until(time.Second)
		second := w.server()
		second.send(stream)
		first.send(stream)
		w.until(time.Minute)
		second.wants("1s <get>")
		client.Close()
		w.until(2 * time.Minute)
		second.wants("1s <get>", "1m5s  EOF")
	})
}

// TestExpect: where the proxy holds the request, it says that the body may come.
func TestExpect(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Duplicate{Apart: time.Hour}})
		client := w.client("POST /up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		client.wants("0s HTTP/1.1 100 Continue↵↵")
		client.send("hello")
		w.server().wants("0s <post>")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Duplicate{}})
		client := w.client("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
		big := make([]byte, 1<<20)
		for {
			if _, err := client.Write(big); err != nil {
				break
			}
		}
		synctest.Wait()
		w.logs("too long")
	})
}
