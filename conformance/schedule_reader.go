package conformance

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/throughline/throughline/internal/wireclient"
)

// A traveller is a reader that goes from line to line, and so from carrier to
// carrier and node to node, with nothing but its position and its session.
type traveller struct {
	name  string
	run   *scheduleRun
	wire  *wire
	forms []form // those it goes between

	// Owned by the schedule.
	form  int
	node  int
	line  *travelLine
	left  []*travelLine // left open
	begin string        // where it begins without a position

	// Guarded by the recorder's mu.
	position string
	session  travelSession
	taken    int
}

// maxTaken is how much a reader takes in all: what a server that doesn't come to
// an end has to say is known by then.
const maxTaken = 1500

// A travelSession is what the session protocol has a client keep.
type travelSession struct {
	token string
	line  uint64
}

// A travelLine is one line, and the goroutine that reads it.
type travelLine struct {
	form    form
	cancel  context.CancelFunc
	stopped chan struct{}
	over    atomic.Bool                   // nothing of it counts any more
	hold    atomic.Pointer[chan struct{}] // nothing is read until it closes
}

// newTraveller returns a reader of a schedule, or nil if the server has none of
// the forms that it would take. One speaks the session protocol all the time, one
// never, and two change.
func newTraveller(r *scheduleRun, i int) *traveller {
	kinds := [readers][2]string{{"session", "session"}, {"plain", "plain"}, {"session", "plain"}, {"plain", "session"}}[i]
	tr := &traveller{name: readerName(i), run: r, begin: "latest"}
	for k, carrier := range []string{r.schedule.From, r.schedule.To} {
		for _, f := range allForms {
			if f.name == kinds[k]+" "+carrier && f.lacking(r.server) == "" {
				tr.forms = append(tr.forms, f)
			}
		}
	}
	if len(tr.forms) == 0 {
		return nil
	}
	tr.wire = newWire(r.recorder, tr.name)
	return tr
}

// newReplay returns a reader that reads all that is still there.
func newReplay(r *scheduleRun, f form) *traveller {
	return newVisitor(r, f, "who reads again", "earliest")
}

// newWitness returns a reader that reads the last event.
func newWitness(r *scheduleRun, f form) *traveller {
	return newVisitor(r, f, "a witness", "last=1")
}

func newVisitor(r *scheduleRun, f form, name, begin string) *traveller {
	return &traveller{name: name, run: r, wire: newWire(r.recorder, name), begin: begin, forms: []form{f}}
}

func (tr *traveller) do(s *Step) {
	switch s.Do {
	case GoOver:
		tr.form++
		tr.connect()
	case LeaveOpen:
		tr.abandon()
		tr.form++
		tr.connect()
	case ComeBack:
		tr.connect()
	case OtherNode:
		tr.node = 1 - tr.node
		tr.connect()
	case Leave:
		tr.leave()
	case Cut:
		tr.wire.cut(s.How)
	case Meet:
		tr.wire.arm(s.Trouble)
	case Stall:
		if tr.line != nil {
			tr.line.stall()
		}
	case Resume:
		if tr.line != nil {
			tr.line.resume()
		}
	}
}

// rests reports whether the reader has a line that brings what there is.
func (tr *traveller) rests() bool {
	return tr.line != nil && !tr.line.ended() && tr.line.hold.Load() == nil && !tr.wire.troubled()
}

// connect begins a new line where the reader is.
func (tr *traveller) connect() {
	tr.leave()
	n := tr.run.nodes[tr.node]
	tr.wire.lead(n.network)
	f := tr.forms[tr.form%len(tr.forms)]
	tr.run.mu.Lock()
	after := tr.position
	if after == "" {
		after = tr.begin
	}
	tr.session.line++
	number := tr.session.line
	tr.run.note(Entry{What: LineBegan, By: tr.name, Over: f.name, Node: n.name, Position: after})
	tr.run.mu.Unlock()
	ctx, cancel := context.WithCancel(tr.run.ctx)
	line := &travelLine{form: f, cancel: cancel, stopped: make(chan struct{})}
	tr.line = line
	tr.run.live.Go(func() {
		defer close(line.stopped)
		defer cancel()
		stream, err := tr.ask(ctx, f, n.base(), number, after)
		if err != nil {
			return // refused, or left or cut before it began
		}
		defer stream.Close()
		tr.read(line, stream)
	})
}

// ask opens a line, which ends with ctx.
func (tr *traveller) ask(ctx context.Context, f form, base string, number uint64, after string) (wireclient.Stream, error) {
	hc := tr.wire.http
	plain := wireclient.Query(after, scheduleChannel)
	switch f.name {
	case plainSSE.name:
		return wireclient.SSE(ctx, hc, base+"/sse"+plain+"&events=named", "")
	case plainWS.name:
		return wireclient.WS(ctx, hc, base+"/ws"+plain, nil)
	case plainPoll.name:
		return wireclient.NewPollStream(ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if tr.spent() {
				return nil, errSpent
			}
			return wireclient.PlainPoll(ctx, hc, base+"/poll"+wireclient.Query(newer(at, after), scheduleChannel)+"&wait=4m")
		}), nil
	case sessionSSE.name:
		return wireclient.SSESession(ctx, hc, base+"/sse", tr.hello(number, after))
	case sessionWS.name:
		h := tr.hello(number, after)
		return wireclient.WS(ctx, hc, base+"/ws", &h)
	}
	return wireclient.NewPollStream(ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
		if tr.spent() {
			return nil, errSpent
		}
		a, err := wireclient.SessionPoll(ctx, hc, base+"/poll?wait=4m", tr.hello(number, newer(at, after)))
		if err == nil && a.Open != nil {
			tr.opened(a.Open)
		}
		return a, err
	}), nil
}

// newer is the position of a poll: that of the answer before, if there was one.
func newer(at map[string]string, after string) string {
	if p, ok := at[scheduleChannel]; ok {
		return p
	}
	return after
}

func (tr *traveller) hello(line uint64, after string) wireclient.Hello {
	tr.run.mu.Lock()
	defer tr.run.mu.Unlock()
	h := wireclient.HelloFor(after, scheduleChannel)
	h.Token, h.Line = tr.session.token, line
	return h
}

// errSpent ends a loop of polls that are answered with nothing.
var errSpent = errors.New("too many polls")

func (tr *traveller) spent() bool {
	tr.run.mu.Lock()
	defer tr.run.mu.Unlock()
	tr.taken++
	return tr.taken > maxTaken
}

func (tr *traveller) opened(o *wireclient.Open) {
	tr.run.mu.Lock()
	defer tr.run.mu.Unlock()
	if o.Token != "" {
		tr.session.token = o.Token
	}
}

// read takes what a line brings until it ends.
func (tr *traveller) read(line *travelLine, stream wireclient.Stream) {
	for {
		it, err := stream.Next()
		if err != nil {
			return
		}
		if hold := line.hold.Load(); hold != nil {
			<-*hold
		}
		if !tr.take(line, it) {
			return
		}
	}
}

// take notes what came, and reports whether the line goes on.
func (tr *traveller) take(line *travelLine, it wireclient.Item) bool {
	if it.Open != nil {
		tr.opened(it.Open)
	}
	tr.run.mu.Lock()
	defer tr.run.mu.Unlock()
	if tr.taken++; tr.taken > maxTaken {
		return false
	}
	if line.over.Load() {
		return line.form.carrier != "poll" // who asks no more
	}
	e := Entry{By: tr.name}
	switch {
	case it.Event:
		e = handed(it)
		e.By = tr.name
		tr.position = it.Position
	case it.Gap != nil:
		e.What, e.From, e.To, e.Reason = GapTold, it.Gap.From, it.Gap.To, it.Gap.Reason
		tr.position = it.Gap.To
	case it.Opening && it.Position == "":
		return true // a stream that is refused has nothing but its retry (P3.11)
	case it.Opening:
		e.What, e.Position = Opened, it.Position
		tr.position = it.Position
	case it.Close != nil && it.Close.Code == "superseded":
		tr.session = travelSession{}
		return false
	default:
		return it.Close == nil && it.End == nil
	}
	tr.run.note(e)
	return true
}

func (l *travelLine) ended() bool {
	select {
	case <-l.stopped:
		return true
	default:
		return false
	}
}

// abandon has the reader take nothing more of its line, which stays open.
func (tr *traveller) abandon() {
	if tr.line == nil {
		return
	}
	tr.run.mu.Lock()
	tr.line.over.Store(true)
	tr.run.mu.Unlock()
	tr.left, tr.line = append(tr.left, tr.line), nil
}

// leave ends all lines of the reader.
func (tr *traveller) leave() {
	tr.abandon()
	for _, line := range tr.left {
		line.resume()
		line.cancel()
	}
	tr.wire.http.CloseIdleConnections()
	for _, line := range tr.left {
		<-line.stopped
	}
	tr.left = nil
	tr.wire.forget()
}

// close ends all that the reader has.
func (tr *traveller) close() {
	tr.leave()
	tr.wire.close()
}

func (l *travelLine) stall() {
	hold := make(chan struct{})
	l.hold.CompareAndSwap(nil, &hold)
}

func (l *travelLine) resume() {
	if hold := l.hold.Swap(nil); hold != nil {
		close(*hold)
	}
}

// heal ends all that was done to the reader's lines.
func (tr *traveller) heal() {
	tr.wire.disarm()
	if tr.wire.troubled() {
		tr.leave()
	}
	if tr.line != nil {
		tr.line.resume()
	}
}
