package conformance

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/transport"
)

// A Transport is what [TestTransport] proves: an adapter, and the far end of
// it.
type Transport struct {
	// Mount returns a handler that serves the transport and attaches what it
	// accepts to an engine. It is called once for each clause.
	Mount func(engine transport.Engine) http.Handler
	// Client opens a line to the handler, hands over what comes, in order, and
	// returns nil when the line ended in good order, the *transport.Refusal if
	// it was refused, or why it broke. It must not read ahead of received by
	// more than a buffer, and return soon when ctx ends.
	Client func(ctx context.Context, hc *http.Client, ask Ask, received func(Received)) error
	// Once: a line is spent after one answer.
	Once bool
	// OneChannel: a line takes no more than one channel.
	OneChannel bool
	// Hijacks: the handler doesn't lend its http.ResponseWriter, and may return
	// while the line lives.
	Hijacks bool
}

// An Ask is what the suite wants a line for.
type Ask struct {
	Channels []string
	After    string        // a position for each channel, or "" for the latest
	Wait     time.Duration // how long the answer may take, for a transport that is spent after one
}

// A Received is one thing that came over a line: an event, a gap, or only
// a position. What a transport's form doesn't show stays empty.
type Received struct {
	Channel  string
	Position string // of an event, or where to go on
	Event    bool
	Type     string
	Data     []byte // the payload, as it was published
	JSON     []byte // in place of Data, if the form shows JSON and text as JSON
	From, To string // of a gap
	Reason   string // of a gap
}

// TestTransport runs every clause of the contract of a transport. Each runs in
// a bubble of testing/synctest, over a network in memory, against an engine
// that the clause scripts.
func TestTransport(t *testing.T, transport Transport) {
	for _, c := range transportClauses {
		t.Run(c.id, func(t *testing.T) {
			if why := c.notFor(transport); why != "" {
				t.Logf("n/a: %s", why)
				return
			}
			if failures := c.try(t, transport); len(failures) > 0 {
				t.Errorf("%s\n  %s", c.text, strings.Join(failures, "\n  "))
			}
		})
	}
}

// transportClauses is the whole suite.
var transportClauses = []transportClause{
	{"T01_Refusal", "MUST: a refused Attach reaches the client with its code, and the handler returns.", all, refusalIsTold},
	{"T02_Opening", "MUST: the client learns the position it goes on after.", all, openingIsTold},
	{"T03_Payloads", "MUST: payloads of every kind arrive unchanged.", all, payloadsArrive},
	{"T04_Order", "MUST: what several Sends hold arrives in order, each thing once.", streams, orderIsKept},
	{"T05_Gap", "MUST: a gap arrives with from, to and reason, before the events after it.", all, gapIsTold},
	{"T06_PositionMoves", "MUST: a run without events, and one that ends with something filtered out, move the position on.", all, positionMoves},
	{"T07_SendBeforeAttachReturns", "MUST: a Send that comes before Attach has returned is carried.", all, sendBeforeAttachReturns},
	{"T08_HandlerWaitsForDone", "MUST: a handler that lends its http.ResponseWriter returns only after Done.", lends, handlerWaitsForDone},
	{"T09_DetachWhenClientLeaves", "MUST: Detach is called when the client has left.", all, detachWhenClientLeaves},
	{"T10_Deadline", "MUST: Send returns with an error by its deadline if the client doesn't read.", streams, deadlineIsKept},
	{"T11_CloseFreesSend", "MUST: Close frees a Send in progress, which returns an error.", streams, closeFreesSend},
	{"T12_CloseAnytime", "MUST: Close may be called twice, by several goroutines, and after the handler returned.", all, closeAnytime},
	{"T13_SendAfterClose", "MUST: a Send after Close returns an error.", all, sendAfterClose},
	{"T14_Goodbye", "MUST: a close frame as the last of a Send, then Done, end the line at the client in good order.", streams, goodbyeEnds},
	{"T15_More", "MUST: Send returns more, but false when the connection is spent.", all, moreIsTrue},
	{"T16_MayWait", "MUST: a client that waits gets frames that may wait together with the news.", once, openingsWait},
	{"T17_WaitEnds", "MUST: when the wait is over the answer is given, without events.", once, waitEnds},
	{"T18_Heartbeat", "MUST: a heartbeat is nothing that the client's application sees.", all, heartbeatIsSilent},
	{"T19_SharedUnchanged", "MUST: what is shared is not changed: a run that many lines get arrives the same.", all, sharedStaysTheSame},
	{"T20_Channels", "MUST: of several channels, each keeps its own positions.", many, channelsKeepPositions},
	{"T21_CutAnywhere", "MUST: cut after any byte, a client that goes on from the last position it was given misses nothing.", all, cutAnywhere},
}

// scope says which transports a clause is for.
type scope uint8

const (
	all scope = iota
	streams
	once
	many
	lends
)

type transportClause struct {
	id, text string
	scope    scope
	run      func(*transportCheck)
}

// notFor returns why a clause does not apply to a transport.
func (c *transportClause) notFor(tr Transport) string {
	switch {
	case c.scope == streams && tr.Once:
		return "the transport is spent after one answer"
	case c.scope == once && !tr.Once:
		return "the transport is not spent after one answer"
	case c.scope == lends && tr.Hijacks:
		return "the handler doesn't lend its http.ResponseWriter"
	case c.scope == many && tr.OneChannel:
		return "the transport takes one channel a line"
	}
	return ""
}

// try runs a clause and returns how it failed.
func (c *transportClause) try(t *testing.T, tr Transport) (failures []string) {
	synctest.Test(t, func(t *testing.T) {
		check := newTransportCheck(t, tr)
		defer func() {
			if r := recover(); r != nil && r != any(endOfCheck) {
				panic(r)
			}
			check.tearDown()
			failures = check.failures
		}()
		c.run(check)
	})
	return failures
}
