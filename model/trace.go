package model

import (
	"fmt"
	"strings"
)

// A Trace is a run: what was done, and what the answers must be. Events and
// positions have names of the model; another log that runs it has its own
// positions, one for each name and no two the same.
type Trace struct {
	Name  string `json:"name,omitempty"` // of the weak rule whose counterexample it was
	Setup Setup  `json:"setup"`
	Steps []Step `json:"steps"`
	Fault string `json:"fault,omitempty"` // what law it breaks, if it is a counterexample
}

// A Setup is the log that a trace wants. Times are in ticks.
type Setup struct {
	Events     int `json:"events,omitempty"`     // most that are kept
	Age        int `json:"age,omitempty"`        // how long; 0 for ever
	Generation int `json:"generation,omitempty"` // how long one lasts

	Confirms bool `json:"confirms,omitempty"` // an event is readable when it was confirmed
}

// A Step is one thing done. Nodes and clients count from 1; 0 is none.
type Step struct {
	Do     string `json:"do"`
	Node   int    `json:"node,omitempty"`
	Client int    `json:"client,omitempty"`
	Number int    `json:"number,omitempty"` // of events, ticks, or a publish's own; for a read the most events
	Start  string `json:"start,omitempty"`  // latest, earliest or last
	Want   Answer `json:"want,omitzero"`
}

// An Answer is what a step gives. Positions are named "2:e3", the second of its
// channel and the third appended at all, or "0:g1", a place before the first.
type Answer struct {
	Events []string `json:"events,omitempty"` // appended, or delivered
	Next   string   `json:"next,omitempty"`   // the position after it
	Head   string   `json:"head,omitempty"`   // of the log, if it was read
	Lost   string   `json:"lost,omitempty"`   // the reason; Next is where to go on
	Later  bool     `json:"later,omitempty"`  // the log can't be asked now
	Woken  bool     `json:"woken,omitempty"`  // whoever watches must have been
	Note   string   `json:"note,omitempty"`
}

// String tells a trace in words, a line for each step.
func (t Trace) String() string {
	var b strings.Builder
	for i, s := range t.Steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
	}
	if t.Fault != "" {
		fmt.Fprintf(&b, "     Fault: %s.\n", t.Fault)
	}
	return b.String()
}

func (s Step) String() string {
	words := s.Do
	if phrase := phrases[s.Do]; phrase != "" {
		words = phrase
	}
	switch {
	case s.Client > 0 && s.Node > 0:
		words = fmt.Sprintf("client %d on node %d %s", s.Client, s.Node, words)
	case s.Client > 0:
		words = fmt.Sprintf("client %d: %s", s.Client, words)
	case s.Node > 0:
		words = fmt.Sprintf("node %d %s", s.Node, words)
	}
	if s.Number > 0 {
		words += fmt.Sprintf(" %d", s.Number)
	}
	if s.Start != "" {
		words += " " + s.Start
	}
	return words + s.Want.words()
}

func (a Answer) words() string {
	var words []string
	if len(a.Events) > 0 {
		words = append(words, strings.Join(a.Events, " "))
	}
	switch {
	case a.Lost != "":
		words = append(words, "a gap, "+a.Lost+", to "+a.Next)
	case a.Next != "":
		words = append(words, "now at "+a.Next)
	}
	if a.Head != "" {
		words = append(words, "head "+a.Head)
	}
	if a.Later {
		words = append(words, "try later")
	}
	if a.Woken {
		words = append(words, "woken")
	}
	if a.Note != "" {
		words = append(words, a.Note)
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + strings.Join(words, ", ")
}

// A namer gives events their names, in the order in which they are appended.
type namer map[uint8]string

func (n namer) event(id uint8) string {
	if n[id] == "" {
		n[id] = fmt.Sprintf("e%d", len(n)+1)
	}
	return n[id]
}

func (n namer) pos(p pos) string {
	if p.off == 0 {
		return fmt.Sprintf("0:g%d", p.at.id)
	}
	return fmt.Sprintf("%d:%s", p.off, n.event(p.id))
}

// trace runs the way to the last state found again.
func (x *searcher) trace(fault string) Trace {
	var steps []step
	for i := uint32(len(x.origin) - 1); i > 0; i = x.origin[i].from {
		steps = append([]step{x.origin[i].step}, steps...)
	}
	names := namer{}
	s := initial(x.rules, x.scope)
	t := Trace{Fault: fault}
	for _, st := range steps {
		o := x.apply(&s, st)
		t.Steps = append(t.Steps, x.tell(&s, st, o, names))
	}
	return t
}

// deeds are the names of deeds in a Step.
var deeds = [...]string{
	doAppend: "append", doTrim: "trim", doRise: "rise", doExpire: "expire", doSync: "sync", doFailover: "failover",
	doAway: "away", doBack: "back", doWipe: "wipe", doWaited: "waited", doConfirm: "confirm", doNotice: "notice",
	doPull: "pull", doBell: "bell", doForget: "forget", doServe: "serve", doLose: "lose", doMove: "move", doMoveAway: "move away", doSend: "send", doCheck: "check", doArrive: "arrive", doUnheard: "unheard",
}

// phrases are what they are called in words.
var phrases = map[string]string{
	"trim":      "the oldest event is trimmed",
	"rise":      "the generation rises",
	"expire":    "the name expires",
	"sync":      "the replica catches up",
	"failover":  "the replica takes over",
	"away":      "the primary answers nobody",
	"back":      "the primary answers again",
	"wipe":      "the primary loses everything",
	"waited":    "somebody hears that the replica has",
	"confirm":   "it is confirmed, and may be read",
	"notice":    "learns who is the primary",
	"pull":      "reads the log on",
	"bell":      "hears a bell that brings",
	"forget":    "forgets the oldest batch",
	"serve":     "gets",
	"lose":      "is sent, and the line breaks before it arrives,",
	"move":      "resumes",
	"move away": "resumes while that can't ask the primary",
	"send":      "the producer sends number",
	"check":     "the log finds unused the number",
	"arrive":    "the log gets, and answers to, number",
	"unheard":   "the answer is lost, but the log gets number",
}

// tell describes a step that was done.
func (x *searcher) tell(s *state, st step, o outcome, names namer) Step {
	told := Step{Do: deeds[st.deed], Number: int(o.seq), Want: Answer{Note: o.verdict}}
	if o.event > 0 {
		told.Want.Events = []string{names.event(o.event)}
	}
	switch st.deed {
	case doAppend:
		if st.who > 0 {
			told.Want.Note = "its bells are lost"
		}
	case doNotice, doPull, doBell, doForget:
		told.Node = int(st.who) + 1
	case doServe, doLose, doMove, doMoveAway:
		c := &s.clients[st.who]
		told.Client, told.Node = int(st.who)+1, int(c.node)+1
		if o.got.kind != nothing {
			told.Want.Next = names.pos(c.pos)
		}
		if o.got.kind == aGap {
			told.Want.Lost = o.got.why.String()
		}
		if o.got.kind == anEvent {
			told.Want.Events = []string{names.event(o.got.event.id)}
		}
	}
	return told
}
