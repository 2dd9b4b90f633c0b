package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// tick is a tick of a trace.
const tick = time.Minute

// setups are logs of which events go by number, soon, and late.
var setups = []struct {
	Setup
	length int // of all short traces
}{
	{Setup{Events: 2, Generation: 2}, 4},
	{Setup{Events: 3, Age: 1, Generation: 2}, 5},
	{Setup{Events: 3, Age: 3, Generation: 2}, 5},
}

// longTraces is how many random traces each setup gets.
const longTraces = 500

// room is the channel of all traces.
var room = eventlog.Channel{Namespace: "n", Name: "room"}

// A runner runs the steps of a trace against the log in memory.
type runner struct {
	log   *eventlog.Memory
	stop  func()
	woken atomic.Bool
}

// replay runs a trace against a log of its own. It must run in a bubble.
func replay(t *testing.T, trace Trace) error {
	age := time.Duration(trace.Setup.Age) * tick
	if age == 0 {
		age = -1
	}
	retention := eventlog.Retention{Events: trace.Setup.Events, Age: age}
	r := &runner{log: eventlog.NewMemory(eventlog.MemoryOptions{
		Retain:     func(eventlog.Channel) eventlog.Retention { return retention },
		Generation: time.Duration(trace.Setup.Generation) * tick,
	})}
	defer r.log.Close()
	return trace.Replay(func(s Step, after string) (Answer, error) {
		r.woken.Store(false)
		answer, err := r.do(t, s, after)
		answer.Woken = r.woken.Load()
		return answer, err
	})
}

func (r *runner) do(t *testing.T, s Step, after string) (Answer, error) {
	switch s.Do {
	case "append":
		batch := eventlog.Batch{}
		for _, name := range s.Want.Events {
			batch.Messages = append(batch.Messages, eventlog.Message{Kind: eventlog.Text, Data: []byte(name)})
		}
		last, _, err := r.log.Append(t.Context(), room, batch)
		return Answer{Events: s.Want.Events, Next: last.String()}, err
	case "pass":
		time.Sleep(time.Duration(s.Number) * tick)
		synctest.Wait()
	case "read":
		return r.read(t, after)
	case "seek":
		start := map[string]eventlog.Start{"latest": {}, "earliest": {Earliest: true}, "last": {Last: 1}}[s.Start]
		at, err := r.log.Seek(t.Context(), room, start)
		return Answer{Next: at.String()}, err
	case "watch":
		if r.stop != nil {
			r.stop()
			r.stop = nil
			break
		}
		r.stop = r.log.Watch(room, func() { r.woken.Store(true) })
	default:
		return Answer{}, fmt.Errorf("no such step")
	}
	return Answer{}, nil
}

func (r *runner) read(t *testing.T, after string) (Answer, error) {
	at, err := eventlog.ParsePosition(after)
	if err != nil {
		return Answer{}, err
	}
	page, err := r.log.Read(t.Context(), room, at, eventlog.Limit{})
	var lost *eventlog.Lost
	switch {
	case errors.As(err, &lost) && lost.From == at:
		return Answer{Lost: string(lost.Reason), Next: lost.To.String()}, nil
	case err != nil:
		return Answer{}, err
	}
	a := Answer{Next: page.Next.String(), Head: page.Head.String()}
	for _, e := range page.Events {
		a.Events = append(a.Events, string(e.Data))
	}
	return a, nil
}

// TestMemoryAnswersAsTheModel: in each short sequence of appends, reads, seeks,
// watches and time, and in long random ones, the log in memory answers as the
// model of one node.
func TestMemoryAnswersAsTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		for _, setup := range setups {
			for trace := range ShortTraces(Rules{}, setup.Setup, setup.length-shallower) {
				ran++
				if err := replay(t, trace); err != nil {
					t.Fatalf("%+v: %v\n%s", setup, err, trace)
				}
			}
			for seed := range uint64(longTraces) {
				ran++
				trace := RandomTrace(Rules{}, setup.Setup, rand.New(rand.NewPCG(seed, 0)), 80)
				if err := replay(t, trace); err != nil {
					t.Fatalf("%+v, seed %d: %v\n%s", setup, seed, err, trace)
				}
			}
		}
		t.Logf("%d traces", ran)
	})
}

// TestReplayBites: of each weak rule that one node shows, some trace is not what
// the log in memory does.
func TestReplayBites(t *testing.T) {
	for name, weak := range map[string]Rules{
		"OffsetOnly":           {OffsetOnly: true},
		"TrimmedUnchecked":     {TrimmedUnchecked: true},
		"TrimmedMarkForgotten": {TrimmedMarkForgotten: true},
		"FixedPlace":           {FixedPlace: true},
		"PlaceExactLonger":     {PlaceExactLonger: true},
		"PlaceExactShorter":    {PlaceExactShorter: true},
		"BirthPlaceForgotten":  {BirthPlaceForgotten: true},
		"PlaceNotMoved":        {PlaceNotMoved: true},
		"NameDroppedSooner":    {NameDroppedSooner: true},
		"NameKeptLonger":       {NameKeptLonger: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(1000) {
					setup := setups[seed%uint64(len(setups))].Setup
					trace := RandomTrace(weak, setup, rand.New(rand.NewPCG(seed, 0)), 40)
					if err := replay(t, trace); err != nil {
						t.Logf("%d traces, then %+v: %v", seed, setup, err)
						return
					}
				}
				t.Error("the log in memory does all that this weak rule does")
			})
		})
	}
}

// TestTracesAreJSON: a trace can be written down, for a log in another process.
func TestTracesAreJSON(t *testing.T) {
	traces := []Trace{
		RandomTrace(Rules{}, setups[1].Setup, rand.New(rand.NewPCG(1, 0)), 40),
		Search(Rules{BellsCarryEvents: true}, inTails).Steps,
		RandomNodeTrace(Rules{}, NodeScope(), rand.New(rand.NewPCG(1, 0)), 100),
	}
	for _, trace := range traces {
		text, err := json.Marshal(trace)
		if err != nil {
			t.Fatal(err)
		}
		var again Trace
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(trace, again) || len(again.Steps) == 0 || strings.Contains(string(text), `""`) {
			t.Errorf("%s", text)
		}
	}
}
