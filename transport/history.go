package transport

import (
	"net/url"
	"strconv"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A HistoryQuery asks for a page of a channel's history (PROTOCOL §12).
type HistoryQuery struct {
	ID      uint64 // of a frame: its answer has the same
	Channel string
	Range   eventlog.Range
	// Events is how many are wanted at most. 0: as many as the server gives.
	Events int
	Filter *eventlog.Filter // nil: all
}

// A HistoryPage answers a HistoryQuery.
type HistoryPage struct {
	// Run has the events, in the order that was asked for, as all get it who ask
	// for the same ones.
	Run               *Run
	Next, First, Head eventlog.Position
	Done              bool
	// Lost, if not nil, is what lies before the events and won't come.
	Lost *eventlog.Lost
	// Fixed: who asks again is answered the same, whatever happens meanwhile.
	Fixed bool
}

// wireHistory is a query as it crosses the wire.
type wireHistory struct {
	ID      uint64       `json:"id"`
	Channel string       `json:"channel"`
	After   string       `json:"after"`
	Until   string       `json:"until"`
	Since   *int64       `json:"since"`
	Before  *int64       `json:"before"`
	Order   string       `json:"order"`
	Last    int          `json:"last"`
	Limit   int          `json:"limit"`
	Filter  filterMember `json:"filter"`
}

// ParseHistory reads the query of a request for history. The error is
// a *Refusal.
func ParseHistory(query url.Values) (HistoryQuery, error) {
	if n := len(query["channel"]); n != 1 {
		if n > 1 {
			return HistoryQuery{}, Refuse(CodeTooManyChannels, "history is of one channel, not of %d", n)
		}
		return HistoryQuery{}, Refuse(CodeBadRequest, "say whose history to read: ?channel=NAME")
	}
	w := wireHistory{
		Channel: query.Get("channel"), After: query.Get("after"), Until: query.Get("until"), Order: query.Get("order"),
	}
	w.Filter.v = filterOf(query)
	for name, number := range map[string]*int{"last": &w.Last, "limit": &w.Limit} {
		if err := wholeNumber(query, name, func(n int64) { *number = int(min(n, maxLast)) }); err != nil {
			return HistoryQuery{}, err
		}
	}
	for name, ms := range map[string]**int64{"since": &w.Since, "before": &w.Before} {
		if err := wholeNumber(query, name, func(n int64) { *ms = &n }); err != nil {
			return HistoryQuery{}, err
		}
	}
	return w.parse()
}

func countFromOne() error { return Refuse(CodeBadRequest, "limit and last count from 1") }

// wholeNumber takes a number of a query, if it is there.
func wholeNumber(query url.Values, name string, take func(int64)) error {
	if !query.Has(name) {
		return nil
	}
	n, err := strconv.ParseInt(query.Get(name), 10, 64)
	switch {
	case err == nil && n <= 0 && (name == "last" || name == "limit"):
		return countFromOne()
	case err != nil:
		return Refuse(CodeBadRequest, "%s takes a whole number, not %.40q", name, query.Get(name))
	}
	take(n)
	return nil
}

// parse reads a query. The error is a *Refusal.
func (w *wireHistory) parse() (HistoryQuery, error) {
	q := HistoryQuery{ID: w.ID, Channel: w.Channel, Events: w.Limit}
	var err error
	if q.Filter, err = w.Filter.parse(); err != nil {
		return q, err
	}
	for _, bound := range []struct {
		text string
		at   *eventlog.Position
	}{{w.After, &q.Range.After}, {w.Until, &q.Range.Until}} {
		if *bound.at, err = parseBound(bound.text); err != nil {
			return q, err
		}
	}
	for _, bound := range []struct {
		ms *int64
		at *time.Time
	}{{w.Since, &q.Range.Since}, {w.Before, &q.Range.Before}} {
		if *bound.at, err = timeOf(bound.ms); err != nil {
			return q, err
		}
	}
	switch {
	case w.Order != "" && w.Order != "asc" && w.Order != "desc":
		return q, Refuse(CodeBadRequest, "the order is asc or desc, not %.40q", w.Order)
	case w.Limit < 0 || w.Last < 0:
		return q, countFromOne()
	case w.Last > 0 && (w.Limit > 0 || w.Order != ""):
		return q, Refuse(CodeBadRequest, "last=N is limit=N with order=desc, and goes with neither")
	case w.Last > 0:
		q.Events, q.Range.Backwards = w.Last, true
	default:
		q.Range.Backwards = w.Order == "desc"
	}
	if err := q.Range.Check(); err != nil {
		return q, Refuse(CodeBadRequest, "%v", err)
	}
	return q, nil
}

func parseBound(text string) (eventlog.Position, error) {
	if text == "" {
		return eventlog.Position{}, nil
	}
	at, start, err := ParseAfter(text)
	if err == nil && (start != eventlog.Start{} || at.IsZero()) {
		err = Refuse(CodeBadPosition, "history begins and ends at positions or times, not at %.40q: leave it out for the oldest, or the newest", text)
	}
	return at, err
}

// maxTime is the last millisecond of the year 9999, the last that has a text
// everywhere.
const maxTime = 253402300799999

// timeOf reads a time of the wire: milliseconds since 1970.
func timeOf(ms *int64) (time.Time, error) {
	switch {
	case ms == nil:
		return time.Time{}, nil
	case *ms < 0 || *ms > maxTime:
		return time.Time{}, Refuse(CodeBadRequest, "a time is milliseconds since 1970, not %d", *ms)
	}
	return time.UnixMilli(*ms), nil
}

// filterOf is the filter of a query.
func filterOf(query url.Values) *wireFilter {
	return &wireFilter{Types: query["type"], Tags: query["tag"], Keys: query["key"]}
}

// A HistoryCodec writes events as history has them, joined by commas.
type HistoryCodec struct{}

// AppendEvent implements [Codec].
func (HistoryCodec) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	dst = AppendEventJSON(dst, channel, e)
	dst = append(dst[:len(dst)-1], `,"time":`...)
	dst = strconv.AppendInt(dst, e.Time.UnixMilli(), 10)
	return append(dst, '}')
}

// AppendFrame implements [Codec]: there are none among events of the past.
func (HistoryCodec) AppendFrame(dst []byte, _ *Frame) []byte { return dst }

// AppendHistoryJSON appends the members of a page, without braces (PROTOCOL
// P12.2).
func AppendHistoryJSON(dst []byte, p *HistoryPage) []byte {
	dst = append(dst, `"events":[`...)
	dst = append(dst, p.Run.As(HistoryCodec{}).Bytes...)
	return AppendHistoryEnd(dst, p)
}

// AppendHistoryEnd appends what follows the events of a page.
func AppendHistoryEnd(dst []byte, p *HistoryPage) []byte {
	dst = append(dst, `],"next":"`...)
	dst = p.Next.Append(dst)
	dst = append(dst, `","done":`...)
	dst = strconv.AppendBool(dst, p.Done)
	if p.First.Offset > 0 {
		dst = append(dst, `,"trimmed":true`...)
	}
	dst = append(dst, `,"first":"`...)
	dst = p.First.Append(dst)
	dst = append(dst, `","head":"`...)
	dst = p.Head.Append(dst)
	dst = append(dst, '"')
	if p.Lost != nil {
		dst = append(dst, `,"gap":`...)
		dst = appendLost(dst, p.Lost)
	}
	return dst
}
