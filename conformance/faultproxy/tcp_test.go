package faultproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// overTCP puts a proxy before a handler, and checks that it leaves no goroutine.
func overTCP(t *testing.T, o Options, h http.Handler) (p *Proxy, address string) {
	t.Helper()
	server := httptest.NewServer(h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Listener = l
	o.Dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	p = New(o)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		p.Close()
		noneLeft(t)
		server.Close()
	})
	return p, l.Addr().String()
}

// noneLeft checks that no goroutine runs what isn't of the tests. One that has
// said that it is done may need a moment.
func noneLeft(t *testing.T) {
	t.Helper()
	var left string
	for range 1000 {
		left = ""
		buf := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			for _, owner := range []string{"faultproxy.(*Proxy)", "faultproxy.(*conn)", "faultproxy.(*side)", "faultproxy.(*exchange)", "faultproxy.(*flow)"} {
				if strings.Contains(stack, owner) && !strings.Contains(stack, "noneLeft") {
					left = stack
				}
			}
		}
		if left == "" {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("is left after Close:\n%s", left)
}

// site streams at /stream until the client leaves, echoes at /echo after an
// upgrade, and elsewhere answers with the body.
func site(gone chan<- error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "tick %d\n", i)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		gone <- r.Context().Err()
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			gone <- err
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte(switching))
		_, err = io.Copy(c, rw)
		_, _ = c.Write([]byte("bye"))
		gone <- err
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	return mux
}

func tcpClient(t *testing.T, address, request string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// tcpUpgraded returns what is upgraded, and has read the answer to that.
func tcpUpgraded(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c := tcpClient(t, address, upgrade)
	got := make([]byte, len(switching))
	if _, err := io.ReadFull(c, got); string(got) != switching {
		t.Fatalf("%q, %v", got, err)
	}
	return c
}

func TestTCPPasses(t *testing.T) {
	gone := make(chan error, 1)
	_, address := overTCP(t, Options{}, site(gone))
	big := strings.Repeat("0123456789", 100_000)
	for range 3 { // over one connection
		r, err := http.Post("http://"+address+"/", "text/plain", io.MultiReader(strings.NewReader(big))) // in chunks
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if string(got) != big || err != nil {
			t.Fatalf("%d bytes of %d came, %v", len(got), len(big), err)
		}
	}
	r, err := http.Get("http://" + address + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("tick %d", i) {
			t.Errorf("%q came, %v", lines.Text(), lines.Err())
		}
	}
	r.Body.Close() // the server learns of it
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestTCPHalves: after an upgrade each direction ends for itself.
func TestTCPHalves(t *testing.T) {
	gone := make(chan error, 1)
	_, address := overTCP(t, Options{}, site(gone))
	c := tcpUpgraded(t, address)
	_, _ = c.Write([]byte("ping"))
	_ = c.CloseWrite()
	got, err := io.ReadAll(c)
	if string(got) != "pingbye" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
}

func TestTCPOneHalfMustFollow(t *testing.T) {
	stuck := make(chan struct{})
	p, address := overTCP(t, Options{Timeout: 20 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		defer c.Close()
		_, _ = c.Write([]byte(switching))
		<-stuck
	}))
	defer close(stuck)
	c := tcpUpgraded(t, address)
	_ = c.CloseWrite()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it ended with %v", err)
	}
	p.Close()
	if s := fmt.Sprint(p.Log()); !strings.Contains(s, "the other end did not") {
		t.Error(s)
	}
}

func TestTCPEndings(t *testing.T) {
	for how, want := range map[Ending]error{Reset: syscall.ECONNRESET, Orderly: nil} {
		t.Run(how.String(), func(t *testing.T) {
			gone := make(chan error, 1)
			p, address := overTCP(t, Options{}, site(gone))
			p.Add(Rule{Fault: CutAfter{Bytes: int64(len(switching)) + 2, How: how}})
			c := tcpClient(t, address, upgrade+"ping")
			if _, err := io.ReadAll(c); !errors.Is(err, want) {
				t.Errorf("the client got %v", err)
			}
			if err := <-gone; !errors.Is(err, want) {
				t.Errorf("the server got %v", err)
			}
		})
	}
	t.Run("HalfOpen", func(t *testing.T) {
		gone := make(chan error, 1)
		p, address := overTCP(t, Options{}, site(gone))
		p.Add(Rule{Fault: KillAfterUpgrade{How: HalfOpen}})
		c := tcpUpgraded(t, address)
		_, _ = c.Write([]byte("ping"))
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		var timeout net.Error
		if n, err := c.Read(make([]byte, 10)); n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%d bytes, %v", n, err)
		}
		select {
		case err := <-gone:
			t.Errorf("the server got %v", err)
		default:
		}
		p.Close()
		if err := <-gone; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server got %v", err)
		}
	})
}

func TestTCPDropAnswer(t *testing.T) {
	var asked atomic.Int32
	p, address := overTCP(t, Options{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	p.Add(Rule{Method: "POST", Times: 1, Fault: DropAnswer{}})
	for i, want := range []error{syscall.ECONNRESET, nil} {
		r, err := http.Post("http://"+address+"/", "text/plain", strings.NewReader("x"))
		if err == nil {
			r.Body.Close()
		}
		if !errors.Is(err, want) || int(asked.Load()) != i+1 {
			t.Errorf("%v; %d requests", err, asked.Load())
		}
	}
}

// TestTCPLastWords: an answer arrives whatever the client is still sending.
func TestTCPLastWords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := New(Options{Listener: l, Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("refused") }})
	defer p.Close()
	c := tcpClient(t, l.Addr().String(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000))
	got, err := io.ReadAll(c)
	if !strings.HasPrefix(string(got), "HTTP/1.1 502 ") || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCutNowWhileAllGoesOn is for the race detector.
func TestCutNowWhileAllGoesOn(t *testing.T) {
	p, address := overTCP(t, Options{}, site(make(chan error, 1000)))
	remove := p.Add(Rule{Skip: 1, Fault: Throttle{Down: 1000}})
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 20 {
				r, err := http.Post("http://"+address+"/", "text/plain", strings.NewReader("x"))
				if err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					r.Body.Close()
				}
			}
		}()
	}
	for over := 0; over < 4; {
		select {
		case <-done:
			over++
		default:
			p.CutNow(func(r *http.Request) bool { return r.Method == "POST" }, Ending(over%2))
			p.CutNow(nil, Reset)
			_ = p.Log()
		}
	}
	remove()
}
