package conformance

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// maxShown is how much of a payload or a frame a failure shows.
const maxShown = 200

// shorten cuts what is long, between two characters.
func shorten(text string) string {
	if len(text) <= maxShown {
		return text
	}
	n := maxShown
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:n], len(text))
}

func describeEvent(e *eventlog.Event, channel string) string {
	return fmt.Sprintf("the %v event %s of %q at %v with %d bytes %s", e.Kind, e.Type, channel, e.At, len(e.Data), shorten(strconv.Quote(string(e.Data))))
}

func describeFrame(f *transport.Frame) string {
	return "the frame " + shorten(string(transport.AppendFrameJSON(nil, f)))
}

func describeReceived(r Received) string {
	switch {
	case r.Frame != nil:
		return describeFrame(r.Frame)
	case r.Event && r.JSON != nil:
		return fmt.Sprintf("an event %s of %q at %q with the JSON %s", r.Type, r.Channel, r.Position, shorten(string(r.JSON)))
	case r.Event:
		return fmt.Sprintf("an event %s of %q at %q with %d bytes %s", r.Type, r.Channel, r.Position, len(r.Data), shorten(strconv.Quote(string(r.Data))))
	case r.To != "" || r.From != "":
		return fmt.Sprintf("a gap of %q from %q to %q for %q", r.Channel, r.From, r.To, r.Reason)
	}
	return fmt.Sprintf("the position %q of %q alone", r.Position, r.Channel)
}

// describeAll says what a Send is given.
func describeAll(items []transport.Item) string {
	var words []string
	for _, item := range items {
		switch {
		case item.Run == nil:
			words = append(words, describeFrame(item.Frame))
		case len(item.Run.Events) == 0:
			words = append(words, fmt.Sprintf("a run of %q without events, up to %v", item.Run.Channel.Name, item.Run.Next))
		default:
			words = append(words, fmt.Sprintf("a run of %d events, the first %s", len(item.Run.Events), describeEvent(&item.Run.Events[0], item.Run.Channel.Name)))
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// keptSends is how many Sends a failure tells of.
const keptSends = 2

// noteSent remembers what a Send is given, before the adapter has it.
func (c *transportCheck) noteSent(items []transport.Item) {
	words := describeAll(items)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent[max(0, len(c.sent)-keptSends+1):], words)
}

func (c *transportCheck) lastSent() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sent) == 0 {
		return "nothing"
	}
	return strings.Join(c.sent, ", then ")
}

// inBubble runs a clause in fake time. If goroutines are left that wait for
// ever, it says which, and leaves them.
func inBubble(t *testing.T, run func(*testing.T)) (left string) {
	bubble := ""
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		err, ok := r.(error)
		if !ok || !strings.HasPrefix(err.Error(), "deadlock: ") {
			panic(r)
		}
		left = fmt.Sprintf("goroutines were left behind, and wait for what never comes (%v). "+
			"Whatever a handler or the client half starts has to end with its line:\n%s", err, leftBehind(bubble))
	}()
	synctest.Test(t, func(t *testing.T) {
		header := make([]byte, 100)
		bubble = bubbleOf(string(header[:runtime.Stack(header, false)]))
		run(t)
	})
	return ""
}

var inBubbleOf = regexp.MustCompile(`^goroutine \d+ \[[^\]]*synctest bubble (\d+)`)

// bubbleOf returns the number of the bubble that a stack is of.
func bubbleOf(stack string) string {
	if m := inBubbleOf.FindStringSubmatch(stack); m != nil {
		return m[1]
	}
	return ""
}

// leftBehind returns the stacks of a bubble's goroutines.
func leftBehind(bubble string) string {
	const most, longest = 3, 1500
	buffer := make([]byte, 1<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var stacks []string
	for stack := range strings.SplitSeq(string(buffer), "\n\n") {
		if bubbleOf(stack) == bubble && bubble != "" {
			stacks = append(stacks, stack[:min(len(stack), longest)])
		}
	}
	slices.SortFunc(stacks, func(a, b string) int { return len(a) - len(b) }) // those of net/http are long
	return strings.Join(stacks[:min(len(stacks), most)], "\n\n")
}

// describeUp says what Receive got.
func describeUp(f *transport.Frame) string {
	if f.Kind == transport.FrameClose {
		return fmt.Sprintf("a close frame with %q", f.Reason)
	}
	var words []string
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.IsExported() && !v.Field(i).IsZero() {
			text, _ := json.Marshal(v.Field(i).Interface())
			words = append(words, fmt.Sprintf("%s: %s", field.Name, text))
		}
	}
	return shorten(strings.Join(words, ", "))
}
