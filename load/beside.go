//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// How the events are that are published beside the bad clients.
const (
	besideChannels = 4
	besideSize     = 300  // bytes of an event
	besideBefore   = 2000 // events of each channel that those read who stall
)

// besideBound is how much memory the server may take for each client, bad or
// not, above what it took when it was empty: a page of 64 KiB under way and 16
// for the connection, as much again that the collector has not looked at.
const besideBound = 160 << 10

// besideBack is how much of it may be left when all are gone. The log has more
// events than before, and the runtime keeps what its largest size took to
// manage.
const besideBack = 32 << 20

// A scene is a server with its good clients, beside which bad ones come and go.
type scene struct {
	*lab
	t     *trials
	name  string
	plan  fleetPlan
	gang  badPlan
	empty usage

	// rouse has the bad clients begin, and rest has them end.
	rouse, rest func() error
	times       slicing
}

// A slicing is how long slices take, and how long nothing is measured before one
// with bad clients and one without.
type slicing struct{ Slice, Settle, Rest time.Duration }

// beside is the run with the bad clients, and then the pairs.
func (t *trials) beside(ctx context.Context) error {
	s, err := t.newScene(ctx, "bad", t.Serial)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.run(ctx); err != nil {
		return err
	}
	ratios, err := s.pairs(ctx, t.Pairs)
	if err != nil {
		return err
	}
	if len(ratios) > 0 {
		r := summarise(delayRatios(ratios))
		t.gate("bad", r.Median <= t.Gate, "p99 of the others with bad clients to that without, %d pairs: %v (median at most %v; the target is %v)", len(ratios), r, t.Gate, t.Target)
	}
	return s.finish()
}

// serial shows that the gate bites: a build that writes to all clients from one
// goroutine must not pass.
func (t *trials) serial(ctx context.Context) error {
	s, err := t.newScene(ctx, "serial", true)
	if err != nil {
		return err
	}
	defer s.close()
	ratios, err := s.pairs(ctx, 1)
	if err != nil {
		return err
	}
	const loosest = 1.5
	r := summarise(delayRatios(ratios))
	t.gate("serial", r.Median > loosest, "a build that writes to all from one goroutine has a ratio of %s, and must have more than %v", digits(r.Median), loosest)
	return nil
}

func (t *trials) newScene(ctx context.Context, name string, serial bool) (s *scene, err error) {
	s = &scene{t: t, name: name, times: slicing{t.Slice, t.Settle, t.Settle}}
	s.rouse = func() error { return tell(s.bad, "begin", s.gang) }
	s.rest = func() error { _, err := ask[misdeeds](s.bad, "end", none{}); return err }
	if s.lab, err = newLab(ctx, servePlan{Serial: serial, Verbose: t.Verbose}, roleBad); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	prefix := ""
	if serial {
		prefix = serialPrefix
	}
	each := int(float64(t.Clients) * t.Bad / 100)
	names := channels(besideChannels)
	s.plan = fleetPlan{Addr: s.addr, Prefix: prefix, Channels: names, Mix: mix(t.Clients - 4*each)}
	s.gang = badPlan{Addr: s.addr, Prefix: prefix, Channels: names, Carriers: allCarriers}
	for way := range strings.SplitSeq(t.Ways, ",") {
		*s.gang.of(way) = each
	}

	published := publishPlan{Channels: names, PerSecond: t.Pace, Size: besideSize, Before: besideBefore}
	if err = tell(s.server, "publish", published); err != nil {
		return nil, err
	}
	if err = tell(s.server, "pause", none{}); err != nil {
		return nil, err
	}
	if s.empty, err = ask[usage](s.server, "measure", cleaning{true}); err != nil {
		return nil, err
	}
	if _, err = ask[time.Duration](s.fleet, "connect", s.plan); err != nil {
		return nil, err
	}
	return s, tell(s.server, "publish", published)
}

// mix is how clients are spread over the carriers.
func mix(n int) []share {
	all := []share{{sessionWS, n * 30 / 100, eager}, {plainWS, n * 20 / 100, eager}, {sessionSSE, n * 20 / 100, eager}, {plainSSE, n * 15 / 100, eager}}
	rest := n
	for _, s := range all {
		rest -= s.Clients
	}
	return append(all, share{polls, rest, eager})
}

// run has the bad clients at it for a while.
func (s *scene) run(ctx context.Context) error {
	began, err := ask[usage](s.server, "measure", cleaning{})
	if err != nil {
		return err
	}
	from := now()
	if err := tell(s.bad, "begin", s.gang); err != nil {
		return err
	}
	pause(ctx, s.t.Run)
	done, err := ask[misdeeds](s.bad, "misdeeds", none{})
	if err != nil {
		return err
	}
	during, err := ask[usage](s.server, "measure", cleaning{})
	if err != nil {
		return err
	}
	to := now()
	if _, err := ask[misdeeds](s.bad, "end", none{}); err != nil {
		return err
	}
	d, err := s.delays(ctx, span{from, to})
	if err != nil {
		return err
	}
	wall := (during.At - began.At).Seconds()
	s.gateMisdeeds(done, wall)
	s.t.say(s.name, "%d good clients and %d stalled, %d half-open, %d that send garbage, %d that reconnect, for %.0f s: %d events each of %d channels",
		s.plan.clients(), s.gang.Stalled, s.gang.HalfOpen, s.gang.Garbage, s.gang.Reconnecting, wall, int(wall*s.t.Pace), len(s.plan.Channels))
	s.t.say(s.name, "server: %.2f of the cores, the bad clients %.2f; delay of the others: p50 %s, p99 %s, most %s ms",
		(during.CPU-began.CPU).Seconds()/wall, done.CPU.Seconds()/wall, digits(d.P50), digits(d.P99), digits(d.Most))
	bound := s.empty.RSS + int64(s.t.Clients)*besideBound
	s.t.gate(s.name, during.PeakRSS <= bound, "RSS %s at most, %s when empty; the bound is %s; TCP in the kernel: %s at the end of the run",
		mib(during.PeakRSS), mib(s.empty.RSS), mib(bound), mib(during.Sockets))
	return nil
}

// gateMisdeeds holds what the bad clients did against what makes a run worth
// something: each has done its worst, and the quick ones often.
func (s *scene) gateMisdeeds(m misdeeds, seconds float64) {
	often := int64(seconds)
	ok := m.Stalls >= int64(s.gang.Stalled) && m.Dark >= int64(s.gang.HalfOpen) &&
		m.Garbage >= often*int64(s.gang.Garbage)/4 && m.Cycles >= often*int64(s.gang.Reconnecting)
	s.t.gate(s.name, ok, "the bad ones: %d stalls, %d of them cut off; %d went dark; %d sent garbage, %d were answered; %d reconnects, %d refused; %d could not connect %s",
		m.Stalls, m.CutOff, m.Dark, m.Garbage, m.Answered, m.Cycles, m.Refused, m.Unopened, m.FirstFail)
}

// delays tells how long the events of a span took.
func (s *scene) delays(ctx context.Context, w span) (delay, error) {
	pause(ctx, 300*time.Millisecond) // what is on the way
	if err := s.learn(); err != nil {
		return delay{}, err
	}
	return ask[delay](s.fleet, "slice", w)
}

// noisy is how much of a processor the rest of the machine may use before a pair
// of slices counts only if there are no better ones, unless what is measured goes
// before it.
const noisy = 0.3

// spare is how many more pairs are tried for each that is asked for, if the
// machine is noisy.
const spare = 1

// pairs measures slices with and without the bad clients in turn, so that what
// the machine does meanwhile hits both, and returns the ratios of each pair.
func (s *scene) pairs(ctx context.Context, n int) ([]ratios, error) {
	var quiet, loud []ratios
	for i := 0; len(quiet) < n && i < n*(1+spare); i++ {
		r, noise, err := s.pair(ctx, i%2 == 1)
		if err != nil {
			return nil, err
		}
		if noise <= noisy || realtime() {
			quiet = append(quiet, r)
		} else {
			loud = append(loud, r)
		}
	}
	if len(quiet) < n {
		s.t.say(s.name, "this machine was not quiet: %d of %d pairs were measured while something else used more than %v of a processor, and the result says less", len(loud), len(loud)+len(quiet), noisy)
		quiet = append(quiet, loud...)
	}
	return quiet, nil
}

// ratios hold a slice with the bad clients against one without.
type ratios struct {
	P99 float64 // of the delays
	CPU float64 // of the server, for each delivery to a good client
	// Own is that of the good clients' own process, which does the same whatever the bad ones
	// do: it tells how fast the machine is.
	Own float64
}

func delayRatios(all []ratios) (p99 []float64) {
	for _, r := range all {
		p99 = append(p99, r.P99)
	}
	return p99
}

func costRatios(all []ratios) (costs []float64) {
	for _, r := range all {
		costs = append(costs, r.CPU)
	}
	return costs
}

// pair returns the ratios of two slices, and what the rest of the machine used
// during the noisier one.
func (s *scene) pair(ctx context.Context, badFirst bool) (r ratios, noise float64, err error) {
	var with, without ratios
	for _, bad := range []bool{badFirst, !badFirst} {
		one, other, err := s.slice(ctx, bad)
		if err != nil {
			return r, 0, err
		}
		noise = max(noise, other)
		if bad {
			with = one
		} else {
			without = one
		}
	}
	return ratios{with.P99 / without.P99, with.CPU / without.CPU, with.Own / without.Own}, noise, nil
}

// slice measures once, with the bad clients or without, and tells what the rest
// of the machine used meanwhile. What it returns are no ratios yet: ms, and µs.
func (s *scene) slice(ctx context.Context, bad bool) (r ratios, noise float64, err error) {
	what := "without"
	if bad {
		what = "with"
		if err := s.rouse(); err != nil {
			return r, 0, err
		}
	}
	if bad {
		pause(ctx, s.times.Settle)
	} else {
		pause(ctx, s.times.Rest)
	}
	if r, noise, err = s.look(ctx, what, s.times.Slice); err != nil || !bad {
		return r, noise, err
	}
	return r, noise, s.rest()
}

// look measures for a while, whatever is going on.
func (s *scene) look(ctx context.Context, what string, long time.Duration) (r ratios, noise float64, err error) {
	began, err := s.load()
	if err != nil {
		return r, 0, err
	}
	w := span{From: now()}
	pause(ctx, long)
	w.To = now()
	over, err := s.load()
	if err != nil {
		return r, 0, err
	}
	d, err := s.delays(ctx, w)
	if err != nil {
		return r, 0, err
	}
	late := ""
	if d.Missing > 0 {
		late = fmt.Sprintf("; %d of %d did not come", d.Missing, d.Events)
	}
	used, other := over.since(began)
	each := func(used time.Duration) float64 { return float64(used) / 1e3 / float64(d.Events) }
	r = ratios{P99: d.P99, CPU: each(over.server - began.server), Own: each(over.fleet - began.fleet)}
	s.t.say(s.name, "slice %-7s bad clients: p50 %s, p99 %s, most %s ms; %s, %s µs of the server for each delivery to the others, and %s of their own%s",
		what, digits(d.P50), digits(d.P99), digits(d.Most), used, digits(r.CPU), digits(r.Own), late)
	return r, other, nil
}

// A cores is what each process has used, and what the machine has.
type cores struct{ at, server, fleet, bad, all time.Duration }

func (s *scene) load() (c cores, err error) {
	var u usage
	c.all, c.at = busy(), now()
	for _, p := range []struct {
		process *process
		used    *time.Duration
	}{{s.server, &c.server}, {s.fleet, &c.fleet}, {s.bad, &c.bad}} {
		if u, err = ask[usage](p.process, "measure", cleaning{}); err != nil {
			return c, err
		}
		*p.used = u.CPU
	}
	return c, nil
}

// since tells what was used since before, and how much of it by others.
func (c cores) since(before cores) (used string, other float64) {
	part := func(d time.Duration) float64 { return float64(d) / float64(c.at-before.at) }
	server, fleet, bad := c.server-before.server, c.fleet-before.fleet, c.bad-before.bad
	other = part(c.all - before.all - server - fleet - bad)
	return fmt.Sprintf("of the cores: server %.2f, clients %.2f, bad ones %.2f, this machine else %.2f", part(server), part(fleet), part(bad), other), other
}

// finish judges what the good clients got, and what is left when all are gone.
func (s *scene) finish() error {
	v, behind, err := s.judge()
	if err != nil {
		return err
	}
	s.t.gateVerdict(s.name, v, behind)
	at, err := ask[standing](s.fleet, "standing", none{})
	if err != nil {
		return err
	}
	s.t.gate(s.name, len(at.Lost) == 0, "lines of the others that ended: %s", counts(at.Lost))
	after, err := s.leave(s.empty)
	if err != nil {
		return err
	}
	s.t.gateLeft(s.name, s.empty, after)
	s.t.gate(s.name, after.RSS-s.empty.RSS <= besideBack, "RSS is %s above that of the empty server (at most %s)", mib(after.RSS-s.empty.RSS), mib(besideBack))
	return nil
}
