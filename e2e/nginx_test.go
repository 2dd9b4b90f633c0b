package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// snippet reads lines for nginx that people are told to copy.
func snippet(t *testing.T, file string) string {
	t.Helper()
	lines, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(lines)
}

// behindNginx starts an nginx before a world, with these lines, and returns its
// origin.
func behindNginx(t *testing.T, w *world, lines string) (origin string) {
	t.Helper()
	return "http://" + startNginx(t, w.origin, lines)
}

// startNginx starts an nginx before an origin, with these lines, and returns its
// address.
func startNginx(t *testing.T, origin, lines string) (address string) {
	t.Helper()
	need(t, nginxPath() != "", "nginx", "apt-get install nginx")
	address = freeAddress(t)
	dir := t.TempDir()
	config := fmt.Sprintf(nginxConfig, dir, address, strings.ReplaceAll(lines, "http://127.0.0.1:8080", origin), origin)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "error.log")
	startProxy(t, address, log, nginxPath(), "-p", dir, "-c", file, "-e", log)
	return address
}

// startProxy starts a program that listens on an address, until the test ends.
// What it says is shown if the test fails, with what it wrote to log.
func startProxy(t *testing.T, address, log, path string, args ...string) {
	t.Helper()
	proxy := exec.Command(path, args...)
	var said bytes.Buffer
	proxy.Stdout, proxy.Stderr = &said, &said
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proxy.Process.Signal(syscall.SIGTERM)
		_ = proxy.Wait()
		if text, _ := os.ReadFile(log); t.Failed() {
			t.Logf("%s: %s%s", path, &said, text)
		}
	})
	awaitPort(t, address)
}

// nginxConfig is Debian's default, but for where files lie and for being one
// process that a test can end. The page comes from the same origin.
const nginxConfig = `
daemon off;
master_process off;
pid %[1]s/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    gzip on;
    server {
        listen %[2]s;
%[3]s
        location / {
            proxy_pass %[4]s;
        }
    }
}
`

// freeAddress returns an address to listen on that nobody else gets from here.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+(os.Getpid()+int(ports.Add(1)))%10_000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// ports are handed out one after the other, from below those that the kernel gives
// to connections, so that nobody takes one before the program that it is for.
var ports atomic.Int64

func awaitPort(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// prompt publishes 20 events, spaced, each of which has to be in the page's list,
// and most of them at once, asked from here: a proxy that keeps a stream back
// delays them all, a busy machine some.
func prompt(t *testing.T, w *world, p *page, list string) {
	t.Helper()
	var took []time.Duration
	for i := range 20 {
		before := time.Now()
		at := w.publish("a", fmt.Sprintf(`{"n":%d}`, i))
		p.until(`%s.some((e) => e.position === %q || e.id === %[2]q)`, list, at.String())
		took = append(took, time.Since(before))
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	t.Logf("it took %v, at most %v", median, worst)
	if median > 200*time.Millisecond {
		t.Errorf("it took %v, at most %v", median, worst)
	}
}

// Behind an nginx that knows nothing of streams, plain clients get their events
// at once, and a page of nginx's origin is not taken for a foreign one.
func TestNginxPlainClients(t *testing.T) {
	w := start(t, server.Options{})
	p := open(t, "page", behindNginx(t, w, snippet(t, "nginx-plain.conf")))
	p.call(nil, "hear", "all", "/realtime/sse?channel=a")
	p.until("seen.all.opens === 1")
	prompt(t, w, p, "seen.all")

	var got reply
	p.call(&got, "ask", "/realtime/publish?channel=a", map[string]any{"method": "POST", "body": "mine"})
	if got.Status != 200 {
		t.Errorf("publish: %+v", got)
	}
	p.until(`seen.all.at(-1).data === "mine"`)
	p.call(&got, "ask", "/realtime/poll?channel=a&after=last=1")
	if got.Status != 200 || !strings.Contains(got.Body, `"data":"mine"`) {
		t.Errorf("poll: %+v", got)
	}
}

// With the lines for WebSocket it passes, too.
func TestNginxPlainWebSocket(t *testing.T) {
	w := start(t, server.Options{})
	origin := behindNginx(t, w, snippet(t, "nginx-websocket.conf"))
	p := open(t, "page", origin)
	p.call(nil, "hearSocket", "all", strings.Replace(origin, "http", "ws", 1)+"/realtime/ws?channel=a")
	p.until("seen.all.length === 1")
	prompt(t, w, p, "seen.all")
}

// settle has the page's client connect with its normal timing, and waits until
// it is on a transport and has shown that events come at once and a publish
// goes out.
func settle(t *testing.T, lines, transport string, options map[string]any) {
	t.Helper()
	w := start(t, server.Options{})
	p := open(t, "page", behindNginx(t, w, lines))
	options["timing"] = map[string]any{}
	p.connect("/realtime", options)
	p.follow("a", w.head("a"))
	p.until(`carrier() === %q`, transport)
	prompt(t, w, p, "seen.all")
	p.mustPublish("a")
	p.until(`carrier() === %q`, transport)
}

// What the client makes of an nginx without the lines for WebSocket: SSE.
func TestNginxClientSettlesOnSSE(t *testing.T) {
	t.Parallel() // it mostly waits
	settle(t, snippet(t, "nginx-plain.conf"), "sse", map[string]any{})
}

func TestNginxClientPolls(t *testing.T) {
	t.Parallel() // it mostly waits
	settle(t, snippet(t, "nginx-plain.conf"), "poll", map[string]any{"transports": []string{"poll"}})
}

// An nginx that keeps streams back whatever the server says: a stream opens, and
// nothing comes. The client must not believe it.
func TestNginxClientSeesThroughBuffering(t *testing.T) {
	t.Parallel() // it mostly waits
	lines := strings.Replace(snippet(t, "nginx-plain.conf"), "}", "    proxy_ignore_headers X-Accel-Buffering;\n}", 1)
	settle(t, lines, "poll", map[string]any{})
}

func TestNginxClientSettlesOnWebSocket(t *testing.T) {
	t.Parallel() // it mostly waits
	settle(t, snippet(t, "nginx-websocket.conf"), "websocket", map[string]any{})
}

// An nginx that rewrites Host makes a page look foreign, unless the browser says
// itself where it is from; to a site without TLS that isn't local it does not.
// There the Host line is needed.
func TestNginxHostMattersWithoutTLS(t *testing.T) {
	w := start(t, server.Options{})
	for file, want := range map[string]int{"nginx-plain.conf": 403, "nginx-websocket.conf": 200} {
		origin := strings.Replace(behindNginx(t, w, snippet(t, file)), "127.0.0.1", "app.test", 1)
		p := open(t, file, origin)
		var got reply
		p.call(&got, "ask", "/realtime/publish?channel=a", map[string]any{"method": "POST", "body": "mine"})
		if got.Status != want {
			t.Errorf("%s: %+v, want %d", file, got, want)
		}
	}
}
