package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
	"github.com/throughline/throughline/internal/wireclient"
)

// switchUnderTraffic goes to and fro between the clause's form and another, or
// from line to line of the same.
func (c *serverCheck) switchUnderTraffic(to form) {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(120, 0, c.site)
	f := c.follower(begin)
	for n := range 12 {
		way := []form{c.form, to}[n%2]
		if err := f.reach(way, c.site, f.more(1+n, t)); err != nil {
			c.fatalf("line %d, over %s, ended: %v; %s", n+1, way.name, err, f.place())
		}
	}
	if err := f.reach(to, c.site, f.all(t)); err != nil {
		c.fatalf("the last line, over %s, ended: %v; %s", to.name, err, f.place())
	}
	f.gotAll(t)
}

func (c *serverCheck) oldLineLeftOpen() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(100, 0, c.site)
	f := c.follower(begin)
	f.leaves = true
	for n := range 9 {
		way := c.form
		if n%2 == 1 {
			way = c.aForm(sessionForms[n%3], sessionForms[(n+1)%3], c.form)
		}
		if err := f.reach(way, c.site, f.more(7, t)); err != nil {
			c.fatalf("line %d, over %s, ended: %v; %s", n+1, way.name, err, f.place())
		}
	}
	if err := f.reach(c.form, c.site, f.all(t)); err != nil {
		c.fatalf("the last line ended: %v; %s", err, f.place())
	}
	f.gotAll(t)
}

// always is a follower's way over the clause's form.
func (c *serverCheck) always(int) (form, *site) { return c.form, c.site }

// everyOther is a rule's Match: the first request of each two.
func everyOther() func(*http.Request) bool {
	var n atomic.Int64
	return func(*http.Request) bool { return n.Add(1)%2 == 1 }
}

// pollOnce asks once.
func (c *serverCheck) pollOnce(after string) (*wireclient.Answer, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.patience())
	defer cancel()
	if c.form.needs == PlainPoll {
		return wireclient.PlainPoll(ctx, c.http, c.base+"/poll"+wireclient.Query(after, busyRoom))
	}
	return wireclient.SessionPoll(ctx, c.http, c.base+"/poll", wireclient.HelloFor(after, busyRoom))
}

func (c *serverCheck) lostAnswerIsAskedForAgain() {
	begin := c.publish(busyRoom, "0")
	at := c.publishMany(busyRoom, 1, 5)
	for n := range 3 {
		c.proxy.Add(faultproxy.Rule{Path: "/poll", Times: 1, Fault: faultproxy.DropAnswer{}})
		c.http.CloseIdleConnections() // over one that was used before, the library asks again by itself
		if a, err := c.pollOnce(begin); err == nil {
			c.fatalf("an answer came that was dropped on the way: %+v", a)
		}
		a, err := c.pollOnce(begin)
		if err != nil {
			c.fatalf("it was asked again from the same position, and not answered: %v", err)
		}
		got := []string{}
		for _, it := range a.Items {
			got = append(got, fmt.Sprint(string(it.Data), "@", it.Position))
		}
		want := []string{}
		for i, p := range at {
			want = append(want, fmt.Sprint(i+1, "@", p))
		}
		c.expect(fmt.Sprintf("what was asked for again, time %d", n+1), strings.Join(got, " "), strings.Join(want, " "))
		c.expect("the position to go on from", a.Positions[busyRoom], at[4])
	}
}

func (c *serverCheck) answersAreLost() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(80, 0, c.site)
	c.proxy.Add(faultproxy.Rule{Path: "/poll", Match: everyOther(), Times: 40, Fault: faultproxy.DropAnswer{}})
	f := c.follower(begin)
	f.follow(f.all(t), c.always)
	f.gotAll(t)
}

func (c *serverCheck) silentLineIsLeft() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(60, 100, c.site)
	for n := range 5 {
		c.proxy.Add(faultproxy.Rule{Path: "/" + c.form.carrier, Times: 1, Fault: faultproxy.CutAfter{Bytes: int64(700 * (n + 1)), How: faultproxy.HalfOpen}})
	}
	f := c.follower(begin)
	f.follow(f.all(t), c.always)
	f.gotAll(t)
}

func (c *serverCheck) cutAnywhere() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(60, 50, c.site)
	for n := range 30 {
		how := faultproxy.Reset
		if n%3 == 2 {
			how = faultproxy.Orderly
		}
		c.proxy.Add(faultproxy.Rule{Path: "/" + c.form.carrier, Times: 1, Fault: faultproxy.CutAfter{Bytes: int64(60 + 71*n), How: how}})
	}
	f := c.follower(begin)
	f.follow(f.all(t), c.always)
	f.gotAll(t)
}

func (c *serverCheck) refusedOnTheWay() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(60, 50, c.site)
	for n := range 15 {
		c.proxy.Add(faultproxy.Rule{Path: "/" + c.form.carrier, Times: 1, Fault: faultproxy.Answer{Status: 502 + n%2, Body: "<h1>Bad Gateway</h1>"}})
		c.proxy.Add(faultproxy.Rule{Path: "/" + c.form.carrier, Times: 1, Fault: faultproxy.CutAfter{Bytes: int64(500 + 211*n)}})
	}
	f := c.follower(begin)
	f.follow(f.all(t), c.always)
	f.gotAll(t)
}

func (c *serverCheck) upgradeThatDies() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(60, 0, c.site)
	for _, how := range []faultproxy.Ending{faultproxy.Reset, faultproxy.Orderly, faultproxy.HalfOpen} {
		c.proxy.Add(faultproxy.Rule{Times: 1, Fault: faultproxy.KillAfterUpgrade{How: how}})
		c.proxy.Add(faultproxy.Rule{Times: 1, Fault: faultproxy.KillAfterUpgrade{After: 50 * time.Millisecond, How: how}})
	}
	other := plainPoll
	if c.form.needs == SessionWS {
		other = sessionSSE
	}
	other = c.aForm(other, plainSSE, sessionPoll, c.form)
	f := c.follower(begin)
	for n := range 6 {
		if err := f.read(c.form, c.site, f.all(t)); err == nil {
			break // all had come before it died
		}
		if err := f.reach(other, c.site, f.more(3, t)); err != nil {
			c.fatalf("after %d WebSockets that died, %s ended: %v; %s", n+1, other.name, err, f.place())
		}
	}
	f.follow(f.all(t), func(int) (form, *site) { return other, c.site })
	f.gotAll(t)
}

func (c *serverCheck) streamsThatAreHeldBack() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(60, 0, c.site)
	c.proxy.Add(faultproxy.Rule{Fault: faultproxy.BufferResponse{}})
	poll := plainPoll
	if c.form.needs == SessionSSE {
		poll = sessionPoll
	}
	poll = c.aForm(poll, sessionPoll, plainPoll)
	f := c.follower(begin)
	if err := f.read(c.form, c.site, f.more(1, t)); err == nil {
		c.fatalf("something of a stream came that was held back on the way: %s", f.place())
	}
	f.follow(f.all(t), func(int) (form, *site) { return poll, c.site })
	f.gotAll(t)
}

func (c *serverCheck) throughHTTP10() {
	c.proxy.Add(faultproxy.Rule{Fault: faultproxy.HTTP10{}})
	r := c.read("room", "")
	r.opening()
	for n := 1; n <= 5; n++ {
		r.event(c.publish("room", fmt.Sprint(n)), fmt.Sprint(n))
	}
}

func (c *serverCheck) pollsThatAreDoubled() {
	begin := c.publish(busyRoom, "0")
	t := c.traffic(60, 0, c.site)
	for n := range 20 {
		c.proxy.Add(faultproxy.Rule{Path: "/poll", Times: 1, Fault: faultproxy.Duplicate{Apart: time.Duration(n%3) * time.Millisecond, Second: n%2 == 1}})
	}
	f := c.follower(begin)
	f.follow(f.all(t), c.always)
	f.gotAll(t)
}

func (c *serverCheck) copyMadeOnTheWay() {
	want := []string{}
	for n := 1; n <= 6; n++ {
		c.proxy.Add(faultproxy.Rule{Path: "/up", Times: 1, Fault: faultproxy.Duplicate{Apart: time.Duration(n%3) * 5 * time.Millisecond, Second: n%2 == 0}})
		got := outcomesOf(c.up(c.site, "", batchOf(aProducer, batchFrame(n, "room"))))
		if ok, dup := fmt.Sprintf("%d:ok", n), fmt.Sprintf("%d:dup", n); got != ok && got != dup {
			c.errorf("a publish that was doubled on the way was answered %q, neither %q nor %q", got, ok, dup)
		}
		want = append(want, fmt.Sprint(n))
		time.Sleep(20 * time.Millisecond) // the copy may come later
	}
	c.holds("room", want...)
}

func (c *serverCheck) lostAnswerOfAPublish() {
	for n := range 12 {
		rule := faultproxy.Rule{Path: "/up", Times: 1}
		switch n % 3 {
		case 0:
			rule.Fault = faultproxy.DropAnswer{}
		case 1:
			rule.Fault = faultproxy.CutRequest{Bytes: int64(20 * n)}
		case 2:
			rule.Fault = faultproxy.CutAfter{Bytes: int64(15 * n)}
		}
		c.proxy.Add(rule)
	}
	want := []string{}
	for n := 1; n <= 4; n++ {
		frame := batchFrame(n, "room")
		for attempt := 0; ; attempt++ {
			ctx, cancel := context.WithTimeout(c.ctx, c.patience())
			up := wireclient.Up{Publish: &wireclient.Publish{Producer: aProducer, Frames: []wireclient.PublishFrame{
				{Seq: uint64(n), Channel: "room", Messages: []wireclient.Message{wireclient.Say(fmt.Sprint(n))}, Repeat: attempt > 0},
			}}}
			it, err := wireclient.Post(ctx, c.http, c.base, "", up)
			cancel()
			if err == nil {
				if got := outcomesOf(it); got != fmt.Sprintf("%d:ok", n) && got != fmt.Sprintf("%d:dup", n) {
					c.errorf("%s, sent %d times, was answered %q", frame, attempt+1, got)
				}
				break
			}
			if attempt == 20 {
				c.fatalf("%s was sent %d times and never answered: %v", frame, attempt+1, err)
			}
		}
		want = append(want, fmt.Sprint(n))
	}
	c.holds("room", want...)
}

func (c *serverCheck) keyedCopyMadeOnTheWay() {
	want := []string{}
	for n := 1; n <= 4; n++ {
		c.proxy.Add(faultproxy.Rule{Path: "/publish", Times: 1, Fault: faultproxy.Duplicate{Apart: time.Duration(n%3) * 5 * time.Millisecond, Second: n%2 == 0}})
		a := c.ask(c.http, http.MethodPost, "/publish?channel=room", fmt.Sprint(n), "Idempotency-Key", fmt.Sprint("a key of this message ", n))
		if a.status != http.StatusOK {
			c.errorf("a publish that was doubled on the way was answered %d with %.200q", a.status, a.text)
		}
		want = append(want, fmt.Sprint(n))
		time.Sleep(20 * time.Millisecond) // the copy may come later
	}
	c.holds("room", want...)
}
