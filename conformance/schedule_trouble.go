package conformance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
)

// A Trouble is what happens to one request on its way, and to what answers it.
// The zero value is none.
type Trouble struct {
	Kind   TroubleKind       `json:"kind,omitempty"`
	Bytes  int               `json:"bytes,omitempty"` // that pass before, or at once, or in a second
	For    time.Duration     `json:"for,omitempty"`
	How    faultproxy.Ending `json:"how,omitempty"`
	Status int               `json:"status,omitempty"`
	Second bool              `json:"second,omitempty"` // of two answers the client gets the second
}

// A TroubleKind is a fault of package faultproxy.
type TroubleKind string

// The kinds, with the members of Trouble that belong to each.
const (
	CutAnswer    TroubleKind = "cut answer"    // Bytes, How
	CutRequest   TroubleKind = "cut request"   // Bytes, How
	DropAnswer   TroubleKind = "drop answer"   // of a poll or a publish
	Freeze       TroubleKind = "freeze"        // Bytes, For
	Throttle     TroubleKind = "throttle"      // Bytes
	Split        TroubleKind = "split"         // Bytes, For
	Merge        TroubleKind = "merge"         // For
	HoldBack     TroubleKind = "hold back"     // the whole answer, until it is complete
	IdleKill     TroubleKind = "idle kill"     // For, How
	KillUpgraded TroubleKind = "kill upgraded" // For, How
	TurnAway     TroubleKind = "turn away"     // Status, For
	Duplicate    TroubleKind = "duplicate"     // For, Second
	DelayUp      TroubleKind = "delay up"      // For
	DelayDown    TroubleKind = "delay down"    // For
)

// troubleKinds says how often each kind is drawn, for a reader and for a client
// that publishes, and what the proxy's log says when it was done.
var troubleKinds = []struct {
	kind              TroubleKind
	ofRead, ofPublish int
	loses             bool // the answer to a publish, or all of it
	shows             string
}{
	{CutAnswer, 7, 3, true, "bytes of the answer ("},
	{CutRequest, 1, 3, true, "bytes of the request ("},
	{DropAnswer, 5, 4, true, "ended: the answer was dropped"},
	{Freeze, 2, 1, false, ": Stall{"},
	{Throttle, 2, 0, false, ": Throttle{"},
	{Split, 1, 0, false, ": Split{"},
	{Merge, 1, 0, false, ": Merge{"},
	{HoldBack, 1, 0, false, ": BufferResponse{"},
	{IdleKill, 3, 0, false, "ended: idle for "},
	{KillUpgraded, 4, 0, false, "ended: killed "},
	{TurnAway, 2, 2, false, ": Answer{"},
	{Duplicate, 3, 3, false, ": copy: answered "},
	{DelayUp, 1, 1, false, " Down:0s}"},
	{DelayDown, 1, 1, false, ": Delay{Up:0s "},
}

// readTrouble draws what happens to the next request of a reader that goes
// between two carriers.
func readTrouble(dice *rand.Rand, carriers ...string) Trouble {
	return drawTrouble(dice, func(i int) int {
		switch troubleKinds[i].kind {
		case KillUpgraded:
			if !slices.Contains(carriers, "ws") {
				return 0
			}
		case DropAnswer:
			if !slices.Contains(carriers, "poll") {
				return 0
			}
		}
		return troubleKinds[i].ofRead
	})
}

// publishTrouble draws what happens to a publish, losingTrouble what leaves who
// publishes without an answer.
func publishTrouble(dice *rand.Rand) Trouble {
	t := drawTrouble(dice, func(i int) int { return troubleKinds[i].ofPublish })
	return t.small()
}

func losingTrouble(dice *rand.Rand) Trouble {
	t := drawTrouble(dice, func(i int) int {
		if troubleKinds[i].loses {
			return troubleKinds[i].ofPublish
		}
		return 0
	})
	return t.small()
}

// small makes a trouble fit the few bytes of a publish.
func (t Trouble) small() Trouble {
	t.Bytes %= 300
	return t
}

func drawTrouble(dice *rand.Rand, weight func(i int) int) Trouble {
	all := 0
	for i := range troubleKinds {
		all += weight(i)
	}
	for n, i := dice.IntN(all), 0; ; i++ {
		if n -= weight(i); n < 0 {
			return newTrouble(dice, troubleKinds[i].kind)
		}
	}
}

func newTrouble(dice *rand.Rand, kind TroubleKind) Trouble {
	t := Trouble{Kind: kind}
	switch kind {
	case CutAnswer:
		t.Bytes, t.How = dice.IntN(4000), newEnding(dice)
	case CutRequest:
		t.Bytes, t.How = dice.IntN(400), newEnding(dice)
	case Freeze:
		t.Bytes, t.For = dice.IntN(2000), time.Duration(1+dice.IntN(90))*time.Second
	case Throttle:
		t.Bytes = []int{1000, 5000, 30_000}[dice.IntN(3)]
	case Split:
		t.Bytes, t.For = 20+dice.IntN(400), time.Duration(dice.IntN(2))*time.Millisecond
	case IdleKill:
		t.For, t.How = time.Duration(1+dice.IntN(60))*time.Second, newEnding(dice)
	case KillUpgraded:
		t.For, t.How = []time.Duration{0, 0, time.Millisecond, 10 * time.Second}[dice.IntN(4)], newEnding(dice)
	case TurnAway:
		t.Status, t.For = 502+dice.IntN(2), time.Duration(dice.IntN(5))*time.Second
	case Duplicate:
		t.For, t.Second = []time.Duration{0, time.Microsecond, time.Millisecond, time.Second}[dice.IntN(4)], dice.IntN(2) == 1
	case Merge, DelayUp, DelayDown:
		t.For = time.Duration(1+dice.IntN(1000)) * time.Millisecond
	}
	return t
}

func newEnding(dice *rand.Rand) faultproxy.Ending {
	return []faultproxy.Ending{faultproxy.Reset, faultproxy.Reset, faultproxy.Orderly, faultproxy.HalfOpen}[dice.IntN(4)]
}

// lasts reports whether a line that meets it may be late with its events, or
// never bring them, without that it ends.
func (t Trouble) lasts() bool {
	switch t.Kind {
	case CutAnswer, CutRequest, IdleKill, KillUpgraded:
		return t.How == faultproxy.HalfOpen
	case Freeze, Throttle, HoldBack:
		return true
	case Split:
		return t.For > 0
	}
	return false
}

// rule is what has a proxy do it.
func (t Trouble) rule() (r faultproxy.Rule) {
	bytes := int64(t.Bytes)
	switch t.Kind {
	case CutAnswer:
		r.Fault = faultproxy.CutAfter{Bytes: bytes, How: t.How}
	case CutRequest:
		r.Fault = faultproxy.CutRequest{Bytes: bytes, How: t.How}
	case DropAnswer: // of a stream nothing would come, and that is HoldBack
		r.Fault = faultproxy.DropAnswer{}
		r.Match = isNoStream
	case Freeze:
		r.Fault = faultproxy.Stall{After: bytes, For: t.For}
	case Throttle:
		r.Fault = faultproxy.Throttle{Up: t.Bytes, Down: t.Bytes}
	case Split:
		r.Fault = faultproxy.Split{Bytes: t.Bytes, Gap: t.For}
	case Merge:
		r.Fault = faultproxy.Merge{For: t.For}
	case HoldBack:
		r.Fault = faultproxy.BufferResponse{}
	case IdleKill:
		r.Fault = faultproxy.IdleKill{After: t.For, How: t.How}
	case KillUpgraded:
		r.Fault = faultproxy.KillAfterUpgrade{After: t.For, How: t.How}
	case TurnAway:
		r.Fault = faultproxy.Answer{Status: t.Status, RetryAfter: t.For, Body: "<h1>Not now</h1>"}
	case Duplicate:
		r.Fault = faultproxy.Duplicate{Apart: t.For, Second: t.Second}
	case DelayUp:
		r.Fault = faultproxy.Delay{Up: t.For}
	case DelayDown:
		r.Fault = faultproxy.Delay{Down: t.For}
	}
	return r
}

// String says what happens.
func (t Trouble) String() string {
	switch t.Kind {
	case CutAnswer:
		return fmt.Sprintf("after %d bytes of the answer the connection %s", t.Bytes, endingWords[t.How])
	case CutRequest:
		return fmt.Sprintf("after %d bytes of the request the connection %s", t.Bytes, endingWords[t.How])
	case DropAnswer:
		return "the answer is lost, which the server gave in full"
	case Freeze:
		return fmt.Sprintf("after %d bytes the answer stands still for %v", t.Bytes, t.For)
	case Throttle:
		return fmt.Sprintf("no more than %d bytes a second pass either way", t.Bytes)
	case Split:
		return fmt.Sprintf("the answer comes in pieces of %d bytes, %v apart", t.Bytes, t.For)
	case Merge:
		return fmt.Sprintf("what the server says within %v comes as one piece", t.For)
	case HoldBack:
		return "the answer is held back until it is complete"
	case IdleKill:
		return fmt.Sprintf("once nothing was said for %v the connection %s", t.For, endingWords[t.How])
	case KillUpgraded:
		return fmt.Sprintf("the WebSocket opens, and after %v its connection %s", t.For, endingWords[t.How])
	case TurnAway:
		return fmt.Sprintf("the server isn't asked, and the answer is %d, to be asked again after %v", t.Status, t.For)
	case Duplicate:
		which := "first"
		if t.Second {
			which = "second"
		}
		return fmt.Sprintf("the request is made twice, %v apart, and the %s one is answered", t.For, which)
	case DelayUp:
		return fmt.Sprintf("all that the client says takes %v", t.For)
	case DelayDown:
		return fmt.Sprintf("all that the server says takes %v", t.For)
	}
	return "nothing happens"
}

var endingWords = map[faultproxy.Ending]string{
	faultproxy.Reset:    "is reset",
	faultproxy.Orderly:  "is closed",
	faultproxy.HalfOpen: "is dead, and neither end is told",
}

// cutNow is what a history calls what a step Cut did.
func cutNow(how faultproxy.Ending) string { return fmt.Sprintf("cut now (%v)", how) }

// whatHappened returns what a line of a proxy's log is about: a kind of trouble,
// once that was done, or a step Cut; "" if neither.
func whatHappened(line string) string {
	for _, how := range []faultproxy.Ending{faultproxy.Reset, faultproxy.Orderly, faultproxy.HalfOpen} {
		if strings.HasSuffix(line, ": ended: "+cutNow(how)) {
			return cutNow(how)
		}
	}
	for i := range troubleKinds {
		if strings.Contains(line, troubleKinds[i].shows) {
			return string(troubleKinds[i].kind)
		}
	}
	return ""
}
