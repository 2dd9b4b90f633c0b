package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// A History is what happened to one channel in a run, in one order: what was
// published, what the log may have dropped since, and what each reader was
// handed. It is pure data, so that one that failed can be kept in a file, and
// judged again.
type History struct {
	// Schedule is what was done, if a schedule made the history.
	Schedule *Schedule `json:"schedule,omitempty"`
	Entries  []Entry   `json:"entries"`
}

// What says what an [Entry] is about.
type What string

// What a history is made of, with the members of Entry that belong to each.
//
// Who publishes notes Published before it does, and then what it was told. An
// event that was neither acknowledged nor refused is unknown: it may be in the
// channel or not, and is if any reader was handed it. The order of these
// entries has to be the order of the channel.
//
// Dropped, Forgotten and HistoryLost are noted before they can show. They
// allow gaps and demand none: what is still there may be delivered.
const (
	Published    What = "published"    // N, Digest, Type, By
	Acknowledged What = "acknowledged" // N, Position
	Refused      What = "refused"      // N, Reason: it must not be in the channel

	// All up to the event N may be gone, for a Reason of gaps: trimmed (the
	// default), or withheld. With unencodable, that one alone.
	Dropped What = "dropped"
	// The log may have dropped the name of the channel, which was empty, and
	// positions known before the time Before of a channel without a name.
	Forgotten What = "forgotten"
	// The log holds nothing any more of what was published before.
	HistoryLost What = "history lost"

	LineBegan What = "line"   // By, Over, Node, Position or start that was presented
	Opened    What = "opened" // By, Position: an opening, or a position that moved
	Handed    What = "event"  // By, N, Position, Digest, Type
	GapTold   What = "gap"    // By, From, To, Reason
	// By had a line that nothing happened to, and all the time it needs: it has
	// everything.
	Rested What = "rested"
	// Something between By and the server did Reason. It is for people, and is
	// not judged.
	OnTheWay What = "on the way"
)

// An Entry is one thing that happened.
type Entry struct {
	What     What          `json:"what"`
	Time     time.Duration `json:"time"` // since the run began
	By       string        `json:"by,omitempty"`
	N        int           `json:"n,omitempty"` // of an event, from 1; no two have the same
	Position string        `json:"position,omitempty"`
	Digest   string        `json:"digest,omitempty"` // of the payload
	Type     string        `json:"type,omitempty"`   // "" where the form shows none
	From     string        `json:"from,omitempty"`
	To       string        `json:"to,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Over     string        `json:"over,omitempty"` // a form of reading
	Node     string        `json:"node,omitempty"`
	Before   time.Duration `json:"before,omitempty"`
}

// String says what happened.
func (e Entry) String() string {
	who := e.By
	switch e.What {
	case Published:
		return fmt.Sprintf("%s publishes number %d", who, e.N)
	case Acknowledged:
		return fmt.Sprintf("number %d is acknowledged at %q", e.N, e.Position)
	case Refused:
		return fmt.Sprintf("number %d is refused: %s", e.N, e.Reason)
	case Dropped:
		return fmt.Sprintf("numbers up to %d may be gone", e.N)
	case Forgotten:
		return "the name of the channel may be forgotten"
	case HistoryLost:
		return "the log loses everything"
	case LineBegan:
		return fmt.Sprintf("%s asks over %s at %s after %q", who, e.Over, e.Node, e.Position)
	case Opened:
		return fmt.Sprintf("%s is told the position %q", who, e.Position)
	case Handed:
		return fmt.Sprintf("%s is handed number %d at %q", who, e.N, e.Position)
	case GapTold:
		return fmt.Sprintf("%s is told of a gap %q from %q to %q", who, e.Reason, e.From, e.To)
	case OnTheWay:
		return fmt.Sprintf("on the way of %s: %s", who, e.Reason)
	case Rested:
		return who + " has had all the time it needs"
	}
	return string(e.What)
}

// Save writes the history to a file.
func (h *History) Save(path string) error {
	var b bytes.Buffer
	schedule, err := json.Marshal(h.Schedule)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "{\"schedule\": %s,\n\"entries\": [", schedule)
	for i, e := range h.Entries {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n%s", text)
	}
	b.WriteString("\n]}\n")
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// ReadHistory reads what [History.Save] wrote.
func ReadHistory(path string) (*History, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h := new(History)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, fmt.Errorf("%s is no history: %w", path, err)
	}
	return h, nil
}
