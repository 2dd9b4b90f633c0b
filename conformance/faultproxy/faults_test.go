package faultproxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ticks sends a stream of three chunks, a second apart, as far as it is taken.
func (e *end) ticks() {
	for i, text := range []string{stream, "1\r\n0\r\n", "1\r\n1\r\n", "1\r\n2\r\n"} {
		e.w.until(time.Duration(i) * time.Second)
		_, _ = e.Write([]byte(text))
	}
}

func TestCutAfter(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Path: "/poll", Times: 1, Fault: CutAfter{Bytes: int64(len(stream)) + 9}})
		client, server := w.open(get)
		server.ticks()
		client.wants("0s <stream>", "1s 1↵0↵", "2s 1↵ reset")
		server.wants("0s <get>", "2s  reset")
		w.logs("GET /poll?a=1: CutAfter{Bytes:56 How:Reset}")
		w.logs("ended: cut after 56 bytes of the answer (Reset)")
	})
	for name, c := range map[string]struct {
		fault          CutAfter
		client, server []string
	}{
		"nothing": {CutAfter{}, []string{"0s  reset"}, []string{"0s <get> reset"}},
		"amid the head": {
			CutAfter{Bytes: 8, How: Orderly},
			[]string{"0s HTTP/1.1 EOF"},
			[]string{"0s <get> EOF"},
		},
		"the last byte": {
			CutAfter{Bytes: int64(len(answer))}, []string{"0s <answer> reset"}, []string{"0s <get> reset"},
		},
		"longer":  {CutAfter{Bytes: int64(len(answer)) + 1}, []string{"0s <answer>"}, []string{"0s <get>"}},
		"silence": {CutAfter{Bytes: 8, How: HalfOpen}, []string{"0s HTTP/1.1"}, []string{"0s <get>"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.add(Rule{Fault: c.fault})
				client, server := w.open(get)
				server.send(answer)
				client.wants(c.client...)
				server.wants(c.server...)
			})
		})
	}
}

// TestHalfOpenTellsNobody, in neither direction, until it is no longer held.
func TestHalfOpenTellsNobody(t *testing.T) {
	inWorld(t, Options{Hold: time.Hour}, func(w *world) {
		w.add(Rule{Fault: CutAfter{Bytes: int64(len(switching)) + 2, How: HalfOpen}})
		client, server := w.upgraded()
		server.send("abc")
		client.wants("0s <switching>ab")
		client.send("hello")
		server.wants("0s <upgrade>")
		w.until(time.Minute)
		client.Close()
		server.wants("0s <upgrade>")
		w.until(time.Hour)
		server.wants("0s <upgrade>", "1h0m0s  reset")
	})
}

func TestCutRequest(t *testing.T) {
	for name, c := range map[string]struct {
		fault          CutRequest
		client, server []string
	}{
		"nothing":     {CutRequest{}, []string{"0s  reset"}, []string{"0s  reset"}},
		"the head":    {CutRequest{Bytes: 4}, []string{"0s  reset"}, []string{"0s POST reset"}},
		"amid a body": {CutRequest{Bytes: int64(len(post)) - 1, How: Orderly}, []string{"0s  EOF"}, []string{"0s POST /up HTTP/1.1↵Host: x↵Content-Length: 5↵↵hell EOF"}},
		"silence":     {CutRequest{Bytes: 4, How: HalfOpen}, nil, []string{"0s POST"}},
		"longer":      {CutRequest{Bytes: int64(len(post)) + 1}, nil, []string{"0s <post>"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.add(Rule{Method: "POST", Fault: c.fault})
				client, server := w.open(post)
				client.wants(c.client...)
				server.wants(c.server...)
			})
		})
	}
}

func TestDropAnswer(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Times: 1, Fault: DropAnswer{}})
		client, server := w.open(get)
		w.until(time.Second)
		server.send(answer[:len(answer)-1])
		w.until(2 * time.Second)
		client.wants()
		server.send(answer[len(answer)-1:])
		client.wants("2s  reset")
		server.wants("0s <get>", "2s  EOF") // it was taken
		client, server = w.open(get)
		server.send(answer)
		client.wants("2s <answer>")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: DropAnswer{}})
		client, server := w.open(upgrade)
		server.send(switching)
		client.wants("0s  reset")
		server.wants("0s <upgrade> EOF")
	})
}

func TestStall(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Path: "/poll", Fault: Stall{After: int64(len(stream)) + 1, For: 90 * time.Second}})
		client, server := w.open(get)
		server.ticks()
		w.until(100 * time.Second)
		server.send("0\r\n\r\n")
		client.wants("0s <stream>", "1s 1", "1m31s ↵0↵1↵1↵1↵2↵", "1m40s 0↵↵")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Stall{After: int64(len(stream)), For: 90 * time.Second}})
		client, server := w.open(get)
		server.ticks()
		w.until(100 * time.Second)
		client.wants("0s <stream>", "1m30s 1↵0↵1↵1↵1↵2↵")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Stall{For: 30 * time.Second}})
		client, server := w.open(get)
		w.until(time.Second)
		server.send(answer)
		w.until(20 * time.Second)
		client.wants()
		client.Close() // is seen while the answer is held
		server.wants("0s <get>", "20s  EOF")
	})
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Stall{For: 30 * time.Second}})
		client, server := w.open(get)
		server.send(endless + "x")
		server.Close() // comes after what is held
		w.until(time.Minute)
		client.wants("30s <endless>x EOF")
	})
}

func TestThrottle(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Path: "/echo", Fault: Throttle{Down: 100, Up: 20}})
		client, server := w.upgraded()
		w.until(5 * time.Second)
		server.send(strings.Repeat("x", 1000))
		client.forget()
		w.until(14*time.Second + 999*time.Millisecond)
		if n := client.bytes(); n != 995 {
			t.Errorf("%d bytes after just under ten seconds at 100 bytes per second", n)
		}
		client.send("abcd")
		w.until(15 * time.Second)
		if n := client.bytes(); n != 1000 {
			t.Errorf("%d bytes after ten seconds", n)
		}
		server.forget()
		w.until(16 * time.Second)
		server.wants("15.049s a", "15.099s b", "15.149s c", "15.199s d")
	})
	inWorld(t, Options{}, func(w *world) { // what is too fast stays with the sender
		w.add(Rule{Fault: Throttle{Down: 1000}})
		_, server := w.open(get)
		server.send(endless)
		if err := server.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := server.Write(make([]byte, 3<<20))
		if err == nil || n < maxQueued || n > maxQueued+200<<10 {
			t.Errorf("%d bytes were taken, %v", n, err)
		}
	})
}

func (e *end) bytes() (n int) {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.seen {
		n += len(a.text)
	}
	return n
}

func TestDelay(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Fault: Delay{Up: time.Second, Down: 3 * time.Second}})
		client, server := w.upgraded()
		w.until(10 * time.Second)
		server.send("a")
		client.send("b")
		w.until(11 * time.Second)
		server.send("c") // is on its way at the same time
		w.until(20 * time.Second)
		server.wants("1s <upgrade>", "11s b")
		client.wants("3s <switching>", "13s a", "14s c")
		client.Close()
		server.wants("1s <upgrade>", "11s b")
		w.until(21 * time.Second)
		server.wants("1s <upgrade>", "11s b", "21s  EOF")
	})
	inWorld(t, Options{}, func(w *world) { // a client that leaves is missed later, too
		w.add(Rule{Fault: Delay{Up: time.Second}})
		client, server := w.open(get)
		server.send(stream)
		client.wants("0s <stream>")
		w.until(5 * time.Second)
		client.Close()
		w.until(7 * time.Second)
		server.wants("1s <get>", "6s  EOF")
	})
}

func TestSplit(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Path: "/poll", Fault: Split{Bytes: 20, Gap: time.Second}})
		client, server := w.open(get)
		server.send(answer)
		w.until(time.Minute)
		client.wants("0s HTTP/1.1 200 OK↵Con", "1s tent-Length: 4↵↵", "2s news")
	})
}

func TestMerge(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Path: "/poll", Fault: Merge{For: 1500 * time.Millisecond}})
		client, server := w.open(get)
		server.ticks()
		w.until(time.Minute)
		client.wants("1.5s <stream>1↵0↵", "3.5s 1↵1↵1↵2↵")
	})
}

func TestIdleKill(t *testing.T) {
	for how, want := range map[Ending]string{Reset: "12s  reset", Orderly: "12s  EOF", HalfOpen: ""} {
		t.Run(how.String(), func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.add(Rule{Fault: IdleKill{After: 5 * time.Second, How: how}})
				client, server := w.upgraded()
				w.until(4 * time.Second)
				server.send("a")
				w.until(7 * time.Second)
				client.send("b")
				w.until(time.Minute)
				seenClient, seenServer := []string{"0s <switching>", "4s a"}, []string{"0s <upgrade>", "7s b"}
				if want != "" {
					seenClient, seenServer = append(seenClient, want), append(seenServer, want)
				}
				client.wants(seenClient...)
				server.wants(seenServer...)
			})
		})
	}
	inWorld(t, Options{}, func(w *world) { // it frees writes to ends that don't read
		w.add(Rule{Fault: IdleKill{After: 5 * time.Second}})
		big := strings.Repeat("x", 1<<16)
		client, server := w.upgraded()
		defer client.HoldReads()()
		server.send(big + big)
		other, hears := w.upgraded()
		defer hears.HoldReads()()
		other.send(big + big)
		w.until(time.Hour)
		server.wants("0s <upgrade>", "5s  reset")
		other.wants("0s <switching>", "5s  reset")
	})
	inWorld(t, Options{}, func(w *world) { // it is for the request, not for what follows
		w.add(Rule{Times: 1, Fault: IdleKill{After: 5 * time.Second}})
		client, server := w.open(get)
		server.send(answer)
		w.until(time.Minute)
		client.send(get)
		w.until(time.Hour)
		server.wants("0s <get>", "1m0s <get>")
	})
}

func TestKillAfterUpgrade(t *testing.T) {
	for name, c := range map[string]struct {
		fault          KillAfterUpgrade
		client, server []string
	}{
		"killed": {
			KillAfterUpgrade{After: 200 * time.Millisecond},
			[]string{"0s <switching>", "200ms  reset"},
			[]string{"0s <upgrade>ping", "200ms  reset"},
		},
		"at once": {KillAfterUpgrade{How: Orderly}, []string{"0s <switching> EOF"}, []string{"0s <upgrade> EOF"}},
		"mute":    {KillAfterUpgrade{How: HalfOpen}, []string{"0s <switching>"}, []string{"0s <upgrade>"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Options{}, func(w *world) {
				w.add(Rule{Fault: c.fault})
				client, server := w.open(upgrade)
				_, _ = client.Write([]byte("ping"))
				server.send(switching)
				w.until(time.Hour)
				client.wants(c.client...)
				server.wants(c.server...)
			})
		})
	}
}

func TestRefuseUpgrade(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Times: 1, Fault: RefuseUpgrade{Status: http.StatusForbidden}})
		w.add(Rule{Times: 1, Fault: RefuseUpgrade{}})
		client, server := w.open(get)
		server.send(answer)
		client.wants("0s <answer>")
		client.forget()
		client.send(upgrade)
		client.wants("0s HTTP/1.1 403 Forbidden↵Content-Length: 0↵↵")
		server.wants("0s <get>")
		client.send(upgrade)
		server.wants("0s <get>GET /echo HTTP/1.1↵Host: x↵↵")
		server.send(switching) // is a fault of the server
		server.wants("0s <get>GET /echo HTTP/1.1↵Host: x↵↵ reset")
	})
}

func TestAnswer(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.add(Rule{Method: "POST", Times: 1, Fault: Answer{RetryAfter: 3 * time.Second}})
		w.add(Rule{Method: "GET", Fault: Answer{Status: 502, Body: "<p>"}})
		w.add(Rule{Method: "HEAD", Fault: Answer{Status: 502, Body: "<p>"}})
		page := "HTTP/1.1 502 Bad Gateway↵%sContent-Length: 3↵Content-Type: text/html↵↵"
		client := w.client(post[:len(post)-1])
		client.wants("0s HTTP/1.1 503 Service Unavailable↵Content-Length: 0↵Retry-After: 3↵↵")
		client.forget()
		client.send("o" + get) // the connection serves on
		client.wants("0s " + fmt.Sprintf(page, "") + "<p>")
		client.forget()
		client.send("HEAD /poll HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		client.wants("0s " + fmt.Sprintf(page, "Connection: close↵") + " EOF")
	})
}

func TestCutNow(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		poll, pollServer := w.open(get)
		echo, echoServer := w.upgraded()
		idle := w.client("")
		synctest.Wait()
		isPoll := func(r *http.Request) bool { return r.URL.Path == "/poll" }
		if n := w.proxy.CutNow(isPoll, HalfOpen); n != 1 {
			t.Errorf("%d were cut", n)
		}
		pollServer.send(answer)
		poll.wants()
		echoServer.send("a")
		echo.wants("0s <switching>a")
		w.until(time.Second)
		if n := w.proxy.CutNow(nil, Reset); n != 3 {
			t.Errorf("%d were cut", n)
		}
		poll.wants("1s  reset")
		echo.wants("0s <switching>a", "1s  reset")
		idle.wants("1s  reset")
		if n := w.proxy.CutNow(nil, Reset); n != 0 {
			t.Errorf("%d were cut twice", n)
		}
	})
}

// TestEveryFaultEnds: each, with all kinds of traffic and clients that leave or not,
// leaves nothing behind; the bubble would not end.
func TestEveryFaultEnds(t *testing.T) {
	faults := []Fault{
		CutAfter{Bytes: 60},
		CutAfter{How: HalfOpen},
		CutRequest{Bytes: 9, How: HalfOpen},
		DropAnswer{},
		Stall{After: 5, For: time.Hour},
		Throttle{1, 1},
		Delay{time.Hour, time.Hour},
		Split{1, time.Minute},
		Merge{time.Hour},
		IdleKill{time.Hour, HalfOpen},
		KillAfterUpgrade{time.Hour, Reset},
		RefuseUpgrade{},
		Answer{},
		BufferResponse{MaxWait: time.Hour},
		HTTP10{},
		Duplicate{},
		Duplicate{time.Hour, true},
		Duplicate{time.Hour, false},
	}
	for _, fault := range faults {
		for _, request := range []string{get, post, post[:len(post)-1], upgrade} {
			t.Run(describe(fault), func(t *testing.T) {
				inWorld(t, Options{}, func(w *world) {
					w.add(Rule{Fault: fault})
					go func() {
						for {
							c, err := w.back.Accept()
							if err != nil {
								return
							}
							_, _ = c.Write([]byte(map[bool]string{true: switching, false: stream}[request == upgrade] + "1\r\nx\r\n"))
						}
					}()
					defer w.back.Close()
					w.client(request)
					w.client(request).Close()
					w.client(request).Reset()
					w.until(time.Second)
				})
			})
		}
	}
}
