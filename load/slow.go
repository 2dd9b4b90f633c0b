//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"
)

// What trial slow holds against what is promised (docs/slow-clients.md).
const (
	// kernelBound is what the kernel holds for one that stalls, at most.
	kernelBound = 148 << 10
	// lineBound is what a connection costs beside what is on its way.
	lineBound = 32 << 10
	// pageCost is how many bytes a byte of Options.LaggardBytes takes at most: what
	// is counted are events, and a page is their list and their encoding.
	pageCost = 2
	// givenBack is how soon after its eviction that is given back.
	givenBack = time.Second
	// leftBound is how much of it may be left then, as a part.
	leftBound = 0.01
)

// slowChannels are as many as make p99 that of hundreds of events in a slice, and
// not the worst moment of one.
const slowChannels = 16

// slowScene is a server with good clients, beside which slow ones come and go.
type slowScene struct {
	*scene
	o     *slowSettings
	slow  fleetPlan
	port  int
	start time.Duration
}

// slowly measures what slow clients do to the others and to the server, judges what
// they get themselves, and measures what those cost that stall.
func (t *trials) slowly(ctx context.Context) error {
	s, err := t.newSlowScene(ctx, t.Slow.Windows, t.Slow.Backlog/10)
	if err != nil {
		return err
	}
	defer s.close()
	parts := []func(context.Context) error{s.memory, s.atIt, s.compare, s.settle}
	if s.o.Run == 0 {
		parts = slices.Delete(parts, 1, 2) // the slices have them at it, too
	}
	for _, do := range parts {
		if err := do(ctx); err != nil {
			return err
		}
	}
	s.close()
	return t.costs(ctx)
}

// newSlowScene makes a server and its clients. Those who stall read so many events of each
// line but their first.
func (t *trials) newSlowScene(ctx context.Context, w windows, readOn int) (s *slowScene, err error) {
	o := &t.Slow
	s = &slowScene{scene: &scene{t: t, name: "slow", times: slicing{o.Slice, o.Settle, o.Settle / 3}}, o: o, start: now()}
	if s.lab, err = newLab(ctx, servePlan{Windows: w, Verbose: t.Verbose}, roleSlow); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, err
	}
	if s.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	tenth := o.Clients / 10
	names := channels(slowChannels)
	s.plan = fleetPlan{Addr: s.addr, Channels: names, Mix: mix(o.Clients - 2*tenth - tenth/2)}
	s.slow = fleetPlan{
		Addr: s.addr, Channels: names, Mix: slowMix(tenth), Network: slowNet,
		Behind: fmt.Sprintf("last=%d", o.Backlog), Delay: o.Windows.EvictionDelay, Away: o.Away, ReadOn: readOn,
	}
	if o.Modems > 0 {
		s.slow.Modems = fmt.Sprintf("last=%d", o.Modems)
	}
	s.rest = func() error { return tell(s.bad, "be", turn{Mood: asleep}) }

	if err = tell(s.server, "publish", publishPlan{Channels: names, PerSecond: o.Pace, Size: besideSize, Backlog: o.Backlog}); err != nil {
		return nil, err
	}
	if _, err = ask[time.Duration](s.fleet, "connect", s.plan); err != nil {
		return nil, err
	}
	return s, tell(s.bad, "gather", s.slow)
}

// slowMix spreads those who are slow over the carriers. Who stalls has a stream: an
// answer to a poll is one page, which the kernel takes.
func slowMix(tenth int) (all []share) {
	streams := []carrier{sessionWS, plainWS, sessionSSE, plainSSE}
	for i, c := range streams {
		all = append(all, share{c, part(tenth, i, len(streams)), stalled})
	}
	for i, c := range allCarriers {
		all = append(all, share{c, part(tenth, i, len(allCarriers)), flapping}, share{c, part(tenth/2, i, len(allCarriers)), modem})
	}
	return all
}

// part is one of several nearly equal parts of n.
func part(n, i, of int) int { return n*(i+1)/of - n*i/of }

// number is how many are slow in a manner.
func (p fleetPlan) number(how manner) (n int) {
	for _, s := range p.Mix {
		if s.Manner == how {
			n += s.Clients
		}
	}
	return n
}

// A holding is what the kernel holds for slow clients, in bytes, by the transport.
type holding struct {
	Bytes   map[string]int64
	Sockets map[string]int // among them those that no process has any more
	Orphans int
}

func (h holding) sum() (bytes int64) {
	for _, n := range h.Bytes {
		bytes += n
	}
	return bytes
}

// held asks the kernel what it holds for those who stall.
func (s *slowScene) held() (holding, error) {
	h := holding{map[string]int64{}, map[string]int{}, 0}
	all, err := socketsOf(s.port)
	for _, one := range all {
		ip := one.peer.To4()
		i := int(ip[1]-slowNet)<<16 + int(ip[2])<<8 + int(ip[3])
		for _, share := range s.slow.Mix {
			if ip[1] < slowNet || share.Manner != stalled {
				break
			}
			if i < share.Clients {
				h.Bytes[share.Carrier.name()] += one.bytes
				h.Sockets[share.Carrier.name()]++
				if !one.owned {
					h.Orphans++
				}
				break
			}
			i -= share.Clients
		}
	}
	return h, err
}

// memory has those stall who do, once, and looks at what is held for them until
// they are evicted, and a second after.
func (s *slowScene) memory(ctx context.Context) error {
	before, err := ask[usage](s.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	if err := tell(s.bad, "be", turn{Mood: once}); err != nil {
		return err
	}
	w, stalling := s.o.Windows, s.slow.number(stalled)
	pause(ctx, wakeOver+w.WriteTimeout/4)
	during, err := ask[usage](s.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	most, atEnd, evicted, err := s.untilEvicted(ctx, stalling)
	if err != nil {
		return err
	}
	pause(ctx, givenBack)
	left, err := s.held()
	if err != nil {
		return err
	}
	after, err := ask[usage](s.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	s.t.gate(s.name, evicted == stalling, "%d of %d that stall were evicted, which takes %v (Options.WriteTimeout) from when a write blocks", evicted, stalling, w.WriteTimeout)
	s.t.gate(s.name, most.sum() > 0 && most.sum() <= int64(stalling)*kernelBound, "the kernel held for them at most %s, %s (at most %d KiB each: %s)",
		mib(most.sum()), each(most), kernelBound>>10, mib(int64(stalling)*kernelBound))
	s.t.gate(s.name, float64(left.sum()) <= leftBound*float64(most.sum()), "%v after the last eviction it holds %s, %d sockets without a process (at the eviction: %s, %d)",
		givenBack, mib(left.sum()), left.Orphans, mib(atEnd.sum()), atEnd.Orphans)
	bound := pageCost*int64(w.LaggardBytes) + int64(stalling)*lineBound
	s.t.gate(s.name, during.Heap-before.Heap <= bound, "what lives in the heap rose by %s (bound: twice %s of Options.LaggardBytes and %d KiB for each that stalls, %s), and by %s when they were gone; RSS %s at most, %s when they were gone",
		mib(during.Heap-before.Heap), mib(int64(w.LaggardBytes)), lineBound>>10, mib(bound), mib(after.Heap-before.Heap), mib(max(during.PeakRSS, after.PeakRSS)), mib(after.RSS))
	return s.rest()
}

// each tells what is held for one client of each transport.
func each(h holding) string {
	one := func(name string) string {
		return fmt.Sprintf("%s %d: %.0f kB each", name, h.Sockets[name], float64(h.Bytes[name])/float64(max(1, h.Sockets[name]))/1e3)
	}
	return one("ws") + ", " + one("sse")
}

// untilEvicted waits until so many were, or should have been.
func (s *slowScene) untilEvicted(ctx context.Context, n int) (most, last holding, evicted int, err error) {
	const connecting = 10 * time.Second
	// Who waits for room for what it is to get begins to stall when others are gone.
	for deadline := now() + 4*s.o.Windows.WriteTimeout + connecting; now() < deadline && ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		if last, err = s.held(); err != nil {
			return most, last, 0, err
		}
		if last.sum() > most.sum() {
			most = last
		}
		said, err := ask[telling](s.server, "told", none{})
		if err != nil {
			return most, last, 0, err
		}
		if evicted = int(said.Metrics["evictions_total"]); evicted >= n {
			break
		}
	}
	return most, last, evicted, nil
}

// atIt has them all at it for a while, so that what grows has time to.
func (s *slowScene) atIt(ctx context.Context) error {
	if err := tell(s.bad, "be", turn{Mood: busyAt}); err != nil {
		return err
	}
	from := now()
	pause(ctx, s.o.Run)
	d, err := s.delays(ctx, span{from, now()})
	if err != nil {
		return err
	}
	u, err := ask[usage](s.server, "measure", cleaning{})
	if err != nil {
		return err
	}
	s.t.say(s.name, "%d good clients, and %d that stall, %d that flap, %d at modem speed, for %v: delay of the good ones p50 %s, p99 %s, most %s ms; RSS at most %s",
		s.plan.clients(), s.slow.number(stalled), s.slow.number(flapping), s.slow.number(modem), s.o.Run, digits(d.P50), digits(d.P99), digits(d.Most), mib(u.PeakRSS))
	return s.rest()
}

// compare measures slices with all of them and without.
func (s *slowScene) compare(ctx context.Context) error {
	s.rouse = func() error { return tell(s.bad, "be", turn{Mood: busyAt}) }
	all, err := s.pairs(ctx, s.o.Pairs)
	if err != nil {
		return err
	}
	p99, cost := summarise(delayRatios(all)), summarise(costRatios(all))
	s.t.gate(s.name, p99.Median <= s.o.Gate, "p99 of the good ones with slow clients to that without, %d pairs: %v (median at most %v; the target is %v)", len(all), p99, s.o.Gate, s.t.Target)
	s.t.say(s.name, "time of the server's process for each delivery to a good one, the same pairs: %v (that of all who flap, and so connect all the time, is in it)", cost)
	return nil
}

// settle has the slow ones read what they missed, and judges all.
func (s *slowScene) settle(ctx context.Context) error {
	did, err := ask[deeds](s.bad, "deeds", none{})
	if err != nil {
		return err
	}
	if err := tell(s.bad, "be", turn{Mood: calm}); err != nil {
		return err
	}
	said, err := ask[telling](s.server, "told", none{})
	if err != nil {
		return err
	}
	ok := did.CutOff > s.slow.number(stalled) && did.Flaps >= s.slow.number(flapping) && did.Met[mannerNames[stalled]+": the server said slow_consumer"] > 0
	s.t.gate(s.name, ok, "the slow ones: %d stalls, %d of them cut off; %d flaps; %d were told to wait, %v at most; they met: %s",
		did.Stalls, did.CutOff, did.Flaps, did.Waits, did.MostWait.Round(time.Millisecond), counts(did.Met))
	if s.o.Modems > 0 {
		n := did.Evicted[mannerNames[modem]]
		s.t.gate(s.name, n == 0, "lines of the %d at modem speed, who begin with %d events, that ended as too slow: %d", s.slow.number(modem), s.o.Modems, n)
	}
	s.t.say(s.name, "the server's log, each of its lines at most ten times a minute: %s", counts(said.Lines))
	if err := s.judgeSlow(did.MostWait); err != nil {
		return err
	}
	v, behind, err := s.judge()
	if err != nil {
		return err
	}
	s.t.gateVerdict(s.name, v, behind)
	at, err := ask[standing](s.fleet, "standing", none{})
	if err != nil {
		return err
	}
	s.t.gate(s.name, len(at.Lost) == 0, "lines of the good ones that ended: %s", counts(at.Lost))
	return nil
}

// judgeSlow waits until those who were slow have all, and has them judged. Who was
// evicted has to wait until its delay is over.
func (s *slowScene) judgeSlow(longest time.Duration) error {
	if err := tell(s.server, "pause", none{}); err != nil {
		return err
	}
	if err := s.learn(); err != nil {
		return err
	}
	patience := longest + 2*s.o.Windows.WriteTimeout + 10*time.Second
	behind, err := ask[int](s.bad, "reach", patience)
	if err != nil {
		return err
	}
	v, err := ask[verdict](s.bad, "judge", none{})
	if err != nil {
		return err
	}
	s.t.gate(s.name, v.Bad == 0 && behind == 0, "the oracle of the slow ones: %v", v)
	return nil
}
