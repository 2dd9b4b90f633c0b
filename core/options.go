package core

import (
	"context"
	"log/slog"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
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
	// Call: to be answered by Options.OnCall. The channel's name is that of
	// the call.
	Call Action = "call"
	// Presence: to see who is in a channel.
	Presence Action = "presence"
)

// An Effort is what somebody may do only so often.
type Effort string

// The efforts.
const (
	EffortHello   Effort = "hello"   // to begin a line
	EffortResume  Effort = "resume"  // to begin one that goes on from somewhere
	EffortPublish Effort = "publish" // a message
	EffortCall    Effort = "call"
)

// Options of an engine. Log and Store are required. All durations may be shortened
// for tests; a value below zero is an error of the program and is not checked.
type Options struct {
	// Log holds the events.
	Log eventlog.Log
	// History reads what Log holds in parts. Default: the Log, if it can; else
	// there is no history but from a position on.
	History eventlog.History
	// Store holds what nodes share about clients.
	Store session.Store
	// Keys sign and verify tokens. Default: one key of the Store's secret; while
	// the Store does not tell it, hellos are answered without a token.
	Keys *session.Keys
	// TokenLifetime is how long a token by the Store's secret is good for, from
	// a second up. Default 24 h.
	TokenLifetime time.Duration
	// Authorize says whether a client may do something; nil allows all. An
	// error refuses: a *transport.Refusal as it is, any other one as
	// forbidden, a panic as unavailable. It may block within ctx and is called
	// without a lock held.
	Authorize func(ctx context.Context, who transport.Peer, what Action, ch eventlog.Channel) error
	// Admit says whether somebody may do n more of what costs something; nil: as
	// often as they like. The error is a *transport.Refusal of class Later. It
	// must not block.
	Admit func(who transport.Peer, effort Effort, n int) error
	// From says from when on a client may read a channel; nil, or the zero time:
	// all of it. What it asked for from before is told as a gap. Errors and
	// panics are as Authorize's.
	From func(ctx context.Context, who transport.Peer, ch eventlog.Channel) (time.Time, error)
	// Policy says what holds for a channel; nil: MaxLag, LagWindow and
	// MaxPresent for all. Zero fields mean the same.
	Policy func(ch eventlog.Channel) Policy
	Hooks
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
	// RefreshLead is how long before a client's credentials end it is asked for
	// fresh ones, or half of what is left if that is less. Default 1 min.
	RefreshLead time.Duration
	// DrainTime is over how long the clients of an engine that closes are told to
	// come back. Default 5 s.
	DrainTime time.Duration
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
	// MaxLagBytes is the same in bytes, about. Default 8 MiB.
	MaxLagBytes int64
	// MaxLagAge is the same by the age of the newest event that was sent.
	// Default: any.
	MaxLagAge time.Duration
	// LagWindow: see MaxLag. Default 10 s.
	LagWindow time.Duration
	// Slow is what happens to clients that are too slow. Default: Evict.
	Slow Slow
	// EvictionDelay is when an evicted client may come back. It doubles each
	// time, up to MaxEvictionDelay, until the client kept up for EvictionMemory.
	// Defaults 5 s, 5 min, 10 min.
	EvictionDelay    time.Duration
	MaxEvictionDelay time.Duration
	EvictionMemory   time.Duration
	// MaxEvicted is how many clients are remembered that were evicted. Default
	// 10,000.
	MaxEvicted int
	// BrokenLines is how many connections of a session over one transport have
	// to break in a row, each within BrokenWithin after it began, before that
	// transport is refused to it. Defaults 3, 1 min.
	BrokenLines  int
	BrokenWithin time.Duration
	// LaggardBytes is the room for what is on its way to lines that lag, all
	// together. Default 64 MiB.
	LaggardBytes int
	// Transports are all that clients may use, by name, for those to whom one of
	// them is refused.
	Transports []string
	// PublishTimeout is how long a batch may take: Authorize, the hook and the
	// log. Default 10 s.
	PublishTimeout time.Duration
	// CallTimeout is how long a call may take before it is answered unknown.
	// Default 30 s.
	CallTimeout time.Duration
	// MaxCalls is how many calls of one client are in work at a time. Default 16.
	MaxCalls int
	// MaxMessage is the most bytes of data in a message that a client publishes,
	// and in a call. 0: the log has the only bound.
	MaxMessage int
	// HistoryEvents, HistoryBytes and HistoryScan bound a page of history: how many
	// events it holds, how many bytes, and how many are looked through for it.
	// Default 1000, 256 KiB, 4 MiB.
	HistoryEvents int
	HistoryBytes  int
	HistoryScan   int
	// DisconnectTimeout is how long OnDisconnect may take. Default 10 s.
	DisconnectTimeout time.Duration
	// StoreTimeout bounds one question to the Store. Default 5 s.
	StoreTimeout time.Duration
	// PresenceGrace is how long a session stays present after its last line
	// ended. Default 15 s; it should be longer than a client is between two
	// lines.
	PresenceGrace time.Duration
	// PresenceInterval is how often leases are renewed, and how often the
	// Store is asked who is in a channel that somebody watches. Default 5 s;
	// at most a third of PresenceGrace.
	PresenceInterval time.Duration
	// MaxPresent is above how many members a channel's presence is only a
	// number. Default 200.
	MaxPresent int
	// FrameLimit is what clients are told of the most bytes of a frame. 0: they
	// are told nothing.
	FrameLimit int64
	// Observer is told what happens. Default: nobody.
	Observer Observer
	// Logger gets what happens, as docs/logs.md says. It should bound what it is
	// given, as package server's does. Default: slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	def(&o.TokenLifetime, 24*time.Hour)
	def(&o.Heartbeat, 25*time.Second)
	def(&o.FirstBeat, 200*time.Millisecond)
	def(&o.ProbeLifetime, 10*time.Second)
	def(&o.WriteTimeout, 10*time.Second)
	def(&o.GoodbyeTimeout, time.Second)
	def(&o.AttachTimeout, 10*time.Second)
	def(&o.RefreshLead, time.Minute)
	def(&o.DrainTime, 5*time.Second)
	def(&o.ReadTimeout, 5*time.Second)
	def(&o.RetryDelay, time.Second)
	def(&o.PageBytes, 64<<10)
	def(&o.MaxChannels, 128)
	def(&o.MaxLag, 1000)
	def(&o.LagWindow, 10*time.Second)
	def(&o.EvictionDelay, 5*time.Second)
	def(&o.MaxEvictionDelay, 5*time.Minute)
	def(&o.LaggardBytes, 64<<20)
	def(&o.MaxLagBytes, 8<<20)
	def(&o.PublishTimeout, 10*time.Second)
	def(&o.CallTimeout, 30*time.Second)
	def(&o.MaxCalls, 16)
	def(&o.HistoryEvents, 1000)
	def(&o.HistoryBytes, 256<<10)
	def(&o.HistoryScan, 4<<20)
	def(&o.DisconnectTimeout, 10*time.Second)
	def(&o.StoreTimeout, 5*time.Second)
	def(&o.PresenceGrace, 15*time.Second)
	def(&o.PresenceInterval, 5*time.Second)
	def(&o.MaxPresent, 200)
	o.PresenceInterval = min(o.PresenceInterval, o.PresenceGrace/3)
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Authorize == nil {
		o.Authorize = func(context.Context, transport.Peer, Action, eventlog.Channel) error { return nil }
	}
	if o.Admit == nil {
		o.Admit = func(transport.Peer, Effort, int) error { return nil }
	}
	if o.From == nil {
		o.From = func(context.Context, transport.Peer, eventlog.Channel) (time.Time, error) { return time.Time{}, nil }
	}
	policy := o.Policy
	o.Policy = func(ch eventlog.Channel) Policy {
		var p Policy
		if policy != nil {
			p = policy(ch)
		}
		def(&p.MaxLag, o.MaxLag)
		def(&p.MaxLagBytes, o.MaxLagBytes)
		def(&p.MaxLagAge, o.MaxLagAge)
		def(&p.LagWindow, o.LagWindow)
		def(&p.Slow, o.Slow)
		def(&p.MaxPresent, o.MaxPresent)
		p.limits = breaker.Limits{
			Events: uint64(max(0, p.MaxLag)), Bytes: max(0, p.MaxLagBytes), Age: max(0, p.MaxLagAge), Window: p.LagWindow, //nolint:gosec // not below zero
		}
		return p
	}
	return o
}

// A Policy is what holds for a channel. Each field but Secret is the option of that
// name.
type Policy struct {
	MaxLag      int
	MaxLagBytes int64
	MaxLagAge   time.Duration
	LagWindow   time.Duration
	Slow        Slow
	MaxPresent  int
	// Secret: nothing of the channel is compressed.
	Secret bool

	limits breaker.Limits // the same, for the breaker
}

// Slow is what happens to a client that is too slow.
type Slow string

const (
	// Evict ends its connection; it may come back after a while, and misses
	// nothing that is still kept.
	Evict Slow = "evict"
	// SkipToLatest has it go on with the channel's last event as soon as it is
	// farther behind than the policy says, and tells it so by a gap with the
	// reason skipped. It is right where only what is newest counts: quotes,
	// cursors. A client whose network takes nothing is evicted all the same.
	SkipToLatest Slow = "skip"
)

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
