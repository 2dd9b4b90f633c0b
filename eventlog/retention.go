package eventlog

import "time"

// Retention is how much of a channel a log keeps. Of whatever bound, at least
// the last event of an append is kept by it; only age, and the bound over all
// channels, may empty a channel. In each field zero means the default and
// a negative value means no bound. The defaults named here are those of [Memory];
// another log may have its own, as the larger ones of store/bolt.
type Retention struct {
	// Events is the most events. Default: 10,000.
	Events int
	// Bytes is the most bytes, by [Message.Size]. Default: 16 MiB. Without
	// a bound one channel may take all of MaxBytes of its log.
	Bytes int64
	// Age is how long an event is kept. It is never returned later, even
	// where it still takes memory. Default: 24 hours. Without a bound a silent
	// channel holds its memory for good.
	Age time.Duration
}

func (r Retention) withDefaults() Retention {
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

// MemoryOptions are the settings of a [Memory]. The zero value is ready for
// use; what is zero or negative has its default.
type MemoryOptions struct {
	// Retain says how much of a channel is kept. It is asked when a channel
	// gets its first event, with no lock held and perhaps by several
	// goroutines at once, and the answer holds until the name is dropped.
	// Default: nil, the zero Retention for every channel.
	Retain func(Channel) Retention

	// MaxBytes is the most bytes of events over all channels, by
	// [Message.Size]. Beyond it the oldest event goes of the heaviest channel
	// in the heaviest namespace, so that namespaces can't trim each other
	// below an equal share. The process needs up to twice as much memory.
	// Default: 256 MiB. If it is too small for the number of channels, readers
	// meet [Trimmed] sooner than Retain says.
	MaxBytes int64

	// MaxData is the most bytes of data in one message. Default: 1 MiB.
	MaxData int

	// Generation is how long the place before a channel's first event stays
	// the same. A position there is good for one to two generations, and the
	// name of an empty channel is dropped one to two generations after its
	// last event. Default: 24 hours. Short ones give false gaps to whoever
	// comes back to a channel that nobody wrote to.
	Generation time.Duration

	// MaxNames is how many names of empty channels may wait to be dropped
	// before the generation rises sooner, though at most once a minute.
	// Default: 100,000.
	MaxNames int

	// RememberProducers is how long a producer's last number is remembered
	// after its last append. A batch that is repeated later is appended twice.
	// Default: 10 minutes.
	RememberProducers time.Duration

	// MaxProducersPerOwner is how many producers of one owner are remembered
	// in a namespace, counted once per channel. An append by one more fails
	// with [ErrBusy]. Default: 1,000.
	MaxProducersPerOwner int

	// MaxProducersPerChannel is how many producers are remembered in
	// a channel. An append by one more fails with [ErrBusy]. Default: 10,000.
	MaxProducersPerChannel int
}

func (o MemoryOptions) withDefaults() MemoryOptions {
	if o.Retain == nil {
		o.Retain = func(Channel) Retention { return Retention{} }
	}
	o.MaxBytes = positiveOr(o.MaxBytes, 256<<20)
	o.MaxData = positiveOr(o.MaxData, 1<<20)
	o.Generation = positiveOr(o.Generation, 24*time.Hour)
	o.MaxNames = positiveOr(o.MaxNames, 100_000)
	o.RememberProducers = positiveOr(o.RememberProducers, 10*time.Minute)
	o.MaxProducersPerOwner = positiveOr(o.MaxProducersPerOwner, 1_000)
	o.MaxProducersPerChannel = positiveOr(o.MaxProducersPerChannel, 10_000)
	return o
}

func positiveOr[T int | int64 | time.Duration](value, instead T) T {
	if value > 0 {
		return value
	}
	return instead
}
