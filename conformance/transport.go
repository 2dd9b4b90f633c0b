package conformance

import (
	"context"
	"net/http"
	"strings"
	"testing"
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
	// more than a buffer, and return soon when ctx ends. All that hc asks for
	// reaches the handler, whatever the address: "http://127.0.0.1:1/".
	Client func(ctx context.Context, hc *http.Client, ask Ask, received func(Received)) error
	// Once: a line is spent after one answer.
	Once bool
	// Plain: the form shows no frames of the session protocol (PROTOCOL.md,
	// section 6), but for openings and gaps, as that of an EventSource.
	Plain bool
	// Up: a line carries frames of the client, too: then Client says what
	// comes through Ask.Up.
	Up bool
	// Proves: the Conn is a [transport.Prover].
	Proves bool
	// MaxFrame is the most bytes of such a frame that the adapter takes. 0 means
	// 64 KiB, the protocol's default.
	MaxFrame int
	// OneChannel: a line takes no more than one channel.
	OneChannel bool
	// Hijacks: the handler doesn't lend its http.ResponseWriter, and may return
	// while the line lives.
	Hijacks bool
	// TCP has the suite serve on 127.0.0.1 and in real time: what takes minutes
	// in fake time is cut down to fractions of a second then.
	TCP bool
}

// An Ask is what the suite wants a line for.
type Ask struct {
	Channels []string
	After    string        // a position for each channel, or "" for the latest
	Wait     time.Duration // how long the answer may take, for a transport that is spent after one

	// Up brings the frames that the client says after its hello, each as the JSON
	// of PROTOCOL.md, and some wrong on purpose. It closes when there are no
	// more, at the latest when ctx ends. It is nil if there are none, and always
	// if Transport.Up is not set.
	Up <-chan []byte
}

// A Received is one thing that came over a line: an event, a gap, another frame
// of the session protocol, or only a position. What a transport's form doesn't
// show stays empty. [ParseReceived] makes one of the protocol's JSON.
type Received struct {
	Channel  string
	Position string // of an event, or where to go on
	Event    bool
	Type     string
	Data     []byte // the payload, as it was published
	JSON     []byte // in place of Data, if the form shows JSON and text as JSON
	From, To string // of a gap
	Reason   string // of a gap

	// Frame is any frame but an opening and a gap: an open, a heartbeat, an end,
	// a goodbye, an answer, presence, a refresh. Else it is nil.
	Frame *transport.Frame
}

// TestTransport runs every clause of the contract of a transport, against an
// engine that the clause scripts. Each runs in a bubble of testing/synctest and
// over a network in memory, unless Transport.TCP is set.
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
	{"T01_Refusal", "handshake", "MUST: a refused Attach reaches the client with its code, and the handler returns.", all, refusalIsTold},
	{"T02_Opening", "positions", "MUST: the client learns the position it goes on after.", all, openingIsTold},
	{"T03_Payloads", "payloads", "MUST: payloads of every kind arrive unchanged.", all, payloadsArrive},
	{"T04_Order", "order", "MUST: what several Sends hold arrives in order, each thing once.", streams, orderIsKept},
	{"T05_Gap", "gaps", "MUST: a gap arrives with from, to and reason, before the events after it.", all, gapIsTold},
	{"T06_PositionMoves", "positions", "MUST: a run without events, and one that ends with something filtered out, move the position on.", all, positionMoves},
	{"T07_SendBeforeAttachReturns", "handshake", "MUST: a Send that comes before Attach has returned is carried.", all, sendBeforeAttachReturns},
	{"T08_HandlerWaitsForDone", "lifetime", "MUST: a handler that lends its http.ResponseWriter returns only after Done.", lends, handlerWaitsForDone},
	{"T09_DetachWhenClientLeaves", "lifetime", "MUST: Detach is called when the client has left, and not before.", all, detachWhenClientLeaves},
	{"T10_Deadline", "slow readers", "MUST: Send returns with an error by its deadline if the client doesn't read.", streams, deadlineIsKept},
	{"T11_CloseFreesSend", "slow readers", "MUST: Close frees a Send in progress, which returns an error.", streams, closeFreesSend},
	{"T12_CloseAnytime", "close", "MUST: Close may be called twice, by several goroutines, and after the handler returned.", all, closeAnytime},
	{"T13_SendAfterClose", "close", "MUST: a Send after Close returns an error.", all, sendAfterClose},
	{"T14_Goodbye", "close", "MUST: a close frame as the last of a Send, then Done, end the line at the client in good order.", streams, goodbyeEnds},
	{"T15_More", "answers", "MUST: Send returns more, but false when the connection is spent.", all, moreIsTrue},
	{"T16_MayWait", "answers", "MUST: a client that waits gets frames that may wait together with the news.", once, openingsWait},
	{"T17_WaitEnds", "answers", "MUST: when the wait is over the answer is given, without events.", once, waitEnds},
	{"T18_Heartbeat", "heartbeats", "MUST: a heartbeat is nothing that the client's application sees.", all, heartbeatIsSilent},
	{"T19_SharedUnchanged", "payloads", "MUST: what is shared is not changed: a run that many lines get arrives the same.", all, sharedStaysTheSame},
	{"T20_Channels", "positions", "MUST: of several channels, each keeps its own positions.", many, channelsKeepPositions},
	{"T21_CutAnywhere", "resume", "MUST: cut after any byte, a client that goes on from the last position it was given misses nothing.", all, cutAnywhere},
	{"T22_Open", "frames", "MUST: the answer to a hello arrives whole, before anything about a channel.", framed, openIsWhole},
	{"T23_HeartbeatCrosses", "heartbeats", "MUST: a heartbeat crosses the wire at once, and as a frame if the form shows frames.", streams, heartbeatCrosses},
	{"T24_End", "frames", "MUST: the end of a channel arrives with its code, class, delay and message, and the line goes on.", framed, endIsTold},
	{"T25_GoodbyeWords", "close", "MUST: a goodbye arrives with its code, class, delay and message, and is the last.", framed, goodbyeIsWhole},
	{"T26_Answers", "upstream", "MUST: answers to publishes and calls arrive whole, in order with the events.", framed | streams | up, answersArrive},
	{"T27_PresenceAndRefresh", "frames", "MUST: presence, and the question for fresh credentials, arrive whole.", framed, presenceArrives},
	{"T28_Hello", "handshake", "MUST: Attach is told what the client asks for: the version, and its channels in order with their positions.", all, helloIsTold},
	{"T29_Name", "handshake", "MUST: Attach is told the transport's name, in Peer.Transport.", all, nameIsTold},
	{"T30_Up", "upstream", "MUST: frames of the client, also those right behind its hello, are given to Receive unchanged and in order.", streams | up, framesComeUp},
	{"T31_UpDuringSend", "upstream", "MUST: frames of the client come up while a Send waits for it to read.", streams | up, framesComeUpDuringSend},
	{"T32_TooLarge", "upstream", "MUST: a frame of the client of the largest size is taken, and for one a byte longer Receive gets a close frame with too_large.", framed | streams | up, tooLargeIsRefused},
	{"T33_Malformed", "upstream", "MUST: for a frame that can't be read, or a second hello, Receive gets a close frame with bad_request, and the goodbye is carried.", framed | streams | up, malformedIsRefused},
	{"T34_ReceiveRefuses", "upstream", "MUST: after an error of Receive it gets no other frame, and the goodbye that follows is carried.", framed | streams | up, receiveRefuses},
	{"T35_LateClose", "connections", "MUST: a Close after the handler returned harms neither the connection nor the next request on it.", lends, lateCloseHarmsNobody},
	{"T36_DeadlinePasses", "slow readers", "MUST: the deadline of a Send that has returned ends nothing when it passes.", streams, deadlinePasses},
	{"T37_NextRequest", "connections", "MUST: a request on a connection that was kept is served, also much later.", lends, nextRequestIsServed},
	{"T38_Proof", "slow readers", "MUST: a Conn that is a Prover says so in Transport.Proves; its Prove returns nil, page after page, when the client has read.", streams, readingIsProved},
	{"T39_NoProof", "slow readers", "MUST: Prove returns with an error by its deadline, and not before, if the client doesn't read.", provers, stallIsNoProof},
	{"T40_CloseFreesProve", "slow readers", "MUST: Close frees a Prove in progress, which returns an error.", provers, closeFreesProve},
}

// scope says which transports a clause is for: those that have all of it.
type scope uint8

const all scope = 0

const (
	streams scope = 1 << iota
	once
	many
	lends
	framed
	up
	provers
)

type transportClause struct {
	id, group, text string
	scope           scope
	run             func(*transportCheck)
}

// notFor returns why a clause does not apply to a transport.
func (c *transportClause) notFor(tr Transport) string {
	for _, why := range []struct {
		scope   scope
		lacking bool
		words   string
	}{
		{streams, tr.Once, "the transport is spent after one answer"},
		{once, !tr.Once, "the transport is not spent after one answer"},
		{lends, tr.Hijacks, "the handler doesn't lend its http.ResponseWriter"},
		{many, tr.OneChannel, "the transport takes one channel a line"},
		{framed, tr.Plain, "the form shows no frames of the session protocol"},
		{up, !tr.Up, "a line carries no frames of the client"},
		{provers, !tr.Proves, "the Conn is no transport.Prover"},
	} {
		if c.scope&why.scope != 0 && why.lacking {
			return why.words
		}
	}
	return ""
}

// try runs a clause and returns how it failed.
func (c *transportClause) try(t *testing.T, tr Transport) (failures []string) {
	return c.tryWith(t, tr, 1)
}

// tryWith cuts after each so many bytes only.
func (c *transportClause) tryWith(t *testing.T, tr Transport, cutEach int) (failures []string) {
	var check *transportCheck
	run := func(t *testing.T) {
		check = newTransportCheck(t, tr)
		check.cutEach = cutEach
		defer func() {
			if r := recover(); r != nil && r != any(endOfCheck) {
				panic(r)
			}
			check.tearDown()
		}()
		c.run(check)
	}
	if tr.TCP {
		run(t)
	} else if left := inBubble(t, run); left != "" {
		check.errorf("%s", left)
	}
	return check.failures
}
