package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
)

func TestAnswersPassUnchanged(t *testing.T) {
	for name, c := range map[string]struct {
		request, answer string
		keeps           bool
	}{
		"length":     {get, answer, true},
		"no body":    {get, "HTTP/1.1 204 No Content\r\nX-odd:  spaced \r\n\r\n", true},
		"HEAD":       {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true},
		"304 chunks": {get, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", true},
		"304":        {get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", true},
		"chunks":     {get, stream + "3;a=b\r\nabc\r\n0A\r\n0123\r\n6789\r\n0\r\nTrailer: x\r\n\r\n", true},
		"interim":    {get, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer, true},
		"post":       {post, answer, true},
		"chunked up": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", answer, true},
		"to the end": {get, endless + "abc", false},
		"last":       {get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", false},
		"1.0":        {"GET / HTTP/1.0\r\n\r\n", answer, false},
		"bare lines": {"GET / HTTP/1.1\nHost: x\n\n", "HTTP/1.1 200 OK\nContent-Length: 1\n\nx", true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				client, server := w.open(c.request)
				server.wants("0s " + short.Replace(c.request))
				w.until(time.Second)
				server.send(c.answer)
				if !c.keeps {
					if strings.HasPrefix(c.answer, endless) {
						server.Close()
					}
					client.wants("1s " + short.Replace(c.answer) + " EOF")
					return
				}
				client.wants("1s " + short.Replace(c.answer))
				client.forget()
				server.forget()
				client.send(get) // over the same connection
				server.wants("1s <get>")
				server.send(answer)
				client.wants("1s <answer>")
			})
		})
	}
}

func TestStreamsPassAsTheyCome(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		client, server := w.open(get)
		server.send(stream)
		for i, piece := range []string{"2\r", "\nab\r\n1", "\r\nc", "\r\n", "0\r\n\r\n"} {
			w.until(time.Duration(i+1) * time.Second)
			server.send(piece)
		}
		client.wants("0s <stream>", "1s 2\r", "2s \nab↵1", "3s ↵c", "4s ↵", "5s 0↵↵")
	})
}

func TestBytesPassAfterAnUpgrade(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		client, server := w.open(upgrade)
		client.send("early") // waits until the server has switched
		server.wants("0s <upgrade>")
		w.until(time.Second)
		server.send(switching + "hi")
		w.until(2 * time.Second)
		client.send("ping")
		server.send("pong")
		server.wants("0s <upgrade>", "1s early", "2s ping")
		client.Close()
		server.wants("0s <upgrade>", "1s early", "2s ping EOF")
		w.logs("the client left")
	})
}

// TestTheAnswerMayBeOnItsWay: who leaves when the server has switched protocols has
// used the upgrade, and is not taken for one who waits no longer.
func TestTheAnswerMayBeOnItsWay(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Delay{Down: 2 * time.Second}})
		client, server := w.upgraded()
		w.until(time.Second)
		client.Close()
		w.until(time.Minute)
		server.wants("0s <upgrade>", "2s  reset")
	})
}

// TestWhoLeavesIsMissed: the end of one connection is that of the other, and of
// the same kind.
func TestWhoLeavesIsMissed(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(client, server *end)
		other func(client, server *end)
	}{
		"client closes":  {func(c, _ *end) { c.Close() }, func(_, s *end) { s.wants("0s <get>", "1s  EOF") }},
		"client resets":  {func(c, _ *end) { c.Reset() }, func(_, s *end) { s.wants("0s <get>", "1s  reset") }},
		"server closes":  {func(_, s *end) { s.Close() }, func(c, _ *end) { c.wants("0s <stream>", "1s  EOF") }},
		"server resets":  {func(_, s *end) { s.Reset() }, func(c, _ *end) { c.wants("0s <stream>", "1s  reset") }},
		"server garbles": {func(_, s *end) { s.send("x\r\n") }, func(c, s *end) { s.wants("0s <get>", "1s  reset") }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				client, server := w.open(get)
				server.send(stream)
				w.until(time.Second)
				c.leave(client, server)
				c.other(client, server)
			})
		})
	}
}

func TestWhoLeavesAmidAHeadIsMissed(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		client := w.client("GET")
		client.Close()
		synctest.Wait()
		w.logs("the client left amid a head")
		client, server := w.open(get)
		server.send("HTTP")
		server.Close()
		client.wants("0s  EOF")
	})
}

// TestIdleEndsAreMissed: also between two requests.
func TestIdleEndsAreMissed(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(server *end)
		want  string
	}{
		"closes": {func(s *end) { s.Close() }, "1s  EOF"},
		"speaks": {func(s *end) { s.send("HTTP/1.1 408 Late\r\n\r\n") }, "1s  reset"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				client, server := w.open(get)
				server.send(answer)
				w.until(time.Second)
				c.leave(server)
				client.wants("0s <answer>", c.want)
			})
		})
	}
}

// TestMalformedEndsTheConnection, and not the proxy.
func TestMalformedEndsTheConnection(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		for _, bad := range []string{
			"\r\n\r\n", "hello\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "GET / HTTP/1.1\r\n" + strings.Repeat("x", maxHead),
		} {
			w.client(bad).wants("0s  reset")
		}
		for _, bad := range []string{
			"hello\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", switching, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		} {
			client, server := w.open(get)
			server.send(bad)
			client.wants("0s  reset")
			server.wants("0s <get> reset")
		}
		for _, bad := range []string{"x\r\n", "1\r\nab\r\n", "\r\n", "-1\r\n", "1;" + strings.Repeat("x", maxLine)} {
			client, server := w.open(get)
			server.send(stream)
			client.wants("0s <stream>")
			server.send(bad)
			server.wants("0s <get> reset")
		}
		client, server := w.open("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
		client.wants("0s  reset")
		_ = server
		client, server = w.open(get)
		server.send(answer)
		client.wants("0s <answer>")
	})
}

// TestWaitsEnd: nobody can keep the proxy waiting.
func TestWaitsEnd(t *testing.T) {
	inWorld(t, Options{Timeout: 5 * time.Second}, func(w *world) {
		idle := w.client("")
		half := w.client("GET / HT")
		half.until(5 * time.Second)
		half.wants("5s  reset")
		idle.wants()

		client, server := w.open(get)
		server.send("HTTP/1.1 200")
		client.until(10 * time.Second)
		client.wants("10s  reset")

		client, server = w.open("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhal")
		server.send(answer)
		client.until(15 * time.Second)
		client.wants("10s <answer>", "15s  reset")

		client, server = w.open(get)
		release := client.HoldReads()
		server.send(endless)
		big := strings.Repeat("x", 1<<16)
		server.send(big)
		server.send(big) // more than the client's window takes
		client.until(20 * time.Second)
		server.wants("15s <get>", "20s  reset")
		release()

		client, server = w.open(get)
		release = client.HoldReads()
		server.send(endless)
		server.send(big)
		server.send(big)
		w.takes(0, func() { w.proxy.CutNow(nil, Reset) }) // frees a write
		release()
	})
}

func (e *end) until(d time.Duration) { e.w.until(d) }

func TestADialThatFailsIsAnswered(t *testing.T) {
	inWorld(t, Options{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("refused") }}, func(w *world) {
		w.client(get).wants("0s HTTP/1.1 502 Bad Gateway↵Connection: close↵Content-Length: 0↵↵ EOF")
		w.logs("dial: refused")
	})
	stuck := func(ctx context.Context) (net.Conn, error) {
		<-ctx.Done()
		time.Sleep(time.Second)
		return nil, ctx.Err()
	}
	inWorld(t, Options{Dial: stuck, Timeout: time.Second}, func(w *world) {
		client := w.client(get)
		w.until(2 * time.Second)
		client.wants("2s HTTP/1.1 502 Bad Gateway↵Connection: close↵Content-Length: 0↵↵ EOF")
		w.takes(time.Second, func() { w.client(get); synctest.Wait(); w.proxy.CutNow(nil, Reset) })
		w.takes(time.Second, func() { w.client(get); synctest.Wait(); w.proxy.Close() })
		late, end := memnet.Pipe()
		w.proxy.serve(end) // was accepted before
		if _, err := late.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

// takes checks how long it takes.
func (w *world) takes(want time.Duration, f func()) {
	w.t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d != want {
		w.t.Errorf("it took %v, not %v", d, want)
	}
}

// TestAnswersMayComeEarly: before the request is over.
func TestAnswersMayComeEarly(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		client, server := w.open(post[:len(post)-2])
		server.send(answer)
		client.wants("0s <answer>")
		client.send("lo")
		server.wants("0s <post>")
		client.forget()
		client.send(get)
		server.wants("0s <post><get>")
		server.send(answer)
		client.wants("0s <answer>")
	})
}

func TestRulesChoose(t *testing.T) {
	request := func(method, path, header string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n"
	}
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Header: "x-pass"})
		w.add(Rule{Path: "/a", Method: "GET", Skip: 1, Times: 2, Fault: Answer{Status: 501}})
		remove := w.proxy.Add(Rule{Path: "/a", Fault: Answer{Status: 502}})
		w.add(Rule{Fault: Answer{Status: 503}, Match: func(r *http.Request) bool { return r.URL.Query().Has("q") }})
		w.add(Rule{Fault: KillAfterUpgrade{}}) // is only for upgrades
		ask := func(method, path, header, want string) {
			t.Helper()
			client := w.client(request(method, path, header))
			synctest.Wait()
			got := "passed"
			if client.seen != nil {
				got = client.seen[0].text[len("HTTP/1.1 "):][:3]
			}
			if got != want {
				t.Errorf("%s %s: %s, not %s", method, path, got, want)
			}
			client.Close()
		}
		go func() { // whatever passes finds a server
			for {
				if _, err := w.back.Accept(); err != nil {
					return
				}
			}
		}()
		defer w.back.Close()
		ask("GET", "/ab", "", "passed")
		ask("GET", "/x/a", "", "502") // is skipped
		ask("GET", "/x/a", "X-Pass: 1\r\n", "passed")
		ask("POST", "/a", "", "502")
		ask("GET", "/a?q=1", "", "501")
		ask("GET", "/x/a", "", "501")
		ask("GET", "/x/a", "", "502") // is used up
		remove()
		remove()
		ask("GET", "/x/a", "", "passed")
		ask("GET", "/x/a?q", "", "503")
	})
}
