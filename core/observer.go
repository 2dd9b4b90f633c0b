package core

import (
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A Source is what many lines have in common.
type Source struct {
	Namespace string
	Transport string
}

// An Observer is told what happens, for metrics. Its methods are called from
// many goroutines, on the path of delivery, and must not block. Namespaces,
// codes and reasons may be anything that programs and their clients come up with.
type Observer interface {
	// Opened and Ended frame the life of a line.
	Opened(of Source)
	Ended(of Source, why transport.Reason)
	// Delivered: a Send with events returned without an error.
	Delivered(of Source, events int)
	// Sent: the same for one in about [SampleEvery], with by how many events the
	// client lags behind then. If events were live, waited is how long ago the
	// first of them was appended; else it is below zero.
	Sent(of Source, lag uint64, waited time.Duration)
	// Resumed: a position was presented, and it was found or lost.
	Resumed(of Source, found bool)
	// Gap: a client was told of a loss.
	Gap(of Source, why eventlog.Reason)
	// Evicted: a line was ended because its client was slow, or memory short.
	Evicted(of Source, why Slowness)
	// Published: an append was tried, with the log's error.
	Published(namespace string, err error, duplicate bool)
	// Called: a call was answered, with the code of its refusal or "".
	Called(namespace, code string)
	// Refused: a client was refused something, by this code.
	Refused(namespace, code string)
	// Sessions: so many more are known here.
	Sessions(namespace string, more int)
	// AskedLog: the log was asked to append, read, seek or range, which took so long.
	AskedLog(operation string, took time.Duration)
	// Hooked: a function of the program's was called, the option of that name.
	Hooked(name string, took time.Duration, panicked bool)
}

// A Slowness is why a client was evicted.
type Slowness string

// These are all of them.
const (
	FellBehind  Slowness = "lag"           // it was over its policy for a window, and did not catch up
	TookNothing Slowness = "write_timeout" // it did not take in time what it was sent
	ShortMemory Slowness = "memory"        // this server needs the memory that it holds
)

// saysSlow is what the client, the log and the inspector are told.
var saysSlow = map[Slowness]string{
	FellBehind:  "it fell behind and did not catch up",
	TookNothing: "it did not take in time what it was sent (WriteTimeout)",
	ShortMemory: "this server needs the memory that it holds",
}

// SampleEvery is of how many Sends one is looked at more closely, on average.
const SampleEvery = 8

type nobody struct{}

func (nobody) Opened(Source)                      {}
func (nobody) Ended(Source, transport.Reason)     {}
func (nobody) Delivered(Source, int)              {}
func (nobody) Sent(Source, uint64, time.Duration) {}
func (nobody) Resumed(Source, bool)               {}
func (nobody) Gap(Source, eventlog.Reason)        {}
func (nobody) Evicted(Source, Slowness)           {}
func (nobody) Published(string, error, bool)      {}
func (nobody) Called(string, string)              {}
func (nobody) Refused(string, string)             {}
func (nobody) Sessions(string, int)               {}
func (nobody) AskedLog(string, time.Duration)     {}
func (nobody) Hooked(string, time.Duration, bool) {}
