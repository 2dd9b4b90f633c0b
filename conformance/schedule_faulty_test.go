package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
)

// A worseLog is a log of which one method is broken. In each, next counts the
// calls.
type worseLog struct {
	eventlog.Log
	next   atomic.Int64
	read   func(l *worseLog, page eventlog.Page, err error) (eventlog.Page, error)
	append func(l *worseLog, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error)
	wakes  func(head uint64) bool
}

func (l *worseLog) every(n int64) bool { return l.next.Add(1)%n == 0 }

func (l *worseLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	if l.read == nil || ch.Name != "room" {
		return page, err
	}
	if err == nil && len(page.Events) == 0 {
		return page, err
	}
	return l.read(l, page, err)
}

func (l *worseLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	if l.append == nil || ch.Name != "room" {
		return l.Log.Append(ctx, ch, b)
	}
	return l.append(l, ch, b)
}

func (l *worseLog) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	if l.wakes == nil || ch.Name != "room" {
		return l.Log.Watch(ch, wake)
	}
	return l.Log.Watch(ch, func() {
		if head, err := l.Seek(context.Background(), ch, eventlog.Start{}); err != nil || l.wakes(head.Offset) {
			wake()
		}
	})
}

// reads returns a variant of the server whose log's pages and losses are changed.
func reads(change func(l *worseLog, page eventlog.Page, err error) (eventlog.Page, error)) testee.Variant {
	return testee.Variant{Log: func(l eventlog.Log) eventlog.Log { return &worseLog{Log: l, read: change} }}
}

// lost changes what a read says of a loss, and passes pages.
func lost(change func(*eventlog.Lost) (eventlog.Page, error)) testee.Variant {
	return reads(func(_ *worseLog, page eventlog.Page, err error) (eventlog.Page, error) {
		if l, ok := errors.AsType[*eventlog.Lost](err); ok {
			return change(l)
		}
		return page, err
	})
}

// down returns a variant of the server whose words are changed, if they bring
// events or gaps of the channel.
func down(change func(n int64, s testee.Said) []string) testee.Variant {
	n := new(atomic.Int64)
	return testee.Variant{Handler: testee.Rewriter{Down: func(s testee.Said) []string {
		if !strings.Contains(s.Text, `pad`) && !strings.Contains(s.Text, "throughline.gap") && !strings.Contains(s.Text, `"gap"`) {
			return []string{s.Text}
		}
		return change(n.Add(1), s)
	}}.Handler}
}

// after returns a variant of the server that takes hellos for others.
func after(change func(position string) string) testee.Variant {
	return testee.Variant{Handler: testee.Rewriter{Up: func(s testee.Said) []string {
		if s.Path == "poll" {
			return []string{s.Text} // it would be answered at once, again and again
		}
		return []string{presented.ReplaceAllStringFunc(s.Text, func(m string) string {
			return `"after":"` + change(presented.FindStringSubmatch(m)[1]) + `"`
		})}
	}}.Handler}
}

var (
	presented = regexp.MustCompile(`"after":"(a[^"]*\.[^"]*)"`)
	told      = regexp.MustCompile(`"position":"([^"]*)"`)
)

// A brokenServer has to be caught by a schedule of the first few seeds, which
// then is made as short as this.
type brokenServer struct {
	name   string
	seeds  int
	steps  int // the most of a shortest schedule, of 45
	server testee.Variant
}

var brokenForSchedules = []brokenServer{
	{"skips the last event of a page that isn't the last", 20, 4, reads(func(_ *worseLog, page eventlog.Page, err error) (eventlog.Page, error) {
		if err == nil && page.More() {
			page.Events = page.Events[:len(page.Events)-1]
		}
		return page, err
	})},
	{"skips an event now and then", 20, 4, reads(func(l *worseLog, page eventlog.Page, err error) (eventlog.Page, error) {
		if err == nil && l.every(9) {
			page.Events = page.Events[1:]
		}
		return page, err
	})},
	{"says trimmed where nothing was", 20, 4, reads(func(l *worseLog, page eventlog.Page, err error) (eventlog.Page, error) {
		if err == nil && len(page.Events) > 1 && l.every(9) {
			first := page.Events[0]
			return eventlog.Page{}, &eventlog.Lost{From: eventlog.Position{Offset: first.At.Offset - 1, Mark: first.Prev}, To: first.At, Reason: eventlog.Trimmed}
		}
		return page, err
	})},
	{"says rewritten where it is only behind", 20, 4, reads(func(l *worseLog, page eventlog.Page, err error) (eventlog.Page, error) {
		if err == nil && l.every(9) {
			first := page.Events[0]
			return eventlog.Page{}, &eventlog.Lost{From: eventlog.Position{Offset: first.At.Offset - 1, Mark: first.Prev}, To: page.Head, Reason: eventlog.Rewritten}
		}
		return page, err
	})},
	{"swallows gaps", 20, 4, lost(func(l *eventlog.Lost) (eventlog.Page, error) {
		return eventlog.Page{Next: l.To, Head: l.To}, nil
	})},
	{"forgets marks: takes another history's position for its own", 20, 5, lost(func(l *eventlog.Lost) (eventlog.Page, error) {
		if l.Reason == eventlog.Rewritten {
			return eventlog.Page{Next: l.To, Head: l.To}, nil
		}
		return eventlog.Page{}, l
	})},
	{"says rewritten for trimmed", 20, 4, lost(func(l *eventlog.Lost) (eventlog.Page, error) {
		l.Reason = eventlog.Rewritten
		return eventlog.Page{}, l
	})},
	{"loses a wake-up now and then", 20, 4, testee.Variant{Log: func(l eventlog.Log) eventlog.Log {
		return &worseLog{Log: l, wakes: func(head uint64) bool { return head%3 != 0 }}
	}}},
	{"forgets who published what", 30, 3, testee.Variant{Log: func(l eventlog.Log) eventlog.Log {
		return &worseLog{Log: l, append: func(l *worseLog, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			b.Producer = eventlog.Producer{}
			return l.Log.Append(context.Background(), ch, b)
		}}
	}}},
	{"acknowledges what it did not keep", 20, 3, testee.Variant{Log: func(l eventlog.Log) eventlog.Log {
		return &worseLog{Log: l, append: func(l *worseLog, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
			if l.every(17) {
				return eventlog.Position{Offset: 4711, Mark: uint64(l.next.Load())}, false, nil
			}
			return l.Log.Append(context.Background(), ch, b)
		}}
	}}},
	{"resumes at the latest", 20, 4, after(func(string) string { return "latest" })},
	{"resumes at the earliest", 20, 4, after(func(string) string { return "earliest" })},
	{"resumes where it last wrote, whatever the client says", 20, 5, lastWritten()},
	{"leaves out a frame now and then", 20, 4, down(func(n int64, s testee.Said) []string {
		if s.Path != "poll" && n%7 == 0 {
			return nil
		}
		return []string{s.Text}
	})},
	{"says a frame twice now and then", 20, 4, down(func(n int64, s testee.Said) []string {
		if s.Path != "poll" && n%7 == 0 {
			return []string{s.Text, s.Text}
		}
		return []string{s.Text}
	})},
	{"answers a poll without its last event", 20, 4, down(func(_ int64, s testee.Said) []string {
		if s.Path == "poll" {
			return []string{lastEvent.ReplaceAllString(s.Text, `${1}]`)}
		}
		return []string{s.Text}
	})},
	{"changes a letter of a text", 20, 4, down(func(n int64, s testee.Said) []string {
		return []string{strings.Replace(s.Text, "two lines", "two limes", 1)}
	})},
	{"takes what came of a publish for the whole", 20, 2, testee.Variant{Handler: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/publish") {
				came, _ := io.ReadAll(r.Body)
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(came)), int64(len(came))
				r = r.WithContext(context.WithoutCancel(r.Context()))
			}
			h.ServeHTTP(w, r)
		})
	}}},
	{"refuses for good the copy of a publish that it works on", 30, 3, testee.Variant{Handler: func(h http.Handler) http.Handler {
		var keys sync.Map
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := r.Header.Get("Idempotency-Key")
			if _, working := keys.LoadOrStore(key, true); working && key != "" {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"error":{"code":"invalid","class":"never"}}`)
				return
			}
			defer keys.Delete(key)
			time.Sleep(5 * time.Millisecond)
			h.ServeHTTP(w, r)
		})
	}}},
	{"keeps gaps back on the wire", 20, 4, down(func(_ int64, s testee.Said) []string {
		return []string{strings.ReplaceAll(s.Text, "gap", "cap")}
	})},
}

var lastEvent = regexp.MustCompile(`("events":\[.*),\{"channel":"room".*?\}\]`)

// lastWritten is a server that takes the position it told last for the client's.
func lastWritten() testee.Variant {
	var last atomic.Pointer[string]
	return testee.Variant{Handler: testee.Rewriter{
		Down: func(s testee.Said) []string {
			if all := told.FindAllStringSubmatch(s.Text, -1); len(all) > 0 {
				last.Store(&all[len(all)-1][1])
			}
			return []string{s.Text}
		},
		Up: func(s testee.Said) []string {
			if p := last.Load(); p != nil {
				return []string{presented.ReplaceAllString(s.Text, `"after":"`+*p+`"`)}
			}
			return []string{s.Text}
		},
	}.Handler}
}

// TestSchedulesCatchBrokenServers: each is caught soon, the history says so
// again, and what is left of the schedule is short.
func TestSchedulesCatchBrokenServers(t *testing.T) {
	for _, broken := range brokenForSchedules {
		t.Run(broken.name, func(t *testing.T) {
			s, h, v := conformance.TrySchedules(t, conformance.Server{Start: broken.server.Start}, broken.seeds)
			if s == nil {
				t.Fatalf("no schedule notices a server that %s", broken.name)
			}
			t.Logf("seed %d, %d steps:\n%v%v", s.Seed, len(s.Steps), s, v)
			if len(s.Steps) > broken.steps {
				t.Errorf("the shortest schedule has %d steps, more than %d", len(s.Steps), broken.steps)
			}
			if again := h.Judge(); again.OK() || again.String() != v.String() {
				t.Errorf("the history is judged another time: %v, not %v", again, v)
			}
		})
	}
}
