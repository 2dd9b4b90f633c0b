package conformance

import (
	"fmt"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// read opens a line of the clause's form, which has to be accepted.
func (c *serverCheck) read(channel, after string) *reading {
	return c.readOver(c.form, c.site, channel, after)
}

func (c *serverCheck) readOver(f form, s *site, channel, after string) *reading {
	stream, err := f.open(c, s, channel, after)
	if err != nil {
		c.fatalf("%s of %q after %q was not accepted: %v", f.name, channel, after, err)
	}
	c.atEnd(stream.Close)
	return &reading{check: c, stream: stream, form: f, presented: after, asked: fmt.Sprintf("%q after %q", channel, after)}
}

// A reading is a line that is read.
type reading struct {
	check     *serverCheck
	stream    wireclient.Stream
	form      form
	presented string // the position or start it began with
	asked     string // what was said last to have something come, in words
	awaited   string // what has to come next, in words; "" if that is open
	taken     int    // how many things came
	last      wireclient.Item
}

// maxCame is the most that a line brings. A server that says something again
// and again, and at once, would otherwise hold a clause up for ever: no time
// passes meanwhile, in a bubble.
const maxCame = 10_000

// coming begins to wait for what comes next, so that a poll is under way, and
// returns what hands it over, or says how the line ended; also that nothing came.
// Where time is real, a poll may be on its way: then it does something again each
// second until something comes.
func (r *reading) coming(skips func(wireclient.Item) bool) func(again func()) (wireclient.Item, error) {
	type result struct {
		it  wireclient.Item
		err error
	}
	came := make(chan result, 1)
	go func() {
		for {
			it, err := r.stream.Next()
			if err != nil || !skips(it) {
				came <- result{it, err}
				return
			}
		}
	}()
	return func(again func()) (wireclient.Item, error) {
		late := time.After(r.check.patience())
		for {
			var next <-chan time.Time
			if again != nil && r.check.server.TCP && r.form.carrier == "poll" {
				next = time.After(time.Second)
			}
			select {
			case got := <-came:
				if got.err == nil {
					r.taken, r.last = r.taken+1, got.it
				}
				return got.it, got.err
			case <-next:
				again()
			case <-late:
				r.stream.Close()
				return wireclient.Item{}, fmt.Errorf("nothing came within %s", r.check.waited())
			}
		}
	}
}

// take returns what comes next, whatever it is, or how the line ended.
func (r *reading) take() (wireclient.Item, error) {
	return r.coming(func(wireclient.Item) bool { return false })(nil)
}

// any returns what comes next, whatever it is.
func (r *reading) any() wireclient.Item {
	it, err := r.take()
	if err != nil {
		r.broke(err)
	}
	if r.taken > maxCame {
		r.broke(fmt.Errorf("more than %d things came", maxCame))
	}
	return it
}

// broke ends the clause with all that is known of why something did not come.
func (r *reading) broke(err error) {
	words := fmt.Sprintf("%s: %v", r.form.name, err)
	if r.awaited != "" {
		words += fmt.Sprintf(", where %s was awaited", r.awaited)
	}
	if r.asked != "" {
		words += fmt.Sprintf("; asked: %.200s", r.asked)
	}
	if r.taken > 0 {
		words += fmt.Sprintf("; %d things came before, the last of them %s", r.taken, inWords(r.last))
	}
	if p, ok := r.check.said.Load().(publication); ok {
		words += fmt.Sprint("; ", p)
	}
	r.check.fatalf("%s", words)
}

// expecting notes what has to come next.
func (r *reading) expecting(format string, args ...any) *reading {
	r.awaited = fmt.Sprintf(format, args...)
	return r
}

// until reads to something, which has to come in time. Heartbeats alone don't
// have it wait for ever.
func (r *reading) until(what string, is func(wireclient.Item) bool) wireclient.Item {
	if r.awaited == "" {
		r.awaited = what
	}
	for began := time.Now(); time.Since(began) < r.check.patience(); {
		if it := r.any(); is(it) {
			r.awaited = ""
			return it
		}
	}
	r.broke(fmt.Errorf("nothing but heartbeats came within %s", r.check.waited()))
	return wireclient.Item{}
}

// next returns what comes next about a channel, or a goodbye.
func (r *reading) next() wireclient.Item {
	return r.until("anything about a channel", func(it wireclient.Item) bool {
		return !it.Beat && it.Open == nil && it.Refresh == nil
	})
}

// say sends a frame on a WebSocket.
func (r *reading) say(frame string) {
	r.asked = frame
	if err := r.stream.(*wireclient.WSStream).Send([]byte(frame)); err != nil {
		r.check.fatalf("%s: the line ended before %.200s was said: %v", r.form.name, frame, err)
	}
}

// opening returns the position that the line opens with. Polls that present one
// show no other.
func (r *reading) opening() string {
	if r.form.carrier == "poll" && r.presented != "" && !isStart(r.presented) {
		return r.presented
	}
	it := r.expecting("the opening").next()
	if !it.Opening {
		r.check.fatalf("%s: %s came in place of the opening", r.form.name, inWords(it))
	}
	return it.Position
}

func isStart(after string) bool {
	return after == "latest" || after == "earliest" || strings.HasPrefix(after, "last=") || strings.HasPrefix(after, "since=")
}

// event takes the next thing, which has to be the event at a position, with
// this JSON.
func (r *reading) event(position, data string) {
	it := r.expecting("the event %.60s at %q", data, position).next()
	if !it.Event || it.Position != position || string(it.Data) != data {
		r.check.fatalf("%s: %s came, not the event %s at %q", r.form.name, inWords(it), data, position)
	}
}

// events takes the numbers from first, at these positions.
func (r *reading) events(first int, positions []string) {
	for i, position := range positions {
		r.event(position, fmt.Sprint(first+i))
	}
}

// quiet has nothing more come that is about a channel, and ends the line.
func (r *reading) quiet() {
	silence := time.Minute
	if r.check.server.TCP {
		silence = 100 * time.Millisecond
	}
	silent := time.AfterFunc(silence, r.stream.Close)
	defer silent.Stop()
	for {
		it, err := r.stream.Next()
		if err != nil {
			return
		}
		if !it.Beat && it.Open == nil {
			r.check.fatalf("%s: %s came, where nothing should", r.form.name, inWords(it))
		}
	}
}

// inWords says what came.
func inWords(it wireclient.Item) string {
	switch {
	case it.Event:
		return fmt.Sprintf("the event %.60q at %q", it.Data, it.Position)
	case it.Opening:
		return fmt.Sprintf("the opening of %q at %q", it.Channel, it.Position)
	case it.Gap != nil:
		return fmt.Sprintf("a gap %q from %q to %q", it.Gap.Reason, it.Gap.From, it.Gap.To)
	case it.End != nil:
		return fmt.Sprintf("the end %q of %q", it.End.Code, it.Channel)
	case it.Close != nil:
		return fmt.Sprintf("the goodbye %q (%s)", it.Close.Code, it.Close.Class)
	case it.Open != nil:
		return "an open"
	case it.Beat:
		return "a heartbeat"
	case it.Presence != nil:
		return fmt.Sprintf("the presence of %q: %+v", it.Channel, *it.Presence)
	}
	return fmt.Sprintf("%+v", it)
}

// said is a message with a number for data.
func said(n int) eventlog.Message {
	return eventlog.Message{Type: "said", Data: fmt.Append(nil, n)}
}
