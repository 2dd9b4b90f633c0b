package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

// The loads.
const (
	loadPaced = "paced"
	loadBurst = "burst"
)

// warmUp is how many messages go before the paced load, unmeasured.
const warmUp = 5

// A result is what one load showed of one contestant.
type result struct {
	Contestant string
	Load       string
	Round      int

	CPU       time.Duration   // of the server
	Wall      time.Duration   // from the first publish until nothing was waited for
	Publish   time.Duration   // how long the publishing itself took
	Allocated uint64          // bytes
	Last      []time.Duration // for each message, from its publish until the last client had it
	Late      int             // messages that were not everywhere when the next was published
	Error     string          // of publishing
	Tally     tally
}

// A trial is one contestant in a process of its own.
type trial struct {
	order
	contender *contender
	drain     *drainProcess
	next      int // the number of the next message
}

// serveTrial is a trial's process: the server.
func serveTrial(ctx context.Context, in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return err
	}
	c, err := find(o.Contestant)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Settings.trialLimit())
	defer cancel()
	results, err := try(ctx, o, c)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return json.NewEncoder(out).Encode(results)
}

func try(ctx context.Context, o order, c contestant) ([]result, error) {
	contender, err := c.start(ctx, o.Settings)
	if err != nil {
		return nil, err
	}
	defer contender.close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	hs := &http.Server{Handler: contender.handler, ReadHeaderTimeout: connectLimit}
	go func() { _ = hs.Serve(ln) }() // ends with Close
	defer hs.Close()

	drain, err := startDrain(ctx, plan{
		Addr: ln.Addr().String(), Path: c.path, Hello: c.hello, Ready: c.ready,
		Clients: o.Settings.Clients,
	})
	if err != nil {
		return nil, err
	}
	defer drain.stop()
	t := &trial{order: o, contender: contender, drain: drain}
	return t.run(c.burstOnly)
}

func (t *trial) run(burstOnly bool) (results []result, err error) {
	o := t.Settings
	if _, err := t.measure("warm-up", warmUp, t.paced); err != nil {
		return nil, err
	}
	if !burstOnly {
		r, err := t.measure(loadPaced, o.Paced, t.paced)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	r, err := t.measure(loadBurst, o.Burst, t.burst)
	return append(results, r), err
}

// measure has messages published and waits for them. The error is one of the
// benchmark, not of the contestant.
func (t *trial) measure(load string, count int, publish func([][]byte) ([]time.Duration, error)) (result, error) {
	data := messages(t.next, count, t.Settings.Payload)
	if err := t.drain.arm(watch{First: t.next, Count: count, LimitMillis: t.Settings.limit().Milliseconds()}); err != nil {
		return result{}, err
	}
	t.next += count
	runtime.GC() // so that nobody pays for what went before
	stopProfile, err := t.profile(load)
	if err != nil {
		return result{}, err
	}

	r := result{Contestant: t.Contestant, Load: load, Round: t.Round}
	memory, used, began := allocated(), cpu(), now()
	at, failed := publish(data)
	r.Publish = now() - began
	tally, err := t.drain.wait()
	r.CPU = cpu() - used
	stopProfile()
	if err != nil {
		return r, err
	}
	if failed != nil {
		r.Error = fmt.Sprintf("%.200s", failed)
	}
	r.Allocated = allocated() - memory
	r.Tally = tally
	r.Wall = time.Duration(tally.Over) - began
	r.waited(at)
	return r, nil
}

// waited takes when each message was published.
func (r *result) waited(at []time.Duration) {
	for i := range at {
		whole := time.Duration(r.Tally.Whole[i])
		if whole == 0 {
			continue // some client never had it; the tally tells
		}
		r.Last = append(r.Last, whole-at[i])
		if i+1 < len(at) && whole > at[i+1] {
			r.Late++
		}
	}
}

// paced publishes at a fixed pace and returns when each message was.
func (t *trial) paced(data [][]byte) (at []time.Duration, err error) {
	tick := time.NewTicker(t.Settings.interval())
	defer tick.Stop()
	for _, d := range data {
		<-tick.C
		at = append(at, now())
		if err := t.contender.publish(d); err != nil {
			return at, err
		}
	}
	return at, nil
}

// burst publishes back to back. When each message was published is not told:
// what counts is when all are there.
func (t *trial) burst(data [][]byte) ([]time.Duration, error) {
	if t.contender.burst != nil {
		return nil, t.contender.burst(data)
	}
	for _, d := range data {
		if err := t.contender.publish(d); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// profile writes a CPU profile of a load, if that was asked for.
func (t *trial) profile(load string) (stop func(), err error) {
	if t.Settings.Profile == "" || load == "warm-up" {
		return func() {}, nil
	}
	name := fmt.Sprintf("%s-%s-%d.pprof", strings.NewReplacer(" ", "-", ",", "").Replace(t.Contestant), load, t.Round)
	f, err := os.Create(filepath.Join(t.Settings.Profile, name))
	if err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, pprof.StartCPUProfile(f)
}
