package conformance

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A Server is what [TestServer] proves: a program that speaks PROTOCOL.md.
type Server struct {
	// Start starts a server. It is called for each clause, in a bubble of
	// testing/synctest unless TCP is set, and what it starts has to end with
	// Testee.Close.
	Start func(t *testing.T, s ServerSetup) *Testee
	// Lacks is the manifest: what the server doesn't have, each with the reason
	// why. A clause that needs it is not run, and listed as n/a.
	Lacks map[Feature]string
	// Groups (Clause.Group), if there are any, are those that are run; other clauses
	// are n/a.
	Groups []string
	// TCP has the suite serve on 127.0.0.1 and in real time. Clauses that need
	// fake time are n/a then, among them all about presence and slow readers: run
	// the suite without TCP, too.
	TCP bool
	// Through, with TCP, puts something between the suite and the server, such
	// as a proxy, and returns its address ("127.0.0.1:8081").
	Through func(t *testing.T, server string) (address string)
}

// A Feature is something that not every server has.
type Feature string

// What a server may lack.
const (
	PlainSSE         Feature = "plain sse"   // PROTOCOL.md §3
	PlainWS          Feature = "plain ws"    // §4
	PlainPoll        Feature = "plain poll"  // §5
	SessionSSE       Feature = "session sse" // §6, and so the next two
	SessionWS        Feature = "session ws"
	SessionPoll      Feature = "session poll"
	PublishByRequest Feature = "publish"    // §7
	Upstream         Feature = "upstream"   // §9: publishes
	Calls            Feature = "calls"      // §9: calls
	Presence         Feature = "presence"   // §10
	Filters          Feature = "filters"    // P2.9
	HistoryPages     Feature = "history"    // §12
	Retention        Feature = "retention"  // ServerSetup.Keep is obeyed
	Rights           Feature = "rights"     // ServerSetup.Refuse is asked
	Identities       Feature = "identities" // ServerSetup.Subjects is obeyed
	Steering         Feature = "steering"   // the program's own orders: Testee.Subscribe and its like
	Nodes            Feature = "nodes"      // Testee.Another
	Several          Feature = "several"    // Start may be called again, for a server with a history of its own
	Outages          Feature = "outages"    // Testee.Outage
	Lagging          Feature = "lagging"    // Testee.Lag
	MemberInfo       Feature = "info"       // ServerSetup.Info is shown
	Expiry           Feature = "expiry"     // what shows who asks may end: ServerSetup.Subjects
	Eviction         Feature = "eviction"   // P8.4: ServerSetup.EvictFor
	BrokenCarrier    Feature = "broken"     // P8.5: ServerSetup.BrokenLines
)

// ServerSetup is what a clause needs of the server that is started for it. What
// is zero is up to the server, but then it takes at least 100 channels a line
// and keeps at least 1000 events of a channel.
type ServerSetup struct {
	Heartbeat    time.Duration // between heartbeats of a silent line
	WriteTimeout time.Duration // of a client that reads nothing
	PeerTimeout  time.Duration // of a client that answers no ping
	MaxWait      time.Duration // of a poll
	EvictFor     time.Duration // how long a slow client is kept out the first time
	Remember     time.Duration // of producers
	CallTimeout  time.Duration // of a call's handler
	Grace        time.Duration // of presence, after a line's end
	Interval     time.Duration // of presence, between looks

	Keep         int // events of each channel, at least; and not twice as many
	MaxLag       int // events that a client may be behind
	MaxChannels  int // of a line
	MaxFrame     int // bytes, from a client
	MaxMessage   int // bytes of data
	MaxCalls     int // of a session
	MaxProducers int // of a channel
	MaxMembers   int // that presence names

	// Refuse says which code an action is refused with: "" for none, "busy" for
	// one that is to be tried later, "full 1500" for a code of class later and the
	// milliseconds after which. The actions are "subscribe", "history",
	// "publish", "call" and "presence". Nil allows everything.
	Refuse func(action, subject, channel string) (code string)
	// Subjects has the server know who asks by "Authorization: Bearer NAME",
	// whose subject is NAME, and refuse who doesn't say. If it is "NAME@MS", they
	// end at that time, in Unix milliseconds (Expiry); one with anything else
	// behind the @ is nobody.
	Subjects bool
	// Answer handles calls. What it answers is of the kind of the call's data.
	// Its error is the program's code; "failed" is an error with a text that
	// holds the word "secret".
	Answer func(ctx context.Context, name, key string, data []byte) (answer []byte, code string)
	// Info is what the program shows of a subject beside it in presence, as JSON;
	// it is asked for each line, whose carrier is "sse", "ws" or "poll".
	Info func(subject, carrier string) []byte

	KeepFor time.Duration // each event
	Forget  time.Duration // at the earliest, the name of a channel that holds nothing

	BrokenLines int // WebSockets of a session that break in a row, until they are refused to it
}

// A Testee is a server that runs.
type Testee struct {
	// Handler serves everything under Base.
	Handler http.Handler
	// Base is a path, "/realtime"; "" is the root. It has no slash at its end.
	Base string
	// Publish publishes as the program itself does.
	Publish func(ctx context.Context, channel string, m eventlog.Message) (position string, err error)
	// Subscribe, Unsubscribe and Disconnect are the program's orders about the
	// sessions of a subject (Steering).
	Subscribe, Unsubscribe func(ctx context.Context, subject, channel string) error
	Disconnect             func(ctx context.Context, subject string) error
	// Another returns one more server over the same log and store: another node,
	// or this one started anew (Nodes).
	Another func() *Testee
	// Shutdown ends it in good order, Close at once. Both may be called, Close
	// several times.
	Shutdown func(ctx context.Context) error
	Close    func()
	// Outage has the log not answer until it is called with false. What is
	// appended meanwhile fails, and may be in the log or not (Outages).
	Outage func(yes bool)
	// Lag has this node, as if it followed a log elsewhere, show nothing of
	// a channel that is appended from now on, until catchUp is called (Lagging).
	Lag func(channel string) (catchUp func())
}

// TestServer runs every clause of PROTOCOL.md that a server can be held to. Each
// runs in a bubble of fake time and over a network in memory, unless
// Server.TCP is set, and once for each form of reading that it is about.
//
// The bounds and times of a ServerSetup are compulsory where they aren't zero: a
// server that ignores them fails clauses that speak of them.
func TestServer(t *testing.T, s Server) {
	t.Helper() // as all below: where it is called is all that the caller knows
	s.declared(t)
	for _, c := range slices.Concat(serverClauses...) {
		t.Run(c.id, func(t *testing.T) {
			t.Helper()
			if why := c.notFor(s); why != "" {
				t.Logf("n/a: %s", why)
				return
			}
			for _, f := range c.forms() {
				t.Run(f.name, func(t *testing.T) {
					t.Helper()
					if why := f.lacking(s); why != "" {
						t.Logf("n/a: %s", why)
						return
					}
					if failures := c.try(t, s, f); len(failures) > 0 {
						t.Errorf("%s%s\n  %s", c.text, c.setup.inWords(), strings.Join(failures, "\n  "))
					}
				})
			}
		})
	}
}

// inWords names what a clause asks of the server, with its values.
func (s ServerSetup) inWords() (words string) {
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		switch {
		case field.IsZero():
		case field.Kind() == reflect.Func:
			words += fmt.Sprintf(", %s set", name)
		default:
			words += fmt.Sprintf(", %s is %v", name, field)
		}
	}
	if words == "" {
		return ""
	}
	return "\n  ServerSetup: " + words[2:]
}

// A serverClause is one sentence of PROTOCOL.md, or several, and how to test
// it.
type serverClause struct {
	id, group, text string
	over            []form    // the forms of reading it is run over; one without a name: once
	needs           []Feature // beside those of the forms
	clock           clock
	setup           ServerSetup
	run             func(*serverCheck)
}

// clock says whether a clause needs fake time.
type clock uint8

const (
	fake     clock = iota // it waits
	anyClock              // it doesn't, or not for long
)

func (c *serverClause) forms() []form {
	if len(c.over) == 0 {
		return []form{{name: "once"}}
	}
	return c.over
}

// notFor returns why a clause does not apply to a server.
func (c *serverClause) notFor(s Server) string {
	if s.TCP && c.clock == fake {
		return "it needs fake time"
	}
	if len(s.Groups) > 0 && !slices.Contains(s.Groups, c.group) {
		return "the group " + c.group + " is not asked for"
	}
	for _, f := range c.needs {
		if why, lacks := s.Lacks[f]; lacks {
			return string(f) + ": " + why
		}
	}
	return ""
}

// try runs a clause over a form and returns how it failed.
func (c *serverClause) try(t *testing.T, s Server, f form) (failures []string) {
	run := func(t *testing.T) {
		check := newServerCheck(t, s, c.setup, f)
		defer func() {
			r := recover()
			check.tearDown()
			if r != nil && r != any(endOfCheck) {
				panic(r)
			}
			failures = check.failures
		}()
		c.run(check)
	}
	if s.TCP {
		run(t)
	} else {
		synctest.Test(t, run)
	}
	return failures
}

// serverClauses is the whole suite, by the sections of PROTOCOL.md.
var serverClauses = [][]serverClause{
	deliveryClauses,
	sessionClauses,
	plainClauses,
	publishClauses,
	upstreamClauses,
	presenceClauses,
	filterClauses,
	pastClauses,
	troubleClauses,
	evictedClauses,
}
