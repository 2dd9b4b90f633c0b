package breaker

import (
	"container/list"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options of Clients. What is zero has its default.
type Options struct {
	// Delay is for how long a client is kept out that was too slow. It doubles
	// each time, up to MaxDelay, until the client has kept up for Forget.
	// Defaults: 5 s, 5 min, 10 min.
	Delay, MaxDelay, Forget time.Duration
	// BrokenLines is how many connections of a session in a row have to break
	// over one transport, each within BrokenWithin after it began, before the
	// session is kept out of that transport: for Delay, and twice as long each
	// time it goes on, up to BrokenWithin. Defaults: 3, 1 min.
	BrokenLines  int
	BrokenWithin time.Duration
	// Spare is how many of an address may be slow and away beyond those that keep
	// up, before others of it inherit: many may be behind it. Subjects have none
	// to spare. Default 3; below zero: none.
	Spare int
	// MaxRecords bounds how many clients are remembered, at about 1 kB each. Beyond it
	// the one is forgotten of which nothing was heard for longest. Default 10,000.
	MaxRecords int
}

func (o Options) withDefaults() Options {
	def(&o.Delay, 5*time.Second)
	def(&o.MaxDelay, 5*time.Minute)
	def(&o.Forget, 10*time.Minute)
	def(&o.BrokenLines, 3)
	def(&o.BrokenWithin, time.Minute)
	def(&o.Spare, 3)
	o.Spare = max(0, o.Spare)
	def(&o.MaxRecords, 10_000)
	o.MaxDelay = max(o.MaxDelay, o.Delay)
	return o
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// A Client is who wants to be delivered to, as breakers know clients.
type Client struct {
	// Session is its id, or "" in plain use.
	Session string
	// Identity is what many clients may share: a subject, or an address. New
	// sessions, and plain clients, inherit what others of their identity have
	// done, unless most of those keep up.
	Identity string
	// Named: its identity is a subject and not an address: there is nobody else
	// behind it, and a plain client is known even where it goes on from elsewhere.
	Named bool
	// Connection is what people call the connection. It tells clients apart that
	// have nothing else.
	Connection string
	// Transport is what carries it.
	Transport string
	// Place is where a plain client goes on from, by which it is known again; the
	// zero value if it begins.
	Place Place
}

// A Place is a stretch of a channel, by the offsets of positions.
type Place struct {
	Channel  string
	From, To uint64
}

func (p Place) meets(q Place) bool {
	return p.Channel != "" && p.Channel == q.Channel && p.From <= q.To && q.From <= p.To
}

// endsFrom is how far apart they end.
func (p Place) endsFrom(q Place) uint64 { return max(p.To, q.To) - min(p.To, q.To) }

// A Denial is the error for a client that is kept out.
type Denial struct {
	// After is how long still, at least a millisecond.
	After time.Duration
	// Broken names the transports that it is kept out of, in order; nil: of all, as it was too slow.
	Broken []string
}

func (d *Denial) Error() string {
	if d.Broken == nil {
		return fmt.Sprintf("breaker: too slow, kept out for %v", d.After)
	}
	return fmt.Sprintf("breaker: connections over %v break, kept out for %v", d.Broken, d.After)
}

// Clients has the breakers of clients. It may be used concurrently, and
// calls nobody while it holds its lock.
type Clients struct {
	o Options

	mu         sync.Mutex
	identities map[string]*identity // guarded by mu: those that have lines or records
	sessions   map[string]*record   // guarded by mu
	recent     *list.List           // guarded by mu: of all records, the last used first
}

// An identity is what clients share. All is guarded by Clients.mu.
type identity struct {
	keepUp  int       // lines attached that are not on trial
	away    int       // of records: those that are slow and away
	records []*record // the last made last
}

// A record is what is known of one client that failed. All is guarded by
// Clients.mu.
type record struct {
	session    string // "" in plain use
	identity   string
	place      Place               // of a plain client: where it was when it failed
	slow       *circuit            // nil: it never was
	broken     map[string]*circuit // by transport
	lines      int                 // that are attached
	away       bool                // it counts in identity.away
	why        string              // it was evicted the last time, for people
	connection string              // that failed last, for people; "": it was on another node
	at         *list.Element       // in Clients.recent; nil: it was forgotten
}

// NewClients returns the breakers of clients that are all well.
func NewClients(o Options) *Clients {
	return &Clients{
		o:          o.withDefaults(),
		identities: make(map[string]*identity),
		sessions:   make(map[string]*record),
		recent:     list.New(),
	}
}

// Enter lets a client in, or says by a *[Denial] how long not. Who is let in has a
// Line until it is left.
func (c *Clients) Enter(who Client) (*Line, error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.find(&who, now)
	if r == nil {
		r = c.heirloom(&who, now)
		if r != nil && who.Session != "" && !r.slow.isOpen() {
			c.rename(r, who.Session)
		}
	}
	if r != nil {
		if err := r.enter(&who, now); err != nil {
			return nil, err
		}
		c.attach(r)
	}
	l := &Line{clients: c, who: who, record: r, began: now}
	l.trial = r != nil && r.slow != nil && r.slow.onTrial()
	l.count(!l.trial)
	return l, nil
}

// attach notes that a record's client has one more line.
func (c *Clients) attach(r *record) {
	c.recent.MoveToFront(r.at)
	r.lines++
	c.account(r)
}

// account notes whether a record's client is one that is slow and away.
func (c *Clients) account(r *record) {
	away := r.at != nil && r.lines == 0 && r.slow != nil && r.slow.calm.IsZero()
	switch {
	case away && !r.away:
		c.identity(r.identity).away++
	case !away && r.away:
		c.identity(r.identity).away--
	}
	r.away = away
}

// find returns the record of a client, or nil.
func (c *Clients) find(who *Client, now time.Time) *record {
	if who.Session != "" {
		r := c.sessions[who.Session]
		if r != nil && r.forgettable(&c.o, now) {
			c.forget(r)
			return nil
		}
		return r
	}
	id := c.identities[who.Identity]
	if id == nil {
		return nil
	}
	var here, known *record
	for _, r := range id.records {
		switch {
		case r.session != "" || r.forgettable(&c.o, now):
		case r.place.meets(who.Place):
			if here == nil || r.likelier(here, who.Place) {
				here = r
			}
		case who.Named && r.slow != nil && !r.slow.calm.IsZero():
			known = r // all is well, but its delays go on from where they were
		}
	}
	if here != nil {
		return here
	}
	return known
}

// likelier reports whether a plain client at a place, which the stretches of both records
// hold, is more likely that of r than that of other: nobody else is here for r, or r was sent
// less beyond that place, as what lies in buffers on the way is not much.
func (r *record) likelier(other *record, at Place) bool {
	if r.lines != other.lines {
		return r.lines < other.lines
	}
	return r.place.endsFrom(at) < other.place.endsFrom(at)
}

// heirloom returns what a client without a record inherits: the last of its
// identity's that is slow and away, if those are more than the lines that keep
// up, and than an address has to spare. Those that may be forgotten count no more.
func (c *Clients) heirloom(who *Client, now time.Time) (last *record) {
	id := c.identities[who.Identity]
	if id == nil {
		return nil
	}
	enough := id.keepUp
	if !who.Named {
		enough += c.o.Spare
	}
	if id.away <= enough {
		return nil
	}
	away := 0
	for _, r := range id.records {
		if r.away && !r.forgettable(&c.o, now) {
			away, last = away+1, r
		}
	}
	if away <= enough {
		return nil
	}
	return last
}

// rename hands a record on to a new session.
func (c *Clients) rename(r *record, session string) {
	delete(c.sessions, r.session)
	r.session = session
	c.sessions[session] = r
}

// forgettable reports whether it says nothing any more.
func (r *record) forgettable(o *Options, now time.Time) bool {
	if r.lines > 0 || r.slow != nil && !r.slow.forgettable(o, now) {
		return false
	}
	for _, b := range r.broken {
		if !b.forgettable(o, now) {
			return false
		}
	}
	return true
}

func (c *Clients) forget(r *record) {
	c.recent.Remove(r.at)
	r.at = nil
	c.account(r)
	if c.sessions[r.session] == r {
		delete(c.sessions, r.session)
	}
	if id := c.identities[r.identity]; id != nil {
		id.records = slices.DeleteFunc(id.records, func(one *record) bool { return one == r })
		c.drop(r.identity, id)
	}
}

// drop forgets an identity that is nothing any more.
func (c *Clients) drop(name string, id *identity) {
	if id.keepUp == 0 && len(id.records) == 0 {
		delete(c.identities, name)
	}
}

func (c *Clients) identity(name string) *identity {
	id := c.identities[name]
	if id == nil {
		id = &identity{}
		c.identities[name] = id
	}
	return id
}

// enter lets a client in, or not.
func (r *record) enter(who *Client, now time.Time) error {
	if r.slow != nil {
		if after, ok := r.slow.enter(now); !ok {
			return &Denial{After: after}
		}
	}
	mine := r.broken[who.Transport]
	if mine == nil || who.Session == "" { // what a plain client inherits is that somebody was slow
		return nil
	}
	after, ok := mine.enter(now)
	if ok {
		return nil
	}
	d := &Denial{After: after}
	for name, b := range r.broken {
		if b.isOpen() {
			d.Broken = append(d.Broken, name)
		}
	}
	slices.Sort(d.Broken)
	return d
}

// Known is how much is known, and of how many clients.
type Known struct {
	Records    int // clients that failed lately
	Open       int // of these, those that are kept out as too slow
	Trials     int // those that are here, and have to show that they keep up
	Identities int // that have lines, or failed lately
}

// Known counts what is known. It takes a microsecond for some ten records.
func (c *Clients) Known() Known {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known()
}

// known is Known. It is called with mu held.
func (c *Clients) known() Known {
	n := Known{Records: c.recent.Len(), Identities: len(c.identities)}
	for e := c.recent.Front(); e != nil; e = e.Next() {
		r := e.Value.(*record) //nolint:forcetypeassert // it holds nothing else
		switch {
		case r.slow == nil:
		case r.slow.isOpen():
			n.Open++
		case r.slow.onTrial() && r.lines > 0: // who has left meanwhile goes on with it when it comes back
			n.Trials++
		}
	}
	return n
}
