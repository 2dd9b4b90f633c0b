package bolt

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

var crashes = flag.Int("crashes", 40, "how often the power fails")

const crashKeeps = 30

// A ledger is what one who appends, reads and repeats knows at a moment.
type ledger struct {
	appended []appended // acknowledged, in order
	lasting  int        // how many of them have to survive
}

type appended struct {
	channel eventlog.Channel
	last    eventlog.Position
	batch   eventlog.Batch
}

// A crash is one run of a log whose power fails.
type crash struct {
	*disk

	options Options
	log     *Log

	acks   sync.Mutex
	ledger ledger
	begun  int      // acknowledged when the commit under way began
	left   *ledger  // as of the power failure
	wrong  []string // what the survivor got wrong
}

func newCrash(t *testing.T, seed uint64, interval time.Duration) *crash {
	c := &crash{disk: newDisk(t, seed)}
	c.options = Options{
		Interval: interval,
		Retain: func(eventlog.Channel) eventlog.Retention {
			return eventlog.Retention{Events: crashKeeps, Bytes: -1, Age: -1}
		},
		MaxFree: -1,
		hooks:   c.hooks(),
	}
	c.onCrash = func() {
		c.acks.Lock()
		defer c.acks.Unlock()
		c.left = &ledger{appended: slices.Clone(c.ledger.appended), lasting: c.ledger.lasting}
		if interval <= 0 {
			c.left.lasting = len(c.left.appended)
		}
	}
	c.onPoint = func(point string) {
		c.acks.Lock()
		defer c.acks.Unlock()
		switch point {
		case "commit":
			c.begun = len(c.ledger.appended)
		case "committed":
			c.ledger.lasting = c.begun
		}
	}
	return c
}

// live has the log used until the power fails.
func (c *crash) live(seed uint64) {
	var err error
	if c.log, err = Open(c.path, c.options); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for writer := range 3 {
		random := rand.New(rand.NewPCG(seed, uint64(writer)))
		all.Go(func() { c.write(ctx, writer, random) })
	}
	all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := c.log.Compact(ctx); err != nil && ctx.Err() == nil && !c.noSync {
				c.t.Error(err)
			}
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c.disk.mu.Lock()
		crashed := c.crashed != ""
		c.disk.mu.Unlock()
		if crashed {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no moment came to crash at: %v", c.observed)
		}
	}
	cancel()
	all.Wait()
	if err := c.log.Close(); err != nil {
		c.t.Error(err)
	}
}

// write appends to some channels, as a producer, with numbers that rise.
func (c *crash) write(ctx context.Context, writer int, random *rand.Rand) {
	for seq := uint64(1); ctx.Err() == nil; seq++ {
		if c.options.Interval > 0 {
			time.Sleep(c.options.Interval / 10) // more would take long to judge
		}
		ch := eventlog.Channel{Namespace: fmt.Sprint(writer % 2), Name: fmt.Sprint(random.IntN(3))}
		batch := eventlog.Batch{Producer: eventlog.Producer{ID: fmt.Sprint("producer ", writer), Seq: seq}}
		for i := range 1 + random.IntN(3) {
			data := fmt.Sprintf("%d %d %d %0*d", writer, seq, i, random.IntN(3000), 0)
			batch.Messages = append(batch.Messages, eventlog.Message{Kind: eventlog.Text, Data: []byte(data)})
		}
		last, _, err := c.log.Append(context.Background(), ch, batch)
		if err != nil {
			c.t.Error(err)
			return
		}
		c.acks.Lock()
		c.ledger.appended = append(c.ledger.appended, appended{ch, last, batch})
		c.acks.Unlock()
	}
}

func (c *crash) errorf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// judge opens what the power failure left, and notes what is wrong with it.
func (c *crash) judge() {
	if err := Check(c.crashed, func(problem string) { c.errorf("check: %s", problem) }); err != nil {
		c.errorf("check: %v", err)
	}
	o := c.options
	o.hooks = hooks{}
	l, err := Open(c.crashed, o)
	if err != nil {
		c.errorf("open: %v", err)
		return
	}
	defer l.Close()
	newest := map[string]appended{} // of each producer in each channel, of what has to survive
	for i, a := range c.left.appended {
		if i > len(c.left.appended)-500 { // what was before is trimmed
			c.judgeReader(l, a, i < c.left.lasting)
		}
		if i < c.left.lasting {
			newest[fmt.Sprint(a.channel, a.batch.Producer.ID)] = a
		}
	}
	for _, a := range newest {
		c.judgeRepeat(l, a)
	}
	handedOut := map[string]bool{}
	for _, a := range c.left.appended {
		handedOut[a.channel.String()+" "+a.last.String()] = true
	}
	for _, ch := range channelsOf(c.left.appended) {
		for range 10 {
			last, _, err := l.Append(context.Background(), ch, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}})
			if err != nil {
				c.errorf("append: %v", err)
			}
			if handedOut[ch.String()+" "+last.String()] {
				c.errorf("%v of %v is handed out twice", last, ch)
			}
		}
	}
}

// judgeReader checks what a reader hears who has the position of an append.
func (c *crash) judgeReader(l *Log, a appended, survives bool) {
	page, err := l.Read(context.Background(), a.channel, a.last, eventlog.Limit{Bytes: 1 << 30})
	var lost *eventlog.Lost
	switch {
	case errors.As(err, &lost) && lost.Reason == eventlog.Trimmed:
		if head, _ := l.Seek(context.Background(), a.channel, eventlog.Start{}); head.Offset < a.last.Offset+crashKeeps {
			c.errorf("%v of %v is trimmed, and the head is %v", a.last, a.channel, head)
		}
	case errors.As(err, &lost):
		if survives {
			c.errorf("%v of %v, which was acknowledged: %v", a.last, a.channel, err)
		}
	case err != nil:
		c.errorf("read after %v: %v", a.last, err)
	default:
		c.judgePage(a, page)
	}
}

// judgePage checks that a page is what was acknowledged after a position, in
// order, without a hole. What was under way may follow.
func (c *crash) judgePage(a appended, page eventlog.Page) {
	at := a.last
	got := map[uint64]string{}
	for _, e := range page.Events {
		if e.Before() != at {
			c.errorf("%v of %v comes after %v", e.At, a.channel, at)
		}
		at = e.At
		got[e.At.Offset] = e.At.String() + string(e.Data)
	}
	for i, other := range c.left.appended {
		if other.channel != a.channel || other.last.Offset <= a.last.Offset {
			continue
		}
		want := other.last.String() + string(other.batch.Messages[len(other.batch.Messages)-1].Data)
		if found, there := got[other.last.Offset]; found != want && (there || i < c.left.lasting) {
			c.errorf("at offset %d of %v is %.20q, not %.20q", other.last.Offset, a.channel, found, want)
		}
	}
}

// judgeRepeat checks that a batch which has to be there is not appended again.
func (c *crash) judgeRepeat(l *Log, a appended) {
	last, duplicate, err := l.Append(context.Background(), a.channel, a.batch)
	if errors.Is(err, eventlog.ErrStale) {
		return // the next was written, too, and not acknowledged yet
	}
	if err != nil || !duplicate || last != a.last {
		c.errorf("a repeat in %v: %v, duplicate %v, error %v; it was at %v", a.channel, last, duplicate, err, a.last)
	}
}

func channelsOf(list []appended) []eventlog.Channel {
	set := map[eventlog.Channel]bool{}
	for _, a := range list {
		set[a.channel] = true
	}
	return slices.Collect(maps.Keys(set))
}

// crashPoints are where the power fails in turn; "" is anywhere.
var crashPoints = []string{"", "commit", "write", "between syncs", "committed", "", "copied", "before rename", "renamed", "folder synced"}

// powerFails has the power fail at a point, and returns what was wrong after it.
func powerFails(t *testing.T, round int, interval time.Duration, noSync bool) []string {
	c := newCrash(t, uint64(round), interval)
	c.noSync = noSync
	point, after := crashPoints[round%len(crashPoints)], 1+rand.New(rand.NewPCG(uint64(round), 2)).IntN(50)
	passed := 0
	c.crashAt = func(_ int, at string) bool {
		if point == "" || at == point {
			passed++
		}
		if slices.Contains(crashPoints[6:], point) {
			return passed > after/15 // a compaction has few moments
		}
		return passed > after
	}
	c.live(uint64(round))
	c.judge()
	return c.wrong
}

// TestPowerFails: whenever the power fails, nothing is lost that was
// acknowledged as synced; with an interval only what the last commit did not
// have; no position is handed out twice; readers go on exactly, or are told.
func TestPowerFails(t *testing.T) {
	for _, level := range []struct {
		name     string
		interval time.Duration
	}{{"synced", 0}, {"interval", time.Millisecond}} {
		t.Run(level.name, func(t *testing.T) {
			for round := range *crashes / 2 {
				if wrong := powerFails(t, round, level.interval, false); len(wrong) > 0 {
					t.Fatalf("round %d, at %q: %d faults, the first: %s", round, crashPoints[round%len(crashPoints)], len(wrong), wrong[0])
				}
			}
		})
	}
}
