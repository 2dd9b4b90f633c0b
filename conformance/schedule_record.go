package conformance

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// A recorder writes a history while it happens, and works out what the log may
// have dropped by then.
type recorder struct {
	began time.Time

	mu      sync.Mutex
	history History     // guarded by mu
	number  int         // guarded by mu: the last that was given
	kept    []keptEvent // guarded by mu: what the log may not have dropped
	written time.Time   // guarded by mu: when the channel's last event came, or its history began
}

type keptEvent struct {
	n    int
	when time.Time
}

func newRecorder(s *Schedule) *recorder {
	now := time.Now()
	return &recorder{began: now, written: now, history: History{Schedule: s}}
}

func (r *recorder) add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(e)
}

// note is add, with mu held.
func (r *recorder) note(e Entry) {
	e.Time = time.Since(r.began)
	r.history.Entries = append(r.history.Entries, e)
}

// pass notes what the log may drop until some time from now, and while that
// is being done.
func (r *recorder) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	then := time.Now().Add(d + margin)
	old := 0
	for old < len(r.kept) && then.Sub(r.kept[old].when) >= keepFor {
		old++
	}
	r.drop(old)
	if len(r.kept) == 0 && then.Sub(r.written) >= forgetIn {
		r.note(Entry{What: Forgotten, Before: then.Add(-forgetIn).Sub(r.began)})
	}
}

// onTheWay notes what happened on the way of a client whose connections are over.
func (r *recorder) onTheWay(by string, log []faultproxy.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range log {
		r.history.Entries = append(r.history.Entries, Entry{
			What: OnTheWay, Time: e.At.Sub(r.began), By: by,
			Reason: fmt.Sprintf("connection %d, %s: %s", e.Conn, e.Request, e.What),
		})
	}
}

// arrange puts what happened on the way where it belongs. All else is in order
// and stays so.
func (r *recorder) arrange() {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.history.Entries, func(a, b Entry) int { return cmp.Compare(a.Time, b.Time) })
}

// margin is how long it may take to do what takes no time by itself.
const margin = 3 * time.Minute

// drop notes that the oldest may be gone. Guarded by mu.
func (r *recorder) drop(n int) {
	if n <= 0 {
		return
	}
	r.note(Entry{What: Dropped, N: r.kept[n-1].n, Reason: string(eventlog.Trimmed)})
	r.kept = r.kept[n:]
}

// publishing notes that an event will be published, and returns its number and
// payload.
func (r *recorder) publishing(by string, s *Step) (n int, m eventlog.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	m = s.message(r.number)
	r.kept = append(r.kept, keptEvent{r.number, time.Now()})
	r.drop(len(r.kept) - keepEvents)
	r.written = time.Now()
	r.note(Entry{What: Published, By: by, N: r.number, Digest: digest(m.Data), Type: m.Type})
	return r.number, m
}

func (r *recorder) acknowledged(n int, position string) {
	r.add(Entry{What: Acknowledged, N: n, Position: position})
}

// refused notes that an event is not in the channel.
func (r *recorder) refused(n int, code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = slices.DeleteFunc(r.kept, func(k keptEvent) bool { return k.n == n })
	r.note(Entry{What: Refused, N: n, Reason: code})
}

// lostAll notes that the log holds nothing any more.
func (r *recorder) lostAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept, r.written = nil, time.Now()
	r.note(Entry{What: HistoryLost})
}

// message is the one with a number.
func (s *Step) message(n int) eventlog.Message {
	m := eventlog.Message{Type: "said"}
	pad := strings.Repeat("x", s.Size)
	switch m.Kind = eventlog.Kind(s.Kind); m.Kind {
	case eventlog.Text:
		m.Data = fmt.Appendf(nil, "%d is \"a text\",\nof two lines: ü %s", n, pad)
	case eventlog.Binary:
		m.Data = fmt.Appendf(nil, "%d \x00\xff\r\n%s", n, pad)
	default:
		m.Data = fmt.Appendf(nil, `{"n": %d, "pad": "\u00fc%s"}`, n, pad)
	}
	return m
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}

// handed is what a reader's entry says of an event. A text comes as a JSON
// string over some carriers, and as it is over others.
func handed(it wireclient.Item) Entry {
	data := it.Data
	if it.JSON && len(data) > 0 && data[0] == '"' {
		var text string
		if json.Unmarshal(data, &text) == nil {
			data = []byte(text)
		}
	}
	n, err := Number(data)
	if err != nil {
		_, _ = fmt.Sscan(string(data), &n)
	}
	return Entry{What: Handed, N: n, Position: it.Position, Digest: digest(data), Type: it.Type}
}
