package server

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/server/internal/limit"
	"github.com/throughline/throughline/transport"
)

// A Rate is how often something may be done: Burst at once, and PerSecond in the
// long run. The zero Rate is the default; with PerSecond below zero there is no
// limit. Without a Burst it is what comes back in a second, and at least 1.
type Rate struct {
	PerSecond float64
	Burst     int
}

// check refuses what can't be meant: never again, or nobody knows how often.
func (r Rate) check() error {
	if math.IsNaN(r.PerSecond) || r.Burst < 0 || r.PerSecond == 0 && r.Burst > 0 {
		return fmt.Errorf("PerSecond is %v and Burst %d: PerSecond is above 0, or below for no limit, and Burst 0 or above", r.PerSecond, r.Burst)
	}
	return nil
}

func (r Rate) limit() limit.Rate {
	if r.Burst == 0 {
		r.Burst = max(1, int(math.Ceil(r.PerSecond)))
	}
	return limit.Rate(r)
}

// Rates are how often one address, or one identity, may do what costs something.
// Who does it more often is refused with rate_limited, and told when to try
// again; what a WebSocket or a request was refused is not done, and its client
// repeats it then.
type Rates struct {
	// Hellos begin a connection.
	Hellos Rate
	// Resumes are hellos that go on from somewhere: each poll is one.
	Resumes Rate
	// Publishes are counted by messages.
	Publishes Rate
	// Calls are of all handlers together.
	Calls Rate
}

// Unlimited are no limits.
var Unlimited = Rates{Rate{-1, 0}, Rate{-1, 0}, Rate{-1, 0}, Rate{-1, 0}}

// What is done by default. An address may stand for a whole office, or for
// a proxy that TrustedProxies doesn't name.
var (
	defaultAddressRates  = Rates{Hellos: Rate{100, 1000}, Resumes: Rate{500, 2000}, Publishes: Rate{500, 2000}, Calls: Rate{200, 1000}}
	defaultIdentityRates = Rates{Hellos: Rate{10, 100}, Resumes: Rate{50, 200}, Publishes: Rate{100, 1000}, Calls: Rate{50, 200}}
)

// Bounds of what is remembered of addresses and identities, for each thing that
// is limited: some 15 MB at most, all in all, under a flood.
const maxRemembered = 1 << 13

// A limiter has the buckets of one kind of name.
type limiter[K comparable] map[core.Effort]*limit.Buckets[K]

func newLimiter[K comparable](rates, usual Rates) limiter[K] {
	l := limiter[K]{}
	for effort, r := range map[core.Effort][2]Rate{
		core.EffortHello: {rates.Hellos, usual.Hellos}, core.EffortResume: {rates.Resumes, usual.Resumes},
		core.EffortPublish: {rates.Publishes, usual.Publishes}, core.EffortCall: {rates.Calls, usual.Calls},
	} {
		if r[0] == (Rate{}) {
			r[0] = r[1]
		}
		if r[0].PerSecond >= 0 {
			l[effort] = limit.NewBuckets[K](r[0].limit(), maxRemembered)
		}
	}
	return l
}

// take takes n tokens, or refuses. whose names the option.
func (l limiter[K]) take(key K, effort core.Effort, n int, whose string) error {
	b := l[effort]
	if b == nil {
		return nil
	}
	wait, ok := b.Take(key, n)
	if ok {
		return nil
	}
	return transport.RefuseFor(jittered(wait), transport.CodeRateLimited, "too many %s: Options.%s of this server says how many", efforts[effort], whose)
}

var efforts = map[core.Effort]string{
	core.EffortHello: "connections", core.EffortResume: "connections that go on", core.EffortPublish: "messages", core.EffortCall: "calls",
}

// jittered spreads those who are told to wait, so that they don't come back at
// once.
func jittered(wait time.Duration) time.Duration {
	return wait + rand.N(max(wait, time.Second))
}

// An address is where a request comes from, in the form in which it is counted:
// the zero value is one that is not known, and not limited.
type address = netip.Prefix

// addresses knows where requests come from.
type addresses struct {
	proxies limit.Proxies
	v6bits  int
}

// of returns the address that a request comes from, for people, and as it is
// counted.
func (a *addresses) of(r *http.Request) (string, address) {
	addr := a.proxies.Client(r)
	if !addr.IsValid() {
		return "", address{}
	}
	return addr.String(), limit.Key(addr, a.v6bits)
}

// counted is the address of a peer as it is counted.
func (a *addresses) counted(peer *transport.Peer) address {
	addr, err := netip.ParseAddr(peer.Addr)
	if err != nil {
		return address{}
	}
	return limit.Key(addr, a.v6bits)
}

// An admission decides who may come in, before anything expensive is done.
type admission struct {
	addresses
	byAddress   limiter[address]
	byIdentity  limiter[identityKey]
	connections *limit.Slots[address]
	handshakes  *limit.Slots[struct{}]
	maxHeader   int
}

// An identityKey is whose rates are counted.
type identityKey struct{ namespace, subject string }

func newAdmission(o *Options) (*admission, error) {
	if o.TrustedProxies == nil {
		o.TrustedProxies = []string{"127.0.0.0/8", "::1", "unix"}
	}
	proxies, err := limit.ParseProxies(o.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("server: Options.TrustedProxies: %w", err)
	}
	if o.IPv6Prefix > 128 {
		return nil, fmt.Errorf("server: Options.IPv6Prefix is %d, more than 128", o.IPv6Prefix)
	}
	def(&o.MaxHeader, 16<<10)
	def(&o.MaxConnections, 100_000)
	def(&o.MaxConnectionsPerAddress, 10_000)
	def(&o.MaxHandshakes, 256)
	return &admission{
		addresses:   addresses{proxies, o.IPv6Prefix},
		byAddress:   newLimiter[address](o.AddressRates, defaultAddressRates),
		byIdentity:  newLimiter[identityKey](o.IdentityRates, defaultIdentityRates),
		connections: limit.NewSlots[address](o.MaxConnections, o.MaxConnectionsPerAddress),
		handshakes:  limit.NewSlots[struct{}](o.MaxHandshakes, 0),
		maxHeader:   o.MaxHeader,
	}, nil
}

// check refuses a request by what can be known without reading its body or asking
// the program: the size of what it says of itself, and its address.
func (a *admission) check(r *http.Request, from address, effort core.Effort) error {
	if size := headerSize(r); size > a.maxHeader {
		return transport.Refuse(transport.CodeTooLarge, "the address and headers are longer than %d bytes (Options.MaxHeader)", a.maxHeader)
	}
	if !from.IsValid() {
		return nil
	}
	return a.byAddress.take(from, effort, 1, "AddressRates")
}

func headerSize(r *http.Request) int {
	size := len(r.RequestURI)
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	return size
}

// admit is core.Options.Admit: who it is is known by now.
func (a *admission) admit(who transport.Peer, effort core.Effort, n int) error {
	if !checked(&who, effort) {
		if from := a.counted(&who); from.IsValid() {
			if err := a.byAddress.take(from, effort, n, "AddressRates"); err != nil {
				return err
			}
		}
	}
	if who.Subject == "" {
		return nil
	}
	return a.byIdentity.take(identityKey{who.Namespace, who.Subject}, effort, n, "IdentityRates")
}

// checked reports whether an effort was charged to the address by check: of what
// a WebSocket brings, and where a stream goes on, that knew nothing.
func checked(who *transport.Peer, effort core.Effort) bool {
	switch {
	case who.Transport == "": // a request of its own: that it came was charged, and not what it brings
		return false
	case effort == core.EffortResume:
		return who.Transport == longpoll.Name || who.Transport == historyName
	}
	return effort == core.EffortHello && who.Transport != longpoll.Name
}

// connect counts a connection. Who was let in calls release when it is over.
func (a *admission) connect(from address) error {
	if !a.connections.Take(from) {
		return transport.RefuseFor(jittered(time.Second), transport.CodeBusy,
			"too many connections: Options.MaxConnections and MaxConnectionsPerAddress of this server say how many")
	}
	return nil
}

func (a *admission) release(from address) { a.connections.Release(from) }

// handshake has something done that lets a client in, unless too much of that is
// done already.
func (a *admission) handshake(do func() error) error {
	if !a.handshakes.Take(struct{}{}) {
		return transport.RefuseFor(jittered(time.Second), transport.CodeBusy, "too many clients come in at once: Options.MaxHandshakes of this server says how many")
	}
	defer a.handshakes.Release(struct{}{})
	return do()
}
