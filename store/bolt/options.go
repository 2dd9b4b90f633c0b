package bolt

import (
	"log/slog"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// Options of a [Log]. The zero value is ready for use; what is zero has its
// default.
type Options struct {
	// Interval is how often what was appended is written to the disk.
	//
	// 0, the default: each Append returns when its events are synced to the disk.
	// Nothing that was acknowledged is lost, whether the program is killed or the
	// power fails, as far as the disk keeps its word. Appends that come together
	// share a sync.
	//
	// More: Append returns when the events are in memory, which takes
	// microseconds, and they are written once per Interval. Danger: if the
	// program is killed, or the power fails, up to an Interval of acknowledged
	// events is gone. The file is whole in any case; readers who had seen what is
	// gone are told ([eventlog.Rewritten]).
	Interval time.Duration

	// Retain says how much of a channel is kept; [eventlog.RetainBy] makes one
	// of patterns. It is asked when a channel gets its first event and when the
	// file is opened, with no lock held and perhaps by several goroutines at
	// once. In what it returns, zero means the default of this log, a million
	// events, 256 MiB and 30 days, whichever is reached first, and a negative
	// value means no bound: for ever. Default: nil, those defaults for every
	// channel. Danger: the disk has to hold what is kept of all channels; see
	// MaxFileSize.
	Retain func(eventlog.Channel) eventlog.Retention

	// MaxData is the most bytes of data in one message. Default: 1 MiB.
	MaxData int

	// MaxFileSize bounds the file, in bytes. Appends that would need more fail
	// with [ErrFull] until Retain has made room. Default: no bound but the
	// disk's, with the same error when that is full.
	MaxFileSize int64

	// MaxQueued is the most bytes of messages that may wait to be written, or,
	// with an Interval, are in memory only. An append of more fails at once.
	// Default: 64 MiB.
	MaxQueued int64

	// MaxFree is how many bytes of the file may be free, after much was trimmed,
	// before the file is compacted in the background; it must also be half of the
	// file. Compaction needs room for a second file. Default: 64 MiB; negative:
	// never, free room is only used again.
	MaxFree int64

	// LockTimeout is how long to wait for another process that has the file, so
	// that a new version of a program can start while the old one ends. Default:
	// 5 s.
	LockTimeout time.Duration

	// Generation is how long the place before a channel's first event stays the
	// same, as in [eventlog.MemoryOptions]. It goes on across restarts. Default:
	// 24 hours.
	Generation time.Duration

	// MaxNames is how many names of empty channels may wait to be dropped before
	// the generation rises sooner, though at most once a minute. Default:
	// 100,000.
	MaxNames int

	// RememberProducers is how long a producer's last number is remembered after
	// its last append, across restarts. A batch that is repeated later is
	// appended twice. Default: 10 minutes.
	RememberProducers time.Duration

	// MaxProducersPerOwner is how many producers of one owner are remembered in
	// a namespace, counted once per channel. An append by one more fails with
	// [eventlog.ErrBusy]. Default: 1,000.
	MaxProducersPerOwner int

	// MaxProducersPerChannel is how many producers are remembered in a channel.
	// An append by one more fails with [eventlog.ErrBusy]. Default: 10,000.
	MaxProducersPerChannel int

	// Leases bound the leases of sessions, which are in memory.
	Leases session.MemoryOptions

	// Logger is told of what fails in the background, where no caller hears of
	// it. Default: [slog.Default].
	Logger *slog.Logger

	// hooks are the tests'.
	hooks hooks
}

// hooks let a test see the disk as a power failure would leave it.
type hooks struct {
	opened  func(*file)        // a file was opened, perhaps the one that a compaction writes
	reached func(point string) // the log is at a point where a crash would be interesting
}

func (h *hooks) at(point string) {
	if h.reached != nil {
		h.reached(point)
	}
}

func (o Options) withDefaults() Options {
	if o.Retain == nil {
		o.Retain = func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{} }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MaxFree == 0 {
		o.MaxFree = 64 << 20
	}
	o.MaxData = positiveOr(o.MaxData, 1<<20)
	o.MaxQueued = positiveOr(o.MaxQueued, 64<<20)
	o.LockTimeout = positiveOr(o.LockTimeout, 5*time.Second)
	o.Generation = positiveOr(o.Generation, 24*time.Hour)
	o.MaxNames = positiveOr(o.MaxNames, 100_000)
	o.RememberProducers = positiveOr(o.RememberProducers, 10*time.Minute)
	o.MaxProducersPerOwner = positiveOr(o.MaxProducersPerOwner, 1_000)
	o.MaxProducersPerChannel = positiveOr(o.MaxProducersPerChannel, 10_000)
	return o
}

// retention returns what is kept of a channel.
func (o *Options) retention(ch eventlog.Channel) eventlog.Retention {
	r := o.Retain(ch)
	if r.Events == 0 {
		r.Events = 1_000_000
	}
	if r.Bytes == 0 {
		r.Bytes = 256 << 20
	}
	if r.Age == 0 {
		r.Age = 30 * 24 * time.Hour
	}
	return r
}

func positiveOr[T int | int64 | time.Duration](value, instead T) T {
	if value > 0 {
		return value
	}
	return instead
}
