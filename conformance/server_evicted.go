package conformance

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

var evicts = []Feature{Eviction}

// stalledSetup is for readers that take nothing, and evictedFor how long they are
// kept out the first time.
var stalledSetup = ServerSetup{WriteTimeout: 2 * time.Second, PeerTimeout: 10 * time.Minute, EvictFor: evictedFor}

const evictedFor = 20 * time.Second

// stallFor is how long they take nothing: the write that fails may begin later, as
// the log may not answer for a moment.
const stallFor = 7 * time.Second

// What PROTOCOL.md promises about clients that are too slow (P8.4), and about
// carriers that break (P8.5).
var evictedClauses = []serverClause{
	{
		id: "P8.4_KeptOutByEachCarrier", group: "slow readers", over: streamForms, needs: evicts,
		text:  "MUST: who took nothing is refused by whatever carrier with slow_consumer and what is left of the delay, in the words of the carrier.",
		setup: stalledSetup,
		run:   (*serverCheck).keptOutByEachCarrier,
	},
	{
		id: "P8.4_GoesOnAfterTheDelay", group: "slow readers", over: streamForms, needs: evicts,
		text:  "MUST: who was evicted is let in when the delay that it was told is over, goes on from where it was, and misses nothing.",
		setup: stalledSetup,
		run:   (*serverCheck).goesOnAfterTheDelay,
	},
	{
		id: "P8.4_DelayGrows", group: "slow readers", over: streamForms, needs: evicts,
		text:  "MUST: who is evicted again as soon as it is back is kept out for longer each time.",
		setup: stalledSetup,
		run:   (*serverCheck).delayGrows,
	},
	{
		id: "P8.4_OthersComeIn", group: "slow readers", over: streamForms, needs: []Feature{Eviction, Identities},
		text: "MUST: while a client is kept out, another subject is let in by any carrier, and one that keeps up reads on.",
		setup: ServerSetup{
			WriteTimeout: stalledSetup.WriteTimeout, PeerTimeout: stalledSetup.PeerTimeout, EvictFor: evictedFor, Subjects: true,
		},
		run: (*serverCheck).othersComeIn,
	},
	{
		id: "P8.4_CatchingUpIsNotSlow", group: "slow readers", over: streamForms, needs: evicts,
		text:  "MUST: who was away and catches up, slowly, and from far behind while events go on, is not evicted.",
		setup: ServerSetup{WriteTimeout: 30 * time.Second, MaxLag: 10, EvictFor: evictedFor},
		run:   (*serverCheck).catchingUpIsNotSlow,
	},
	{
		id: "P8.5_BrokenCarrierIsRefused", group: "slow readers", over: []form{sessionWS}, needs: []Feature{BrokenCarrier},
		text:  "MUST: a session whose WebSockets were cut off often enough, soon after they had proved themselves, is refused on the next with broken_carrier and a delay, and not before.",
		setup: brokenSetup,
		run:   (*serverCheck).brokenCarrierIsRefused,
	},
	{
		id: "P8.5_InsteadIsOpen", group: "slow readers", over: []form{sessionWS}, needs: []Feature{BrokenCarrier},
		text:  "MUST: instead names other carriers, each of which is open to the session at once, and brings what it has missed.",
		setup: brokenSetup,
		run:   (*serverCheck).insteadIsOpen,
	},
	{
		id: "P8.5_MayBeTriedAgain", group: "slow readers", over: []form{sessionWS}, needs: []Feature{BrokenCarrier},
		text:  "MUST: when the delay of broken_carrier is over, the session is let in on that carrier.",
		setup: brokenSetup,
		run:   (*serverCheck).mayBeTriedAgain,
	},
	{
		id: "P8.5_OthersKeepTheirs", group: "slow readers", over: []form{sessionWS}, needs: []Feature{BrokenCarrier},
		text:  "MUST: while WebSockets are refused to a session, they are not to another one, nor in plain use, however often those are cut off.",
		setup: brokenSetup,
		run:   (*serverCheck).othersKeepTheirs,
	},
	{
		id: "P8.5_ClosedIsNotBroken", group: "slow readers", over: []form{sessionWS}, needs: []Feature{BrokenCarrier},
		text:  "MUST: a session that ends its WebSockets with close frames is not refused, however often it does.",
		setup: brokenSetup,
		run:   (*serverCheck).closedIsNotBroken,
	},
	{
		id: "P8.5_UnprovedIsNotCounted", group: "slow readers", over: []form{sessionWS}, needs: []Feature{BrokenCarrier},
		text:  "MUST: WebSockets that were cut off before they had proved themselves, or long after, don't count.",
		setup: brokenSetup,
		run:   (*serverCheck).unprovedIsNotCounted,
	},
}

// Of what is published at once to readers that take nothing: far more than a
// network holds.
const (
	floodEvents = 60
	floodSize   = 16 << 10
)

// flood publishes at once, after what was published before.
func (t *traffic) flood(c *serverCheck) {
	for range floodEvents {
		t.count++
		m := saidAtLength(t.count, floodSize)
		t.at = append(t.at, c.publishMessage(busyRoom, m))
	}
}

func flooding() *traffic {
	t := &traffic{done: make(chan struct{})}
	close(t.done)
	return t
}

// stall has a follower begin a line, take what there is and then nothing of a
// flood, until it must have been evicted. It finds what its network had taken.
func (c *serverCheck) stall(f *follower, t *traffic, s *site) {
	stream := f.held(s, func() bool { return t.count == 0 || f.all(t)() })
	last := time.AfterFunc(time.Hour, stream.Close)
	defer last.Stop()
	t.flood(c)
	time.Sleep(stallFor)
	c.settle()
	before := len(f.got)
	for err := error(nil); err == nil; {
		var it wireclient.Item
		if it, err = stream.Next(); err == nil {
			err = f.take(it)
		}
	}
	stream.Close()
	if len(f.got)-before == floodEvents {
		c.fatalf("a reader that took nothing for %v found all of %d kB: it was not evicted", stallFor, floodEvents*floodSize>>10)
	}
}

// held begins a line, and reads to its opening and until there is enough. It comes
// back, a few times, if the server says that it can't read its log now.
func (f *follower) held(s *site, enough func() bool) (stream wireclient.Stream) {
	c := f.check
	var err error
	for range 5 {
		if stream, err = f.opened(c.ctx, c.form, s); err == nil {
			c.atEnd(stream.Close)
			if err = f.caughtUp(stream, enough); err == nil {
				return stream
			}
		}
		if !f.mayReturn(c.form, err) {
			break
		}
		time.Sleep(2 * time.Second)
	}
	c.fatalf("%s ended before it had caught up: %v; %s", c.form.name, err, f.place())
	return nil
}

func (f *follower) caughtUp(stream wireclient.Stream, enough func() bool) error {
	for opened := false; !opened || !enough(); {
		it, err := stream.Next()
		if err == nil {
			opened = opened || it.Opening && it.Position != "" || it.Event
			err = f.take(it)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keptOut has a follower come back too early, by a form, and returns what is left
// of its delay.
func (c *serverCheck) keptOut(f *follower, way form) time.Duration {
	f.line++
	h := wireclient.HelloFor(f.at, busyRoom)
	h.Token, h.Line = f.token, f.line
	query := wireclient.Query(f.at, busyRoom)
	what := fmt.Sprintf("an evicted client that comes back too early by %s", way.name)
	ms := int64(0)
	switch way.name {
	case plainSSE.name:
		a := c.ask(c.http, "GET", "/sse"+query, "")
		c.told(what, a)
		retry := fields(strings.Split(a.text, "\n"), "retry")
		ms, _ = strconv.ParseInt(retry[len(retry)-1], 10, 64)
	case plainPoll.name:
		ms = c.refusedInWords(what, c.ask(c.http, "GET", "/poll"+query, ""), 503, "slow_consumer", "later").After
	case plainWS.name:
		ms = c.closedFor(what, "slow_consumer", c.socket("/ws"+query).end())
	case sessionWS.name:
		ms = c.closedFor(what, "slow_consumer", c.lineSocket(h).end())
	default:
		ms = c.refusedInWords(what, c.ask(c.http, "POST", "/"+way.carrier, string(h.Frame())), 503, "slow_consumer", "later").After
	}
	return time.Duration(ms) * time.Millisecond
}

// closedFor checks that a WebSocket was closed with a code for a while, and
// returns how long, in milliseconds.
func (c *serverCheck) closedFor(what, code string, e socketEnd) (after int64) {
	said, ms, _ := strings.Cut(e.reason, " ")
	after, err := strconv.ParseInt(ms, 10, 64)
	if e.code != 4001 || said != code || err != nil || after <= 0 {
		c.fatalf("%s: the WebSocket ended with %q, not with 4001, %s and a delay; last came %.200q", what, e, code, e.last)
	}
	return after
}

// waysBack are the forms of a client that was evicted over the clause's.
func (c *serverCheck) waysBack() (ways []form) {
	all := sessionForms
	if strings.HasPrefix(c.form.name, "plain") {
		all = plainForms
	}
	for _, way := range all {
		if way.lacking(c.server) == "" {
			ways = append(ways, way)
		}
	}
	return ways
}

func (c *serverCheck) keptOutByEachCarrier() {
	f, t := c.follower(c.publish(busyRoom, "0")), flooding()
	c.stall(f, t, c.near())
	const pause = 3 * time.Second
	first := c.keptOut(f, c.form)
	if first <= 0 || first > evictedFor {
		c.errorf("it is kept out for %v, where the delay is %v", first, evictedFor)
	}
	for n := range 3 {
		for _, way := range c.waysBack() {
			want := first - time.Duration(n)*pause
			if left := c.keptOut(f, way); left > want || left < want-100*time.Millisecond {
				c.errorf("%v after it was told to wait for %v, %s says %v", time.Duration(n)*pause, first, way.name, left)
			}
		}
		time.Sleep(pause)
	}
}

func (c *serverCheck) goesOnAfterTheDelay() {
	f, t := c.follower(c.publish(busyRoom, "0")), flooding()
	c.stall(f, t, c.near())
	time.Sleep(c.keptOut(f, c.form))
	if err := f.reach(c.form, c.site, f.all(t)); err != nil {
		c.fatalf("when the delay was over: %v; %s", err, f.place())
	}
	f.gotAll(t)
}

func (c *serverCheck) delayGrows() {
	f, t := c.follower(c.publish(busyRoom, "0")), flooding()
	near := c.near()
	longest := time.Duration(0)
	for n := 1; n <= 3; n++ {
		c.stall(f, t, near)
		out := c.keptOut(f, c.form)
		if out <= longest {
			c.fatalf("evicted for the %d. time, it is kept out for %v, and before for %v", n, out, longest)
		}
		longest = out
		time.Sleep(out)
	}
}

func (c *serverCheck) othersComeIn() {
	begin := c.publish(busyRoom, "0")
	well := *c.site
	well.http = well.as("well")
	reader := c.follower(begin)
	read := make(chan error, 1)
	go func() {
		read <- reader.reach(c.form, &well, func() bool { return len(reader.got) == floodEvents })
	}()
	c.settle()
	near := c.near()
	near.http = near.as("slow")
	f, t := c.follower(begin), flooding()
	c.stall(f, t, near)
	if err := <-read; err != nil {
		c.fatalf("beside one that is evicted, a reader that keeps up ended: %v; %s", err, reader.place())
	}
	reader.gotAll(t)
	for _, way := range allForms {
		if way.lacking(c.server) != "" {
			continue
		}
		s := *c.site
		s.http = s.as("new")
		other := c.follower(t.at[len(t.at)-3])
		if err := other.reach(way, &s, func() bool { return len(other.got) == 2 }); err != nil {
			c.errorf("while \"slow\" is kept out, %s of \"new\" ended: %v", way.name, err)
		}
	}
}

func (c *serverCheck) catchingUpIsNotSlow() {
	begin := c.publish(busyRoom, "0")
	t := flooding()
	for range 3 {
		t.flood(c)
	}
	f := c.follower(begin)
	stream := f.held(c.near(), func() bool { return true })
	for n := 0; !f.all(t)(); n++ {
		if told, over := c.slowly(stream, f); over {
			c.fatalf("it came closer all the time, and was ended with %q; %s of %d", told, f.place(), t.count)
		}
		if n > 10*3*floodEvents {
			c.fatalf("it took %d things, and has not caught up; %s of %d", n, f.place(), t.count)
		}
		if n%10 == 9 {
			t.count++
			t.at = append(t.at, c.publishMessage(busyRoom, said(t.count)))
		}
		time.Sleep(200 * time.Millisecond)
	}
	f.gotAll(t)
}
