package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
)

// A Store holds what nodes must share about their clients. Its methods may be
// called concurrently, by all the nodes that share it, and may block on a disk
// or a network within their context.
//
// A session is present through its lease, which lasts for a stated time after
// it was claimed or touched. One that was not renewed for so long has run out:
// it is not present any more, but is known for [Remembered] longer, so that
// somebody's Release can end it, and then forgotten, soon or late. What is
// forgotten or released has no lease; a claim gives it a new one.
//
// A session's lines are numbered, rising, and the lease belongs to the highest
// that claimed it. A node sends the claims of one line in order; across nodes
// nothing else orders them. A line orders the lease and no read.
//
// Errors of all but Close: [ErrUnavailable], also for a context that has ended:
// what was asked may or may not have been done. [*eventlog.Invalid], where
// [Held.Check], [Lease.Check] or [eventlog.Channel.Check] says so: nothing was.
type Store interface {
	// Secret returns the secret that signs tokens where no keys are given: at
	// least [MinSecret] random bytes, made once. The first caller wins, and all
	// get the same. The slice is the caller's.
	Secret(ctx context.Context) ([]byte, error)

	// Claim says that a session is present in the channels of a lease, and
	// in no others. If its stored line is higher, nothing changes, and it is no
	// error. Else the lease takes the place of the stored one, and is renewed.
	// The lease's slices may be used again when Claim returns.
	//
	// [ErrBusy]: there are too many leases for one more; nothing was done.
	Claim(ctx context.Context, held Held, lease Lease) error

	// Touch renews, for as long as each was claimed for, the leases whose line
	// is the one named, also those that ran out and are still known. missing
	// are those of which no line as high is known: they ran out and were
	// forgotten, or were released, or this line was never claimed. Whoever has
	// such a line claims it again. A lease whose line is higher is not
	// missing, and not renewed.
	Touch(ctx context.Context, held []Held) (missing []Held, err error)

	// Release removes a session's lease, unless a higher line holds it, or
	// somebody renewed it less than idle ago, by a claim or a touch. An idle of
	// 0 is a goodbye: whatever was renewed goes. ended is true if this call
	// removed it, so for one caller at most, who runs the disconnect hook; it
	// may be true again only after a later claim.
	//
	// If it fails with [ErrUnavailable] the lease may be gone with nobody told:
	// then the hook is lost.
	Release(ctx context.Context, held Held, idle time.Duration) (ended bool, err error)

	// Present returns the sessions that are present in a channel, at most max
	// of them, in order of the bytes of their ids, and how many there are. With
	// a max of 0 it counts. The slice is the caller's; each Info is shared and
	// must not be changed.
	Present(ctx context.Context, ch eventlog.Channel, max int) (members []Member, total int, err error)

	// Close frees what the store holds. What is called later fails with
	// [ErrUnavailable]. It may be called again.
	Close() error
}

// Remembered is how long at least a lease that ran out is still known.
const Remembered = 10 * time.Minute

// Bounds of a lease that every store keeps.
const (
	MaxInfo          = 1024 // bytes
	MaxLeaseChannels = 1000
	MaxLease         = 24 * time.Hour
)

// Held names a line that holds a session's lease, or wants to.
type Held struct {
	Namespace string
	ID        string // the session's; unique in its namespace
	Line      uint64
}

// Check reports with an [*eventlog.Invalid] whether no store takes h: its
// namespace is not that of any [Identity], or its id is not 1 to [MaxID] bytes
// of UTF-8 without control characters.
func (h Held) Check() error {
	if err := checkNamespace(h.Namespace); err != nil {
		return err
	}
	switch {
	case h.ID == "":
		return &eventlog.Invalid{Field: "session", Problem: "has no id"}
	case len(h.ID) > MaxID:
		return &eventlog.Invalid{Field: "session", Problem: fmt.Sprintf("has an id longer than %d bytes", MaxID)}
	case !plainText(h.ID):
		return &eventlog.Invalid{Field: "session", Problem: "has an id that is not UTF-8 or holds control characters"}
	}
	return nil
}

// A Lease is what a session claims.
type Lease struct {
	// Subject is who it is; empty: not known.
	Subject string
	// Info is what others may see of the session: JSON, or nil.
	Info []byte
	// Channels are the names, in the session's namespace, of those in which it
	// is present. One that is named twice counts once.
	Channels []string
	// For is how long the lease lasts after each renewal, at most [MaxLease].
	For time.Duration
}

// Check reports with an [*eventlog.Invalid] whether no store takes l for
// a session of that namespace: a part is over its bound, not UTF-8, or not JSON,
// or no channel can have such a name.
func (l *Lease) Check(namespace string) error {
	if err := checkSubject(l.Subject); err != nil {
		return err
	}
	switch {
	case len(l.Info) > MaxInfo:
		return tooLong("info", MaxInfo)
	case l.Info != nil && !json.Valid(l.Info):
		return &eventlog.Invalid{Field: "info", Problem: "is not valid JSON"}
	case !utf8.Valid(l.Info):
		return &eventlog.Invalid{Field: "info", Problem: "is JSON that is not UTF-8"}
	case l.For <= 0 || l.For > MaxLease:
		return &eventlog.Invalid{Field: "lease", Problem: fmt.Sprintf("is for %v, not for more than nothing and at most %v", l.For, MaxLease)}
	case len(l.Channels) > MaxLeaseChannels:
		return &eventlog.Invalid{Field: "lease", Problem: fmt.Sprintf("has %d channels, not at most %d", len(l.Channels), MaxLeaseChannels)}
	}
	for _, name := range l.Channels {
		if err := (eventlog.Channel{Namespace: namespace, Name: name}).Check(); err != nil {
			return err
		}
	}
	return nil
}

// A Member is a session that is present in a channel.
type Member struct {
	ID      string
	Subject string
	Info    []byte // JSON, or nil
}

// ErrUnavailable is wrapped by the errors of a store that can't be asked now.
// It says nothing about what the store holds.
var ErrUnavailable = errors.New("session: the store is unavailable")

// ErrBusy is wrapped by the error of a claim for which there is no room.
var ErrBusy = errors.New("session: too many leases are held")
