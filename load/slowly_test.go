//go:build linux

package main

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMoodsWakeWhomTheySay(t *testing.T) {
	for is, want := range map[mood][]manner{
		asleep: nil,
		once:   {stalled},
		steady: {stalled},
		busyAt: {stalled, flapping, modem},
		calm:   {stalled, flapping, modem},
	} {
		var got []manner
		for _, how := range []manner{stalled, flapping, modem} {
			if is.wakes(how) {
				got = append(got, how)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("mood %d wakes %v, not %v", is, got, want)
		}
	}
}

// TestSlowClientsReadNoMoreThanTheyWould: one that stalls reads nothing of its
// first line, some events of the others, and all when all is well.
func TestSlowClientsReadNoMoreThanTheyWould(t *testing.T) {
	f := newFleet()
	f.plan.ReadOn = 2
	c := &client{fleet: f, manner: stalled}
	event := item{Kind: isEvent, N: 1, Position: []byte("p1")}
	line := func(is mood) (read int) {
		f.moods.set(turn{Mood: is})
		c.lines++
		c.behave()
		for opening := (item{Kind: isOpening, Position: []byte("p0")}); !c.full(&opening) && read < 10; read++ {
			c.take(event)
			if c.full(&event) {
				return read + 1
			}
		}
		return read
	}
	for i, want := range []struct {
		is   mood
		read int
	}{{busyAt, 0}, {busyAt, 2}, {calm, 10}, {once, 0}, {steady, 2}} {
		if got := line(want.is); got != want.read {
			t.Errorf("line %d, mood %d: %d events were read, not %d", i, want.is, got, want.read)
		}
	}
	if eager := (&client{fleet: f}); eager.full(&event) || !eager.behave().IsZero() {
		t.Error("a good client stops reading")
	}
}

func TestModemsAreSlow(t *testing.T) {
	here, there := net.Pipe()
	f := newFleet()
	f.moods.set(turn{Mood: busyAt})
	go func() { _, _ = there.Write(make([]byte, modemSpeed/5)); _ = there.Close() }()
	began := time.Now()
	n, _ := io.Copy(io.Discard, trickle{here, f})
	if took := time.Since(began); n != modemSpeed/5 || took < 200*time.Millisecond {
		t.Errorf("%d bytes in %v", n, took)
	}
}

// TestTheEndOfAStreamSaysWhenToReturn, as an EventSource would understand it. A
// stream that breaks says nothing.
func TestTheEndOfAStreamSaysWhenToReturn(t *testing.T) {
	l := &sseLine{r: bufio.NewReader(strings.NewReader("retry: 1000\nid: 0a\n\nretry: 4200\n\n"))}
	for range 2 {
		if _, err := l.next(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.next()
	if e, ok := errors.AsType[*ended](err); !ok || e.after != 4200*time.Millisecond {
		t.Errorf("the end is %v", err)
	}
	l = &sseLine{retry: time.Second, r: bufio.NewReader(io.MultiReader(strings.NewReader("id: "), broken{}))}
	if _, err := l.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a break is %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestLongLinesAreRead(t *testing.T) {
	long := strings.Repeat("x", 3*readBuffer)
	l := &sseLine{r: bufio.NewReaderSize(strings.NewReader("data: {\"n\":1,\"at\":2,\"text\":\""+long+"\"}\nid: 0b\n\n:\n\n"), readBuffer)}
	if it, err := l.next(); err != nil || it.N != 1 || string(it.Position) != "0b" {
		t.Errorf("%+v, %v", it, err)
	}
	if it, err := l.next(); err != nil || it.Kind != isBeat {
		t.Errorf("after it: %+v, %v", it, err)
	}
}

func TestLinesOfTheLogAreCounted(t *testing.T) {
	c := &lineCounter{lines: map[string]int{}}
	logger := slog.New(c).With("a", 1)
	logger.Info("evicted", "message", "x")
	logger.Info("evicted")
	logger.Warn("memory short", "stage", "trimming", "used", 3)
	logger.Debug("much")
	if want := map[string]int{"evicted": 2, "memory short: trimming": 1}; !maps.Equal(c.lines, want) {
		t.Errorf("%v, not %v", c.lines, want)
	}
}

// TestEveryClientIsOfOneKind: parts add up, however the number divides.
func TestEveryClientIsOfOneKind(t *testing.T) {
	for _, tenth := range []int{10, 37, 200, 1000} {
		p := fleetPlan{Mix: slowMix(tenth)}
		if p.number(stalled) != tenth || p.number(flapping) != tenth || p.number(modem) != tenth/2 || p.clients() != 2*tenth+tenth/2 {
			t.Errorf("of %d: %d, %d and %d", tenth, p.number(stalled), p.number(flapping), p.number(modem))
		}
	}
}
