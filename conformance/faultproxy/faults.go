package faultproxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Fault is what is done to a request. This package has all there are. Unless it
// says otherwise, a fault is for the whole of the request and its answer, with
// what passes after an upgrade.
type Fault interface{ apply(*exchange) }

// describe returns a fault as it is written.
func describe(f Fault) string {
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T%+v", f, f), "*"), "faultproxy.")
}

// CutAfter ends the connection when that many bytes of the answer have passed,
// counted from the first of its head. An answer that is shorter passes whole.
// So does a phone that leaves its network, a worker of a load balancer that is
// restarted, a server that crashes.
type CutAfter struct {
	Bytes int64 // 0: none passes
	How   Ending
}

func (f CutAfter) apply(x *exchange) {
	x.down.cut = &cut{f.Bytes, both(f.How, fmt.Sprintf("cut after %d bytes of the answer", f.Bytes))}
}

// CutRequest ends the connection when that many bytes of the request have passed,
// counted from the first of its head: the server is left with a piece of it.
// So does a client that dies while it sends.
type CutRequest struct {
	Bytes int64 // 0: none passes
	How   Ending
}

func (f CutRequest) apply(x *exchange) {
	x.up.cut = &cut{f.Bytes, both(f.How, fmt.Sprintf("cut after %d bytes of the request", f.Bytes))}
}

// DropAnswer lets the server answer in full, then resets the client's connection
// without a byte of the answer: the server has every reason to think that it
// arrived. So does any network that breaks at the wrong moment. An upgrade
// counts as answered when the server has switched protocols; a stream is only
// when it ends.
type DropAnswer struct{}

func (DropAnswer) apply(x *exchange) {
	lose := func() {
		x.c.end(verdict{client: Reset, server: Orderly, why: "the answer was dropped"})
	}
	x.down.shaper, x.answered, x.upgraded = dropped{}, lose, lose
}

// Stall lets bytes of the answer pass, then holds the rest for a while, counted
// from when the last of those passed, or the first of all came. So does a radio
// with a bad moment, a virtual machine that is moved, a box under load.
type Stall struct {
	After int64 // bytes, head included
	For   time.Duration
}

func (f Stall) apply(x *exchange) {
	x.down.shaper = &stalled{left: f.After, hold: f.For}
}

// Throttle keeps to bytes per second. So does a bad mobile network. What
// comes faster is left with the sender, but for a megabyte or so.
type Throttle struct {
	Up, Down int // 0: without bound
}

func (f Throttle) apply(x *exchange) {
	if f.Up > 0 {
		x.up.shaper = &throttled{rate: f.Up}
	}
	if f.Down > 0 {
		x.down.shaper = &throttled{rate: f.Down}
	}
}

// Delay makes each way longer, and no narrower. So does distance.
type Delay struct{ Up, Down time.Duration }

func (f Delay) apply(x *exchange) {
	x.up.shaper, x.down.shaper = delayed{f.Up}, delayed{f.Down}
}

// Split passes the answer in pieces of so many bytes at most, head included, with
// a pause between two. So do links with small packets. Over TCP pieces without
// a pause may arrive as one.
type Split struct {
	Bytes int // default 1
	Gap   time.Duration
}

func (f Split) apply(x *exchange) {
	x.down.shaper = &split{size: max(1, f.Bytes), gap: f.Gap}
}

// Merge gathers what of the answer comes within some time of a first byte, and
// passes it as one piece. So do boxes that inspect or compress.
type Merge struct{ For time.Duration }

func (f Merge) apply(x *exchange) {
	x.down.shaper = &merged{span: f.For}
}

// IdleKill ends the connection when no byte has come for a while, from either
// end. So do the read timeout of nginx and the idle timeouts of load balancers
// (a minute is usual, and Orderly), and silently the tables of firewalls and
// of home routers (minutes, and HalfOpen).
type IdleKill struct {
	After time.Duration
	How   Ending
}

func (f IdleKill) apply(x *exchange) {
	x.helpers.Go(func() {
		for {
			wait := f.After - time.Since(time.Unix(0, x.c.last.Load()))
			if wait <= 0 {
				x.c.end(both(f.How, fmt.Sprintf("idle for %v", f.After)))
				return
			}
			if !x.pause(wait) {
				return
			}
		}
	})
}

// KillAfterUpgrade lets an upgrade succeed and then ends it. So do boxes of
// enterprises, which pass the handshake and break what they don't understand,
// or with HalfOpen and 0 swallow all that follows. It is only for requests that ask
// for an upgrade.
type KillAfterUpgrade struct {
	After time.Duration // from the 101 on
	How   Ending
}

func (KillAfterUpgrade) fits(r *http.Request) bool { return asksToUpgrade(r) }

func (f KillAfterUpgrade) apply(x *exchange) {
	x.upgraded = func() {
		x.later(f.After, func() { x.c.end(both(f.How, fmt.Sprintf("killed %v after the upgrade", f.After))) })
	}
}

// RefuseUpgrade answers with a status, or if it is 0 passes the request on
// without what asks for the upgrade. So do proxies that were not told of
// WebSockets, of either kind. It is only for requests that ask for an upgrade.
type RefuseUpgrade struct{ Status int }

func (RefuseUpgrade) fits(r *http.Request) bool { return asksToUpgrade(r) }

func (f RefuseUpgrade) apply(x *exchange) {
	if f.Status != 0 {
		Answer{Status: f.Status}.apply(x)
		return
	}
	x.upgrade = false
	x.head.p = rewriteHead(x.head.p, sameLine, []string{"Upgrade", "Connection"}, nil)
}

func sameLine(line string) string { return line }

// Answer answers in place of the server, which is never asked. So does a proxy
// whose server is away or busy, a limiter of rates, and with a page for people
// as the Body a captive portal.
type Answer struct {
	Status     int           // default 503
	RetryAfter time.Duration // in whole seconds; 0: it isn't said
	Body       string        // is called text/html
}

func (f Answer) apply(x *exchange) { x.answer = f.bytes(x.request.Method, x.last) }

func (f Answer) bytes(method string, last bool) []byte {
	if f.Status == 0 {
		f.Status = http.StatusServiceUnavailable
	}
	h := http.Header{"Content-Length": {strconv.Itoa(len(f.Body))}}
	if f.Body != "" {
		h.Set("Content-Type", "text/html")
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())))
	}
	if last {
		h.Set("Connection", "close")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", f.Status, http.StatusText(f.Status))
	_ = h.Write(&b)
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.WriteString(f.Body)
	}
	return []byte(b.String())
}
