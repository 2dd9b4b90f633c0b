package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strconv"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// The model's log keeps little, for a short time.
const (
	modelSteps      = 4000
	modelKeeps      = 12
	modelAge        = time.Hour
	modelGeneration = 6 * time.Hour
)

// A model is what a log should hold: slices. It doesn't know when a log drops
// a name, only when it may, and notices it by the next offset.
type model struct {
	*logCheck
	log      eventlog.Log
	random   *rand.Rand
	channels []*modelChannel
	appended int
}

// A modelChannel is one channel and all who have a position in it.
type modelChannel struct {
	channel eventlog.Channel
	life    int          // how often the name was dropped
	events  []modelEvent // of this life, from offset 1
	cursors []modelCursor
	stop    func() // set while it is watched
	watched time.Time
	wakes   chan struct{}
	repeat  eventlog.Batch // the last with a producer
	first   eventlog.Position
}

type modelEvent struct {
	at   eventlog.Position
	data string
	typ  string
	time time.Time
}

// A modelCursor is a position, and which events of which life come after it.
type modelCursor struct {
	at   eventlog.Position
	life int
	got  time.Time
}

// modelSeed draws the seed of a random model. Broken parts meet one that is
// fixed, so that what it catches is no luck.
var modelSeed = rand.Uint64

func modelHolds(c *logCheck) {
	seed := modelSeed()
	if s, err := strconv.ParseUint(os.Getenv("THROUGHLINE_SEED"), 10, 64); err == nil {
		seed = s
	}
	m := &model{logCheck: c, random: rand.New(rand.NewPCG(seed, 0))}
	defer func() {
		if len(c.failures) > 0 {
			c.errorf("run again with THROUGHLINE_SEED=%d", seed)
		}
	}()
	m.log = c.open(LogSetup{
		Retention:         eventlog.Retention{Events: modelKeeps, Age: modelAge},
		Generation:        modelGeneration,
		RememberProducers: modelAge,
	})
	for i := range 4 {
		m.channels = append(m.channels, &modelChannel{
			channel: eventlog.Channel{Namespace: strconv.Itoa(i % 2), Name: strconv.Itoa(i / 2)},
			wakes:   make(chan struct{}, 1),
		})
	}
	for range modelSteps {
		m.step(m.channels[m.random.IntN(len(m.channels))])
	}
	for _, ch := range m.channels {
		if ch.stop != nil {
			ch.stop()
		}
	}
}

func (m *model) step(ch *modelChannel) {
	switch p := m.random.IntN(100); {
	case p < 30:
		m.appendSome(ch)
	case p < 35:
		m.appendAgain(ch)
	case p < 75 && len(ch.cursors) > 0:
		m.readOn(ch, m.random.IntN(len(ch.cursors)))
	case p < 85:
		m.seekSome(ch)
	case p < 90:
		m.forge(ch)
	case p < 93:
		m.toggleWatch(ch)
	case p < 99:
		m.pass(m.log, time.Duration(m.random.Int64N(int64(modelAge/2))))
	default: // long enough for names to go
		m.pass(m.log, time.Duration(m.random.Int64N(int64(4*modelGeneration))))
	}
}

// mayBeDropped reports whether the log may have forgotten the channel's name.
func (ch *modelChannel) mayBeDropped() bool {
	if len(ch.events) == 0 {
		return false
	}
	silent := time.Since(ch.events[len(ch.events)-1].time)
	// One that began to be watched lately may have been dropped before.
	unwatched := ch.stop == nil || time.Since(ch.watched) < silent-modelGeneration
	return silent >= modelGeneration && unwatched
}

// dropped begins the channel's next life.
func (m *model) dropped(ch *modelChannel, seen string) {
	if !ch.mayBeDropped() {
		m.fatalf("%v: %s, though the name may not have been dropped: %d events, watched %v",
			ch.channel, seen, len(ch.events), ch.stop != nil)
	}
	ch.life++
	ch.events = nil
}

// gone returns how many of the channel's events may be gone.
func (ch *modelChannel) gone() int {
	gone := max(0, len(ch.events)-modelKeeps)
	for gone < len(ch.events) && time.Since(ch.events[gone].time) >= modelAge {
		gone++
	}
	return gone
}

// since returns how many of the channel's events are from before a time.
func (ch *modelChannel) since(t time.Time) int {
	return sort.Search(len(ch.events), func(i int) bool { return !ch.events[i].time.Before(t) })
}

func (m *model) appendSome(ch *modelChannel) {
	batch := eventlog.Batch{}
	for range 1 + m.random.IntN(3) {
		m.appended++
		message := text(fmt.Sprint(m.appended))[0]
		message.Type = []string{"a", "b", "message"}[m.random.IntN(3)]
		batch.Messages = append(batch.Messages, message)
	}
	if m.random.IntN(3) == 0 {
		batch.Producer = eventlog.Producer{ID: fmt.Sprint(m.random.IntN(20)), Seq: uint64(m.appended)}
	}
	last := m.appendBatch(m.log, ch.channel, batch)
	n := uint64(len(batch.Messages))
	if last.Offset == n && len(ch.events) > 0 {
		m.dropped(ch, "offsets begin again")
	}
	if last.Offset != uint64(len(ch.events))+n {
		m.fatalf("%v: %d events after %d end at %v", ch.channel, n, len(ch.events), last)
	}
	for i, message := range batch.Messages {
		// Its mark is known when it is read, but for the last.
		e := modelEvent{data: string(message.Data), typ: message.Type, time: time.Now()}
		if e.at.Offset = last.Offset - n + 1 + uint64(i); e.at.Offset == last.Offset {
			e.at = last
		}
		ch.events = append(ch.events, e)
	}
	if batch.Producer.Seq > 0 {
		ch.repeat, ch.first = batch, last
	}
	m.keep(ch, last)
	m.woken(ch)
}

// woken checks that whoever watches was told of an append.
func (m *model) woken(ch *modelChannel) {
	if ch.stop == nil {
		return
	}
	if !within(time.Minute, ch.wakes) {
		m.fatalf("%v: no wake within a minute of an append", ch.channel)
	}
}

// appendAgain repeats a batch that the log must remember.
func (m *model) appendAgain(ch *modelChannel) {
	end := int(ch.first.Offset)
	if ch.repeat.Producer.Seq == 0 || end > len(ch.events) || ch.events[end-1].at != ch.first ||
		time.Since(ch.events[end-1].time) >= modelAge {
		return
	}
	at, duplicate, err := m.log.Append(m.ctx, ch.channel, ch.repeat)
	// Its producer may have gone on in a later batch, but then that is ch.repeat.
	if err != nil || !duplicate || at != ch.first {
		m.fatalf("%v: a repeat of %+v: %v, duplicate %v, error %v, not %v", ch.channel, ch.repeat.Producer, at, duplicate, err, ch.first)
	}
}

func (m *model) toggleWatch(ch *modelChannel) {
	if ch.stop != nil {
		ch.stop()
		ch.stop = nil
		return
	}
	ch.watched = time.Now()
	ch.stop = m.log.Watch(ch.channel, func() {
		select {
		case ch.wakes <- struct{}{}:
		default:
		}
	})
}

// keep adds a cursor, in the place of another if there are many.
func (m *model) keep(ch *modelChannel, at eventlog.Position) {
	cursor := modelCursor{at: at, life: ch.life, got: time.Now()}
	if len(ch.cursors) < 40 {
		ch.cursors = append(ch.cursors, cursor)
	} else {
		ch.cursors[m.random.IntN(len(ch.cursors))] = cursor
	}
}

func (m *model) seekSome(ch *modelChannel) {
	since := time.Now().Add(time.Minute - time.Duration(m.random.Int64N(int64(2*modelAge))))
	start := []eventlog.Start{{}, {Earliest: true}, {Last: 1 + m.random.IntN(modelKeeps)}, {Since: since}}[m.random.IntN(4)]
	at := m.seek(m.log, ch.channel, start)
	if at.Offset == 0 && len(ch.events) > 0 && (ch.gone() > 0 || start == eventlog.Start{}) {
		m.dropped(ch, fmt.Sprintf("%+v is %v", start, at))
	}
	head, gone := len(ch.events), ch.gone()
	low, high := head, head
	switch {
	case start.Earliest:
		low, high = 0, gone // a log may keep more
	case start.Last > 0:
		low, high = head-start.Last, max(gone, head-start.Last)
	case !start.Since.IsZero(): // a log may keep times to the second
		low, high = ch.since(since), max(gone, ch.since(since.Add(time.Second)))
	}
	if int(at.Offset) < low || int(at.Offset) > high {
		m.fatalf("%v: %+v is %v, with %d events of which %d may be gone", ch.channel, start, at, head, gone)
	}
	m.keep(ch, at)
}

// forge reads after a position that never was.
func (m *model) forge(ch *modelChannel) {
	at := eventlog.Position{Offset: m.random.Uint64N(uint64(len(ch.events)) + 3), Mark: 1 + m.random.Uint64N(1<<eventlog.MarkBits-1)}
	page, err := m.log.Read(m.ctx, ch.channel, at, eventlog.Limit{})
	var lost *eventlog.Lost
	if !errors.As(err, &lost) || lost.From != at {
		m.fatalf("%v: after a forged position, %v: %d events, error %v", ch.channel, at, len(page.Events), err)
	}
}

// readOn reads one page from a cursor and moves it.
func (m *model) readOn(ch *modelChannel, i int) {
	cursor := ch.cursors[i]
	limit := eventlog.Limit{Bytes: []int{0, 1, 600}[m.random.IntN(3)]}
	if m.random.IntN(3) == 0 {
		limit.Filter.Types = []string{"a"}
	}
	page, err := m.log.Read(m.ctx, ch.channel, cursor.at, limit)
	var lost *eventlog.Lost
	switch {
	case errors.As(err, &lost):
		m.checkLost(ch, cursor, lost)
		cursor.at, cursor.life = lost.To, ch.life
	case err != nil:
		m.fatalf("%v: Read after %v: %v", ch.channel, cursor.at, err)
	default:
		m.checkPage(ch, cursor, page, limit)
		cursor.at = page.Next
	}
	cursor.got = time.Now()
	if m.random.IntN(4) > 0 { // else it stays, and gets old
		ch.cursors[i] = cursor
	}
}

// checkLost checks that a loss is one, and leads on to what is there.
func (m *model) checkLost(ch *modelChannel, cursor modelCursor, lost *eventlog.Lost) {
	if lost.From != cursor.at {
		m.fatalf("%v: lost from %v, not from the cursor at %v", ch.channel, lost.From, cursor.at)
	}
	if lost.Reason == eventlog.Rewritten && lost.To.Offset == 0 && len(ch.events) > 0 {
		m.dropped(ch, lost.Error())
	}
	// The place before the first event may have moved on.
	placeGone := cursor.at.Offset == 0 && time.Since(cursor.got) >= modelGeneration
	current := cursor.life == ch.life && !placeGone
	// A position of another life that is below what is kept may be called
	// trimmed, as its mark can't be checked any more: it is lost either way.
	switch {
	case lost.Reason == eventlog.Rewritten && (current || int(lost.To.Offset) != len(ch.events)),
		lost.Reason == eventlog.Trimmed && (lost.To.Offset <= cursor.at.Offset || int(lost.To.Offset) > ch.gone()),
		lost.Reason != eventlog.Rewritten && lost.Reason != eventlog.Trimmed:
		m.fatalf("%v: the cursor of life %d of %d, with %d events of which %d may be gone, hears %v",
			ch.channel, cursor.life, ch.life, len(ch.events), ch.gone(), lost)
	}
}

// checkPage checks that a page is what comes after a cursor: all, once, in order.
func (m *model) checkPage(ch *modelChannel, cursor modelCursor, page eventlog.Page, limit eventlog.Limit) {
	if cursor.life != ch.life || int(page.Head.Offset) != len(ch.events) {
		m.fatalf("%v: after %v of life %d a page with the head %v, where life %d has %d events",
			ch.channel, cursor.at, cursor.life, page.Head, ch.life, len(ch.events))
	}
	if page.Next.Offset < cursor.at.Offset || page.Next.Offset > page.Head.Offset {
		m.fatalf("%v: Next is %v after %v, the head %v", ch.channel, page.Next, cursor.at, page.Head)
	}
	events := page.Events
	for at := cursor.at.Offset; at < page.Next.Offset; at++ {
		want := &ch.events[at]
		if len(limit.Filter.Types) > 0 && want.typ != limit.Filter.Types[0] {
			continue
		}
		if len(events) == 0 || events[0].At.Offset != want.at.Offset || string(events[0].Data) != want.data ||
			want.at.Mark != 0 && events[0].At != want.at {
			m.fatalf("%v: after %v event %d is missing or another: %v", ch.channel, cursor.at, at+1, data(page.Events))
		}
		want.at, events = events[0].At, events[1:]
	}
	if len(events) > 0 || len(page.Events) == 0 && len(limit.Filter.Types) == 0 && page.Next.Offset != page.Head.Offset {
		m.fatalf("%v: after %v up to %v: %d events that should not be there, or none", ch.channel, cursor.at, page.Next, len(events))
	}
}
