package redis

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// leaseOptions are the settings of leases. All nodes that share them must have
// the same prefix and buckets.
type leaseOptions struct {
	// prefix begins every key.
	prefix string
	// buckets is over how many hash tags namespaces are spread; all that is
	// known of one namespace has one tag, since it changes in one step.
	buckets int
	// maxLeases is how many leases one bucket holds, those that ran out and are
	// still known among them.
	maxLeases int
	// timeout bounds each exchange with Redis. A call is one, but where there is
	// much to clear away, to touch or to return.
	timeout time.Duration
	// now is the time in microseconds, in tests. Else it is Redis's own, so
	// that nodes agree whatever their clocks say.
	now func() int64
}

// leases are the half of a [Log] that keeps what nodes share about sessions.
//
// Each operation is one script, so one step. Nothing expires by a TTL of Redis:
// that would be a step of its own, and a lease that ran out has to leave its
// channels and still be known. So whoever calls first clears away what ran out,
// a bounded part at a time, before anything else is done.
type leases struct {
	// Static after newLeases.
	client  goredis.UniversalClient
	options leaseOptions

	closed atomic.Bool
	secret atomic.Pointer[[]byte] // the first that was returned
}

func newLeases(client goredis.UniversalClient, o leaseOptions) *leases {
	return &leases{client: client, options: o}
}

// close has what is called later fail. The client is its owner's.
func (l *leases) close() { l.closed.Store(true) }

// Bounds of one script, which keeps everybody waiting while it runs. A step is a
// lease or a channel of one, about a microsecond or two.
const (
	scriptSteps = 2000
	touchLeases = 500 // by one script
	touchChunks = 8   // scripts sent at once
	presentPage = 500 // members by one script
)

// releaseRepeats is how long a release is remembered for who sends it again.
const releaseRepeats = time.Minute

var (
	//go:embed lua/leases.lua
	leasesLua string
	//go:embed lua/leases_claim.lua
	claimLua string
	//go:embed lua/leases_touch.lua
	touchLua string
	//go:embed lua/leases_release.lua
	releaseLua string
	//go:embed lua/leases_present.lua
	presentLua string
	//go:embed lua/secret.lua
	secretLua string
)

// All scripts are taken for writers, also where they only read: those Redis
// refuses on a replica, and on a primary that misses the replicas it must have
// to write, so that no answer is ever of one that is behind.
//
// But for a claim they run also where the memory is at its bound:
// they take none, or give some back.
var (
	claimScript   = goredis.NewScript("#!lua\n" + leasesLua + claimLua)
	touchScript   = goredis.NewScript("#!lua flags=allow-oom\n" + leasesLua + touchLua)
	releaseScript = goredis.NewScript("#!lua flags=allow-oom\n" + leasesLua + releaseLua)
	presentScript = goredis.NewScript("#!lua flags=allow-oom\n" + leasesLua + presentLua)
	secretScript  = goredis.NewScript("#!lua flags=allow-oom\n" + secretLua) // 32 bytes, without which nobody comes in
)

// Secret implements [session.Store].
func (l *leases) Secret(ctx context.Context) ([]byte, error) {
	fresh := make([]byte, session.MinSecret)
	rand.Read(fresh) // never fails
	return l.offerSecret(ctx, fresh)
}

// keepSecret puts the secret back that this node knows, if Redis lost it, so that the
// tokens of clients stay good wherever they go.
func (l *leases) keepSecret(ctx context.Context) {
	if known := l.secret.Load(); known != nil {
		_, _ = l.offerSecret(ctx, *known) // whoever needs it is told; it is tried again
	}
}

// offerSecret returns the secret, which is the one offered if there was none.
func (l *leases) offerSecret(ctx context.Context, offered []byte) ([]byte, error) {
	var secret string
	err := l.exchange(ctx, "the secret", func(ctx context.Context) (err error) {
		secret, err = secretScript.Run(ctx, l.client, []string{l.options.prefix + ":{secret}"}, offered).Text()
		return err
	})
	if err == nil && len(secret) < session.MinSecret {
		err = fmt.Errorf("%w: the secret in Redis has only %d bytes", session.ErrUnavailable, len(secret))
	}
	if err != nil {
		return nil, err
	}
	known := []byte(secret)
	l.secret.CompareAndSwap(nil, &known)
	return []byte(secret), nil
}

// What the claim's script returns.
const (
	claimAgain = iota
	claimDone
	claimBusy
)

// Claim implements [session.Store].
func (l *leases) Claim(ctx context.Context, held session.Held, lease session.Lease) error {
	if err := held.Check(); err != nil {
		return err
	}
	if err := lease.Check(held.Namespace); err != nil {
		return err
	}
	names := slices.Clone(lease.Channels)
	slices.Sort(names)
	args := []any{
		leaseName(held), digits(held.Line), micros(lease.For),
		strings.Join(slices.Compact(names), "\n"), l.options.maxLeases, lease.Subject,
	}
	if lease.Info != nil {
		args = append(args, lease.Info)
	}
	for {
		var done int
		err := l.exchange(ctx, "a claim", func(ctx context.Context) (err error) {
			done, err = l.run(ctx, claimScript, held.Namespace, args...).Int()
			return err
		})
		switch {
		case goredis.HasErrorPrefix(err, "OOM"):
			return fmt.Errorf("%w: Redis has no memory left", session.ErrBusy)
		case err != nil:
			return err
		case done == claimBusy:
			return fmt.Errorf("%w: %d, with those of other namespaces beside them", session.ErrBusy, l.options.maxLeases)
		case done != claimAgain:
			return nil
		}
	}
}

// Release implements [session.Store]. One that go-redis sends again, because the
// answer was lost, is answered as the first was.
func (l *leases) Release(ctx context.Context, held session.Held, idle time.Duration) (ended bool, err error) {
	if err := held.Check(); err != nil {
		return false, err
	}
	call := rand.Text()
	for {
		var done int
		err := l.exchange(ctx, "a release", func(ctx context.Context) (err error) {
			done, err = l.run(ctx, releaseScript, held.Namespace,
				leaseName(held), digits(held.Line), micros(idle), call, micros(releaseRepeats)).Int()
			return err
		})
		if err != nil || done >= 0 {
			return done == 1, err
		}
	}
}

// Present implements [session.Store]. Many members come in several pages: then
// those who come and go meanwhile may be among them or not.
func (l *leases) Present(ctx context.Context, ch eventlog.Channel, most int) (members []session.Member, total int, err error) {
	if err := ch.Check(); err != nil {
		return nil, 0, err
	}
	from := "-"
	for {
		page := min(max(most-len(members), 0), presentPage)
		var reply []any
		err := l.exchange(ctx, "who is present", func(ctx context.Context) (err error) {
			reply, err = l.run(ctx, presentScript, ch.Namespace, space(ch.Namespace), ch.Name, from, page).Slice()
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		if len(reply) == 0 { // there was more to clear away
			continue
		}
		count, _ := reply[0].(int64)
		members = appendMembers(members, reply[1:])
		switch got := len(reply) / 3; {
		case got == page && len(members) < most:
			from = "(" + members[len(members)-1].ID
		case got == page: // as many as were asked for
			return members, max(int(count), len(members)), nil
		default: // all that there are
			return members, len(members), nil
		}
	}
}

// appendMembers appends who is in a reply: an id, a subject and an info each.
func appendMembers(members []session.Member, reply []any) []session.Member {
	for ; len(reply) >= 3; reply = reply[3:] {
		var m session.Member
		m.ID, _ = reply[0].(string)
		m.Subject, _ = reply[1].(string)
		if info, ok := reply[2].(string); ok {
			m.Info = []byte(info)
		}
		members = append(members, m)
	}
	return members
}

// run runs a script about a namespace, with what all of them get.
func (l *leases) run(ctx context.Context, s *goredis.Script, namespace string, args ...any) *goredis.Cmd {
	return s.Run(ctx, l.client, []string{l.dueKey(l.bucket(namespace))}, l.arguments(args)...)
}

func (l *leases) arguments(args []any) []any {
	now := ""
	if l.options.now != nil {
		now = strconv.FormatInt(l.options.now(), 10)
	}
	return append([]any{now, micros(session.Remembered), scriptSteps}, args...)
}

// exchange asks Redis within the context and the timeout. A deadline ends it; a
// context that is cancelled does so only before and after.
func (l *leases) exchange(ctx context.Context, what string, ask func(context.Context) error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", session.ErrUnavailable, context.Cause(ctx))
	case l.closed.Load():
		return fmt.Errorf("%w: it is closed", session.ErrUnavailable)
	}
	limited, cancel := context.WithTimeout(ctx, l.options.timeout)
	defer cancel()
	err := ask(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s: %w", session.ErrUnavailable, what, context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%w: %s: Redis did not answer within %v: %w", session.ErrUnavailable, what, l.options.timeout, err)
	}
	return fmt.Errorf("%w: %s: %w", session.ErrUnavailable, what, err)
}

// bucket is where all that is known of a namespace is.
func (l *leases) bucket(namespace string) int {
	h := fnv.New32a()
	h.Write([]byte(namespace))
	return int(h.Sum32() % uint32(max(l.options.buckets, 1)))
}

// dueKey is the one key that scripts are told. It carries the hash tag that all
// others of a bucket have, too.
func (l *leases) dueKey(bucket int) string {
	return fmt.Sprintf("%s:{p%d}:due", l.options.prefix, bucket)
}

// space is a namespace with its length before it, so that whatever follows, no
// two read alike.
func space(namespace string) string { return fmt.Sprintf("%d:%s:", len(namespace), namespace) }

func leaseName(h session.Held) string { return space(h.Namespace) + h.ID }

// digits are as many for all numbers, so they compare as text: those of scripts have
// 53 bits.
func digits(n uint64) string { return fmt.Sprintf("%020d", n) }

// micros is a duration in the unit of scripts, rounded up: no lease is for
// nothing.
func micros(d time.Duration) int64 {
	n := d.Microseconds()
	if d%time.Microsecond > 0 {
		n++
	}
	return n
}
