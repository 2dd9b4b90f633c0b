package redis

import (
	"log/slog"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// Options of a [Log]. The zero value is ready for use; what is zero or negative has
// its default, where a field says nothing else. All nodes of one log should have
// the same.
type Options struct {
	// Prefix begins the names of all keys. Logs with different prefixes have nothing
	// to do with each other. Default: "throughline".
	Prefix string

	// Buckets is into how many parts channels are divided by their names. All keys of
	// one have the same hash tag, and the same secrets. It is fixed when the log is
	// made; an existing log with another number is opened only with that, or with 0.
	// Default: 16.
	Buckets int

	// Retain says how much of a channel is kept; [eventlog.RetainBy] makes one of
	// patterns. It is asked at each append, with no lock held and perhaps by several
	// goroutines at once. In what it returns, zero means the default of this log,
	// 10,000 events, 16 MiB and 24 hours, whichever is reached first, and a negative
	// value means no bound. Default: nil, those defaults for every channel. Danger:
	// Redis holds what is kept of all channels in memory.
	Retain func(eventlog.Channel) eventlog.Retention

	// Durability says what has to be true of an event before Append returns and
	// readers see it; [eventlog.ByPattern] makes one of patterns. It is asked at each
	// append. Default: nil, that the primary has it in memory.
	Durability func(eventlog.Channel) Durability

	// MaxData is the most bytes of data in one message. Default: 1 MiB.
	MaxData int

	// Timeout bounds each question to Redis, and how long replicas may take to have
	// an event. The client's ReadTimeout should be longer, or a wait for replicas ends
	// with the connection. Default: 3 s.
	Timeout time.Duration

	// AppendWait is how long an append that certainly did not happen, as Redis can't
	// be reached or takes no writes, is tried again before it fails; one with
	// a producer also where that is not certain. Its context may end that sooner.
	// Default: 0, it fails at once.
	AppendWait time.Duration

	// MaxQueued is the most bytes of messages that may be on their way to Redis. An
	// append of more fails at once. Default: 64 MiB.
	MaxQueued int64

	// CheckInterval is how often a channel that is served is compared with the
	// primary: how long a lost bell can delay an event, and how soon clients that are
	// connected hear of a history that was lost. Default: 5 s.
	CheckInterval time.Duration

	// Linger is how long a channel whose last client left is served still. Default:
	// 30 s.
	Linger time.Duration

	// TailBytes is how many bytes of events a node keeps of the channels it serves, by
	// [eventlog.Message.Size]. Those of the channel that was read longest ago go
	// first. Default: 64 MiB.
	TailBytes int64

	// Generation is how long the place before a channel's first event stays the same,
	// as in [eventlog.MemoryOptions]. Default: 24 hours.
	Generation time.Duration

	// MaxNames is how many names of empty channels may wait to be dropped before the
	// generation rises sooner, though at most once a minute. Default: 100,000.
	MaxNames int

	// RememberProducers is how long a producer's last number is remembered after its
	// last append. A batch that is repeated later is appended twice. Default:
	// 10 minutes.
	RememberProducers time.Duration

	// MaxProducersPerOwner is how many producers of one owner are remembered in
	// a namespace, counted once per channel, and for each bucket on its own. An append
	// by one more fails with [eventlog.ErrBusy]. Default: 1,000.
	MaxProducersPerOwner int

	// MaxProducersPerChannel is how many producers are remembered in a channel. An
	// append by one more fails with [eventlog.ErrBusy]. Default: 10,000.
	MaxProducersPerChannel int

	// MaxLeases is how many leases of sessions may be held, for each bucket of
	// namespaces. Default: 1,000,000.
	MaxLeases int

	// Logger is told of what fails in the background, where no caller hears of it.
	// Default: [slog.Default].
	Logger *slog.Logger

	// tests are what only tests set.
	tests tests
}

// tests let a test decide what time it is.
type tests struct {
	now   func() time.Time // the time that Redis takes; nil: its own
	sweep time.Duration    // how often it is swept; 0: sweepInterval
	ping  time.Duration    // how often bells are asked for a sign of life; 0: see there
	hurry bool             // rounds don't wait for a crowd: fake time stands still while somebody waits for them with a mutex
}

// Durability is what has to be true of an event before Append returns. The zero value
// is that the primary has it in memory.
type Durability struct {
	// Replicas is how many replicas have to have it, which is asked with WAIT.
	// Readers see it only then, so a failover to one that had it takes nothing from
	// anybody. If they don't have it within Options.Timeout the append fails with
	// [eventlog.ErrUnavailable], and may be read later all the same.
	//
	// 0: a failover may take what was acknowledged last, often some milliseconds of
	// it. Whoever had read it hears of a gap ([eventlog.Rewritten]).
	Replicas int

	// Disk says that it has to be on the primary's disk, which takes a Redis with
	// appendonly yes and appendfsync always; with another, appends fail.
	//
	// Without it, what a restart of Redis takes is up to that: with appendfsync
	// everysec mostly a second, with snapshots all since the last one, and without
	// persistence everything. Clients hear of it.
	Disk bool
}

func (o Options) withDefaults() Options {
	if o.Prefix == "" {
		o.Prefix = "throughline"
	}
	if o.Retain == nil {
		o.Retain = func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{} }
	}
	if o.Durability == nil {
		o.Durability = func(eventlog.Channel) Durability { return Durability{} }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	def(&o.MaxData, 1<<20)
	def(&o.Timeout, 3*time.Second)
	def(&o.MaxQueued, 64<<20)
	def(&o.CheckInterval, 5*time.Second)
	def(&o.Linger, 30*time.Second)
	def(&o.TailBytes, 64<<20)
	def(&o.Generation, 24*time.Hour)
	def(&o.MaxNames, 100_000)
	def(&o.RememberProducers, 10*time.Minute)
	def(&o.MaxProducersPerOwner, 1_000)
	def(&o.MaxProducersPerChannel, 10_000)
	def(&o.MaxLeases, 1_000_000)
	def(&o.tests.sweep, sweepInterval)
	return o
}

func def[T int | int64 | time.Duration](value *T, instead T) {
	if *value <= 0 {
		*value = instead
	}
}

// retention returns what is kept of a channel.
func (o *Options) retention(ch eventlog.Channel) eventlog.Retention {
	r := o.Retain(ch)
	if r.Events == 0 {
		r.Events = 10_000
	}
	if r.Bytes == 0 {
		r.Bytes = 16 << 20
	}
	if r.Age == 0 {
		r.Age = 24 * time.Hour
	}
	return r
}
