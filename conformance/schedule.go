package conformance

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
)

// A Schedule is what is done in one random run: to the channel, to its readers,
// and to what lies between. The readers go to and fro between two carriers.
type Schedule struct {
	Seed  uint64 `json:"seed"`
	From  string `json:"from"` // the carrier they begin over: "sse", "ws" or "poll"
	To    string `json:"to"`
	Steps []Step `json:"steps"`
}

// An Op is what a step does.
type Op string

// The steps of a schedule. A reader that is stalled or cut stays so until it is
// told otherwise; a step that makes no sense where it stands does nothing, so
// that each can be left out.
const (
	PublishSome   Op = "publish"    // N events, as the program does
	PublishByWire Op = "client"     // one, as a client does, with Trouble on the way, again until it is acknowledged
	GiveUp        Op = "give up"    // the same, but nobody asks again
	PublishBad    Op = "bad"        // one that must be refused
	GoOver        Op = "go over"    // Reader goes to the other carrier
	LeaveOpen     Op = "leave open" // the same, but leaves the old line unread and open
	ComeBack      Op = "come back"  // Reader begins a new line over the same carrier
	OtherNode     Op = "other node" // Reader goes to the other node
	Leave         Op = "leave"      // Reader ends its line
	Cut           Op = "cut"        // Reader's connections end, as How says
	Meet          Op = "meet"       // the next request of Reader that fits meets Trouble
	Stall         Op = "stall"      // Reader takes nothing
	Resume        Op = "resume"     // it takes again
	Wait          Op = "wait"       // For passes
	ForgetName    Op = "forget"     // everybody leaves, and so much passes that the name is dropped
	KillNode      Op = "kill"       // a node ends at once, and another takes its place
	ShutDownNode  Op = "shut down"  // the same, in good order
	LoseHistory   Op = "lose all"   // all nodes end, and come back with a log that holds nothing
)

// A Step is one thing that is done.
type Step struct {
	Do     Op            `json:"do"`
	Reader int           `json:"reader,omitempty"`
	Node   int           `json:"node,omitempty"`
	N      int           `json:"n,omitempty"`
	Size   int           `json:"size,omitempty"` // of each payload, in bytes
	Kind   int           `json:"kind,omitempty"` // of the payloads: JSON, text or binary
	For    time.Duration `json:"for,omitempty"`

	How     faultproxy.Ending `json:"how,omitempty"`
	Trouble Trouble           `json:"trouble,omitzero"`
}

// What schedules are made for: the server keeps few events, and not for long.
const (
	keepEvents = 20
	keepFor    = time.Hour
	forgetIn   = 2 * time.Hour
	readers    = 4
	halfHour   = 30 * time.Minute
)

// carrierPairs are the ordered pairs of carriers. Schedules take them in turn.
var carrierPairs = func() (pairs [][2]string) {
	for _, from := range []string{"sse", "ws", "poll"} {
		for _, to := range []string{"sse", "ws", "poll"} {
			pairs = append(pairs, [2]string{from, to})
		}
	}
	return pairs
}()

// NewSchedule returns the schedule of a seed. Nine seeds in a row have all nine
// ordered pairs of carriers.
func NewSchedule(seed uint64) *Schedule {
	pair := carrierPairs[seed%uint64(len(carrierPairs))]
	s := &Schedule{Seed: seed, From: pair[0], To: pair[1]}
	dice := rand.New(rand.NewPCG(seed, 1))
	for range 45 {
		s.Steps = append(s.Steps, s.newStep(dice))
	}
	return s
}

// chances says how often each step is drawn.
var chances = []struct {
	of int
	op Op
}{
	{26, PublishSome},
	{8, PublishByWire},
	{2, GiveUp},
	{1, PublishBad},
	{14, GoOver},
	{6, LeaveOpen},
	{8, ComeBack},
	{4, OtherNode},
	{2, Leave},
	{6, Cut},
	{20, Meet},
	{4, Stall},
	{5, Resume},
	{9, Wait},
	{1, ForgetName},
	{2, KillNode},
	{1, ShutDownNode},
	{1, LoseHistory},
}

func (s *Schedule) newStep(dice *rand.Rand) Step {
	all := 0
	for _, c := range chances {
		all += c.of
	}
	step := Step{Reader: dice.IntN(readers)}
	for n, i := dice.IntN(all), 0; ; i++ {
		if n -= chances[i].of; n < 0 {
			step.Do = chances[i].op
			break
		}
	}
	switch step.Do {
	case PublishSome:
		step.N = 1 + dice.IntN(12)
		step.Size = []int{0, 0, 200, 9000}[dice.IntN(4)]
		step.Kind = dice.IntN(3)
		step.Node = dice.IntN(2)
		if dice.IntN(12) == 0 {
			step.N += keepEvents
		}
	case PublishByWire, GiveUp, PublishBad:
		step.Kind = dice.IntN(3)
		step.Node = dice.IntN(2)
		switch {
		case step.Do == GiveUp:
			step.Trouble = losingTrouble(dice)
		case step.Do == PublishByWire && dice.IntN(4) > 0:
			step.Trouble = publishTrouble(dice)
		}
	case Cut:
		step.How = newEnding(dice)
	case Meet:
		step.Trouble = readTrouble(dice, s.From, s.To)
	case Wait:
		step.For = time.Duration(1+dice.IntN(60)) * time.Second
		if dice.IntN(5) == 0 {
			step.For = time.Duration(1+dice.IntN(3)) * halfHour // events age
		}
	case KillNode, ShutDownNode:
		step.Node = dice.IntN(2)
	}
	return step
}

var kindNames = []string{"JSON", "text", "binary"}

// String says what the step does.
func (s Step) String() string {
	who := readerName(s.Reader)
	switch s.Do {
	case PublishSome:
		return fmt.Sprintf("%d events are published at %s (%s, %d bytes more each)", s.N, nodeName(s.Node), kindNames[s.Kind], s.Size)
	case PublishByWire:
		if s.Trouble == (Trouble{}) {
			return fmt.Sprintf("a client publishes one event at %s (%s)", nodeName(s.Node), kindNames[s.Kind])
		}
		return fmt.Sprintf("a client publishes one event at %s (%s): %v; it repeats it if it must", nodeName(s.Node), kindNames[s.Kind], s.Trouble)
	case GiveUp:
		return fmt.Sprintf("a client publishes one event at %s (%s): %v; it gives up", nodeName(s.Node), kindNames[s.Kind], s.Trouble)
	case PublishBad:
		return fmt.Sprintf("a client publishes at %s what has to be refused", nodeName(s.Node))
	case GoOver:
		return who + " leaves its line and goes over to the other carrier"
	case LeaveOpen:
		return who + " stops reading its line, leaves it open, and goes over to the other carrier"
	case ComeBack:
		return who + " leaves its line and begins a new one over the same carrier"
	case OtherNode:
		return who + " leaves its line and begins a new one at the other node"
	case Leave:
		return who + " leaves"
	case Cut:
		return fmt.Sprintf("each connection of %s %s", who, endingWords[s.How])
	case Meet:
		return fmt.Sprintf("%s's next request that this can happen to: %v", who, s.Trouble)
	case Stall:
		return who + " stops reading"
	case Resume:
		return who + " reads again"
	case Wait:
		return fmt.Sprintf("%v pass", s.For)
	case ForgetName:
		return "everybody leaves, and so much time passes that the channel's name is forgotten"
	case KillNode:
		return nodeName(s.Node) + " dies, and another takes its place"
	case ShutDownNode:
		return nodeName(s.Node) + " is shut down, and another takes its place"
	case LoseHistory:
		return "all nodes end, and come back with a log that lost everything"
	}
	return string(s.Do)
}

func readerName(i int) string { return fmt.Sprintf("reader %d", i+1) }
func nodeName(i int) string   { return fmt.Sprintf("node %d", i+1) }
