package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// A Log holds the events of many channels. Its methods may be called
// concurrently, and all but Watch and Info may block on a disk or a network
// within their context.
//
// A channel needs no creation: it can be read, sought and watched before
// anybody wrote to it, and that creates nothing.
//
// What a log may offer beside is found by assertion: [History], [Shrinker],
// [Measured], [Itemized]. A log that wraps another, as struct{ eventlog.Log } does,
// hides these unless it has them itself.
type Log interface {
	// Append adds a batch to a channel, all of it or nothing, and returns the
	// position of its last event. When it returns without an error, the events
	// are as durable as the log promises, and readable.
	//
	// If the batch names a producer whose number was appended before,
	// duplicate is true, nothing is appended, and last is what it was then.
	//
	// Errors: [*Invalid], [ErrStale], [ErrBusy], [*Expectation]: nothing was
	// appended. [ErrUnavailable]: it may or may not have been.
	Append(ctx context.Context, ch Channel, b Batch) (last Position, duplicate bool, err error)

	// Seek returns the position that a start stands for now. Reading after it
	// gives what the start asks for. Errors: [*Invalid], [ErrUnavailable].
	Seek(ctx context.Context, ch Channel, s Start) (Position, error)

	// Read returns the events after a position, oldest first, a page at
	// a time. An empty page whose Next differs from after moves a reader on
	// without an event.
	//
	// Errors: [*Lost] if the position has no place in the history that is
	// still there, [ErrUnavailable] if that can't be said now, [*Invalid].
	Read(ctx context.Context, ch Channel, after Position, limit Limit) (Page, error)

	// Watch has wake called after each change that a reader of the channel may
	// want to see: an append, or a Next that moved without one. Calls may come
	// early, merged, or for nothing, but are never missing for long. wake is
	// called without a lock held, must not block, and may still be running or
	// run once more when stop has returned. Watch and stop themselves never
	// block: an engine calls them with its lock held.
	Watch(ch Channel, wake func()) (stop func())

	// Info tells what the log promises.
	Info() Info

	// Close frees what the log holds. What is called later fails with
	// [ErrUnavailable].
	Close() error
}

// Info is what a log promises to those who use it.
type Info struct {
	// ProducersRemembered is how long at least a producer's last number is
	// remembered after its last append. A batch repeated within that time is
	// appended once.
	ProducersRemembered time.Duration
	// MaxData is the most bytes of data that one message may have.
	MaxData int
}

// A Batch is what one Append adds.
type Batch struct {
	// Messages are appended in order, next to each other. At least one.
	Messages []Message
	// Producer makes the append idempotent; the zero value does not.
	Producer Producer
	// Expect, if set, is the position the channel's head must have, else the
	// append fails with [*Expectation]. In a channel that nobody wrote yet each
	// exact place before the first event will do.
	Expect *Position
}

// MaxBatch is the most messages in a batch.
const MaxBatch = 1000

// Check reports with an [*Invalid] whether no log would take b. maxData is as
// in [Message.Check].
func (b *Batch) Check(maxData int) error {
	if len(b.Messages) == 0 || len(b.Messages) > MaxBatch {
		return &Invalid{Field: "messages", Problem: fmt.Sprintf("has %d messages, not 1 to %d", len(b.Messages), MaxBatch)}
	}
	if p := b.Producer; p != (Producer{}) {
		if p.ID == "" || len(p.ID) > MaxProducerID || len(p.Owner) > MaxProducerID || p.Seq == 0 {
			return &Invalid{Field: "producer", Problem: fmt.Sprintf("needs an id of 1 to %d bytes and a number from 1", MaxProducerID)}
		}
	}
	for i := range b.Messages {
		if err := b.Messages[i].Check(maxData); err != nil {
			return err
		}
	}
	return nil
}

// MaxProducerID is the most bytes of a producer's id, and of its owner.
const MaxProducerID = 1000

// A Producer numbers what it appends. A batch is appended only if its number is
// higher than the producer's last in that channel, which the log checks in the
// step that appends: an equal number is a duplicate and returns the first
// position, a lower one fails with [ErrStale].
type Producer struct {
	// Owner only counts: it bounds how many producers one caller may have
	// remembered. A repeat may name another; the first one named counts.
	Owner string
	// ID identifies the producer within the namespace. It should be hard to
	// guess: who knows it can make its next batch a duplicate.
	ID string
	// Seq is the batch's number, from 1, rising.
	Seq uint64
}

// A Start says where to begin without a position. The zero value is the latest:
// only what comes from now on. At most one of its fields is set.
type Start struct {
	// Earliest begins with the oldest event that is still there.
	Earliest bool
	// Last begins with the last N events, or as many as there are.
	Last int
	// Since begins with the first event that is still there and whose Time is
	// not before this. If there is none, it begins with what comes from now on.
	Since time.Time
}

// Check reports with an [*Invalid] whether no log can seek s: Last is negative,
// or more than one field is set.
func (s Start) Check() error {
	set := 0
	for _, is := range []bool{s.Earliest, s.Last != 0, !s.Since.IsZero()} {
		if is {
			set++
		}
	}
	if s.Last < 0 || set > 1 {
		return &Invalid{Field: "start", Problem: "is not one of: latest, earliest, the last N, since a time"}
	}
	return nil
}

// Limit bounds a page, which holds at least one event if there is any to look at
// that the filter lets through.
type Limit struct {
	// Bytes is how much a page may hold, by [Message.Size]. 0 means 64 KiB.
	Bytes int
	// Events is how many it may hold. 0 means no bound but that of Bytes.
	Events int
	// Scan is how many bytes may be looked at for it, by [Message.Size], also of
	// what the filter leaves out, which moves the position on. A page may then be
	// empty though events that match come later. 0 means 16 times Bytes.
	Scan int
	// Filter says which events are wanted. The zero value wants all.
	Filter Filter
}

// scanFactor is how many times its bound a page looks through.
const scanFactor = 16

// defaultPage is the bound of a page that names none, in bytes.
const defaultPage = 64 << 10

// WithDefaults fills in what is zero. Logs call it; Events stays 0 if it has no
// bound.
func (l Limit) WithDefaults() Limit {
	if l.Bytes <= 0 {
		l.Bytes = defaultPage
	}
	if l.Scan <= 0 {
		l.Scan = math.MaxInt
		if l.Bytes < math.MaxInt/scanFactor {
			l.Scan = l.Bytes * scanFactor
		}
	}
	return l
}

// A Page is what one Read returns.
type Page struct {
	Events []Event
	// Next is where to go on: the position of the last event that was looked
	// at, or the position given if there was none.
	Next Position
	// Head is the channel's last position.
	Head Position
	// Behind estimates the bytes from Next to Head.
	Behind int64
}

// More reports whether there was something after the page when it was read.
func (p *Page) More() bool { return p.Next != p.Head }

// Reason says why events are missing.
type Reason string

const (
	// Trimmed: they are no longer kept.
	Trimmed Reason = "trimmed"
	// Rewritten: the position is of a history that the log has not.
	Rewritten Reason = "rewritten"
	// Skipped: left out by policy.
	Skipped Reason = "skipped"
	// Withheld: the reader's grant begins later.
	Withheld Reason = "withheld"
	// Unencodable: an event that can't be shown.
	Unencodable Reason = "unencodable"
)

// Lost is the error of a read whose position is not in the history that is
// still there. All after From up to and including To is missing to the reader,
// who may go on from To. With Rewritten, To is the head at the check.
type Lost struct {
	From, To Position
	Reason   Reason
}

func (l *Lost) Error() string {
	return fmt.Sprintf("eventlog: lost from %v to %v: %s", l.From, l.To, l.Reason)
}

// Errors of an append that may be good later, or never.
var (
	// ErrStale: the producer's number is lower than its last. Nothing was
	// appended now; whether it was before is unknown.
	ErrStale = errors.New("eventlog: producer's number is lower than its last")
	// ErrBusy: too many producers are remembered for a new one. Nothing was
	// appended.
	ErrBusy = errors.New("eventlog: too many producers are remembered")
)

// ErrUnavailable is wrapped by the errors of a log that can't be asked now. It
// says nothing about what the log holds.
var ErrUnavailable = errors.New("eventlog: unavailable")

// Errors of an append that wrap [ErrUnavailable] and say more. A log that is asked
// for something else may well answer.
var (
	// ErrNotDurable: the batch could not be made as durable as it has to be. It may
	// be read later.
	ErrNotDurable = fmt.Errorf("%w: not as durable as it has to be", ErrUnavailable)
	// ErrFull: there is no room for it.
	ErrFull = fmt.Errorf("%w: there is no room for more", ErrUnavailable)
)

// ErrNotAppended is wrapped, beside [ErrUnavailable], by the error of an append that
// certainly was not done. Without it nobody knows; a batch with a producer may be
// repeated in any case.
var ErrNotAppended = errors.New("eventlog: not appended")

// Expectation is the error of an append whose Expect is not the head.
type Expectation struct {
	Expected, Head Position
}

func (e *Expectation) Error() string {
	return fmt.Sprintf("eventlog: head is %v, not %v as expected", e.Head, e.Expected)
}

// Invalid is the error for what no log takes. Its text is fit for the one who
// sent it.
type Invalid struct {
	Field    string // what is wrong: "channel", "type", "data", …
	Problem  string // what is wrong with it: "is empty"
	TooLarge bool   // the data is over the bound
}

func (i *Invalid) Error() string { return "the " + i.Field + " " + i.Problem }
