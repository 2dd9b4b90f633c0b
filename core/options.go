package core

import (
	"context"
	"log/slog"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// An Action is what a client needs a right for.
type Action string

const (
	// Subscribe: to hear what comes from now on, and to resume.
	Subscribe Action = "subscribe"
	// History: to begin with events from before.
	History Action = "history"
	// Publish: to append.
	Publish Action = "publish"
)

// Options of an engine. Only Log is required. All durations may be shortened
// for tests; a value below zero is an error of the program and is not checked.
type Options struct {
	// Log holds the events.
	Log eventlog.Log
	// Authorize says whether a client may do something; nil allows all. An
	// error refuses: a *transport.Refusal as it is, any other one as
	// forbidden, a panic as unavailable. It may block within ctx and is called
	// without a lock held.
	Authorize func(ctx context.Context, who transport.Peer, what Action, ch eventlog.Channel) error
	// Heartbeat is how long a line may be silent. Default 25 s: proxies cut
	// what is silent for 60 s, some for 30.
	Heartbeat time.Duration
	// FirstBeat is when a line of the session protocol gets its first
	// heartbeat, which proves that the carrier works. Default 200 ms; shorter
	// proves less (PROTOCOL P6.6).
	FirstBeat time.Duration
	// ProbeLifetime is how long a probe may last. Default 10 s.
	ProbeLifetime time.Duration
	// WriteTimeout is how long one Send may take. A client that takes longer
	// is evicted. Default 10 s.
	WriteTimeout time.Duration
	// GoodbyeTimeout is how long the last Send of a line may take. Default 1 s.
	GoodbyeTimeout time.Duration
	// AttachTimeout is how long it may take to begin a line or a channel:
	// what Authorize and the log take. Default 10 s.
	AttachTimeout time.Duration
	// ReadTimeout bounds one question to the log. Default 5 s.
	ReadTimeout time.Duration
	// RetryDelay is how long to wait after the log was unavailable. Default
	// 1 s; clients that are told to come back get up to twice as much.
	RetryDelay time.Duration
	// PageBytes bounds what one Send holds, but for one event that is larger.
	// Default 64 KiB.
	PageBytes int
	// MaxChannels is how many channels one line may have. Default 128.
	MaxChannels int
	// MaxLag is by how many events a line that has caught up may lag behind
	// for LagWindow without coming closer. Then it is evicted. Default 1000.
	MaxLag int
	// LagWindow: see MaxLag. Default 10 s.
	LagWindow time.Duration
	// EvictionDelay is when an evicted client may come back. Default 5 s.
	EvictionDelay time.Duration
	// Observer is told what happens. Default: nobody.
	Observer Observer
	// Logger gets a line for each ended connection, and faults. Default:
	// slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	def(&o.Heartbeat, 25*time.Second)
	def(&o.FirstBeat, 200*time.Millisecond)
	def(&o.ProbeLifetime, 10*time.Second)
	def(&o.WriteTimeout, 10*time.Second)
	def(&o.GoodbyeTimeout, time.Second)
	def(&o.AttachTimeout, 10*time.Second)
	def(&o.ReadTimeout, 5*time.Second)
	def(&o.RetryDelay, time.Second)
	def(&o.PageBytes, 64<<10)
	def(&o.MaxChannels, 128)
	def(&o.MaxLag, 1000)
	def(&o.LagWindow, 10*time.Second)
	def(&o.EvictionDelay, 5*time.Second)
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Authorize == nil {
		o.Authorize = func(context.Context, transport.Peer, Action, eventlog.Channel) error { return nil }
	}
	return o
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// An Observer is told what happens, for metrics. Its methods are called from
// many goroutines, on the path of delivery, and must not block.
type Observer interface {
	// Opened and Ended frame the life of a line.
	Opened(carrier string)
	Ended(carrier string, why transport.Reason)
	// Delivered: a Send with events returned without an error.
	Delivered(carrier string, events int)
	// Resumed: a position was presented, and it was found or lost.
	Resumed(found bool)
	// Gap: a client was told of a loss.
	Gap(why eventlog.Reason)
	// Evicted: a line was ended because its client was slow.
	Evicted(carrier string)
}

type nobody struct{}

func (nobody) Opened(string)                  {}
func (nobody) Ended(string, transport.Reason) {}
func (nobody) Delivered(string, int)          {}
func (nobody) Resumed(bool)                   {}
func (nobody) Gap(eventlog.Reason)            {}
func (nobody) Evicted(string)                 {}
