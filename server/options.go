package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// What programs name most, so that one import is enough.
type (
	// Message is what one publishes: {Type, Kind, Data, Key, Tags}.
	Message = eventlog.Message
	// Channel names a sequence of events: {Namespace, Name}.
	Channel = eventlog.Channel
	// Position names a place in a channel.
	Position = eventlog.Position
	// Identity is who makes a request: {Namespace, Subject, Claims, Expires}.
	Identity = session.Identity
	// Action is what a client needs a right for.
	Action = core.Action
	// Client is who speaks, as hooks see it: an Identity, and {Session, Addr,
	// Transport, Connection}.
	Client = core.Client
	// Welcome is what OnConnect gives to a client: {Channels, Info}.
	Welcome = core.Welcome
	// Publication is what a client publishes, as OnPublish sees it: {Client,
	// Channel, Messages, Producer, Number, Repeat}.
	Publication = core.Publication
	// Request is a call of a client's, as OnCall sees it: {Client, Name, Kind,
	// Data, Key}.
	Request = core.Request
	// Payload is data of one kind, a call's or its answer's: {Kind, Data}.
	Payload = transport.Payload
	// Target says whose connections are meant: {Namespace, Session, Subject}; with
	// a Subject or a Session, in that Namespace only.
	Target = core.Target
	// Member is a session that is present in a channel: {ID, Subject, Info}.
	Member = session.Member
	// Key signs tokens: {ID, Secret}.
	Key = session.Key
	// Limit bounds a page that is read: {Bytes, Events, Scan, Filter}.
	Limit = eventlog.Limit
	// Slow is what happens to a client that falls behind: Evict or SkipToLatest.
	Slow = core.Slow
	// Page is what one read returns: {Events, Next, Head, Behind}, and More().
	Page = eventlog.Page
	// Range is a part of a channel's history: {After, Until, Since, Before,
	// Backwards}.
	Range = eventlog.Range
	// Filter selects events: {Types, Tags, Keys}.
	Filter = eventlog.Filter
	// Event is one event of a channel: {Message, At, Prev, Time}.
	Event = eventlog.Event
)

// A Transport answers requests of clients whose origin and identity are known,
// and attaches them to the engine it was made with.
type Transport interface {
	Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer)
}

// The kinds of a message's data.
const (
	JSON   = eventlog.JSON
	Text   = eventlog.Text
	Binary = eventlog.Binary
)

// The actions.
const (
	Subscribe = core.Subscribe // to hear what comes from now on, and to resume
	History   = core.History   // to begin with events from before, and to read them
	Publish   = core.Publish   // to append
	Call      = core.Call      // to be answered by OnCall; the channel's name is that of the call
	Presence  = core.Presence  // to see who is in a channel
)

// What happens to clients that fall behind (Options.Slow).
const (
	Evict        = core.Evict        // they are cut off for a while, and go on where they were
	SkipToLatest = core.SkipToLatest // they go on with the last event, and are told of the gap
)

// Options of a server. The zero value works.
type Options struct {
	// Log holds the events. Default: an [eventlog.Memory] with its defaults,
	// which Close closes; a Log that is given stays the caller's. Its history can be
	// read in parts if it is an [eventlog.History], as one in memory is.
	Log eventlog.Log

	// Authenticate says who makes a request, by whatever login the program
	// has. The identity beside an error is ignored. An error is answered 401; its text is logged, not shown, but a
	// *transport.Refusal is told as it is. Default: nobody is known. It may
	// block; the request's context bounds it.
	//
	// What a client shows in the first frame of a WebSocket, where a page can't
	// set headers, comes as the bearer token of an Authorization header: whoever
	// reads that header takes both. It is called again then, and when a client
	// brings fresh credentials because those it showed end (Identity.Expires).
	// Package server/jwtauth has one for JSON Web Tokens.
	Authenticate func(*http.Request) (Identity, error)

	// Authorize says whether a client may do something with a channel: nil
	// allows, an error refuses (its text is not shown to the client). Default:
	// [DefaultAuthorize]. Danger: a function of your own replaces it entirely,
	// so what that doesn't refuse is allowed, publishing and names with "$",
	// too.
	//
	// It is asked when a channel is subscribed, when history is asked for (a
	// position is no history: only who was there has it), when presence is, and
	// at each publish and call. It is not asked again while a connection lasts,
	// unless [Server.Reauthorize] says so. It may block within ctx and is called
	// by many goroutines. It is not asked for what Namespaces allow.
	Authorize func(ctx context.Context, who Identity, what Action, ch Channel) error

	// Namespaces say, by name, what holds for the channels of a namespace. A
	// namespace that is not named has no rules. "" is the one of clients whose
	// Identity names none.
	Namespaces map[string]Namespace

	// Store holds what several servers must share about clients: who is present,
	// and the secret that signs tokens. Default: Log, if that is a
	// [session.Store], too; else a [session.Memory] with its defaults, which
	// Close closes. A Store that is given stays the caller's.
	Store session.Store

	// Keys sign the tokens by which clients continue their sessions: the first
	// signs, all verify. Default: one key, of the Store's secret.
	Keys []Key
	// TokenLifetime is how long a token is good for; it is renewed when half of
	// it is over. Default 24 h.
	TokenLifetime time.Duration

	// OnConnect is called for each connection of a session, before it begins: a
	// change of carrier is one, too. An error refuses it. It is not called for
	// plain use (a native EventSource or WebSocket, curl), which so gets no
	// channels that it names.
	OnConnect func(ctx context.Context, who Client) (Welcome, error)
	// OnSubscribe is called for each channel that a client begins to read, once
	// it is allowed; each connection begins its channels anew. An error refuses
	// the channel.
	OnSubscribe func(ctx context.Context, who Client, ch Channel) error
	// OnPublish is called for what a client publishes, once it is allowed, and
	// may change the messages: this is where a server says who the author is. An
	// error refuses them. It may be called again for a repeat, whose changes
	// then are for nothing if the first copy was appended. [Server.Publish]
	// does not call it.
	OnPublish func(ctx context.Context, p *Publication) error
	// OnCall answers calls; the zero Payload is null. An error is told as failed,
	// without its text, but a *transport.Refusal as it is.
	OnCall func(ctx context.Context, r Request) (Payload, error)
	// OnDisconnect is called once for a session that lived 2 s or longer, after
	// its goodbye or PresenceGrace after its last connection ended, on one of
	// the servers that share a Store. It is lost with its process.
	//
	// All of these are called without a lock held and by many goroutines, and
	// may block within their contexts; a panic harms the one client that met it.
	OnDisconnect func(ctx context.Context, who Client)

	// AllowedOrigins are origins, like "https://app.example.com", whose pages
	// may use this server beside those of its own. Default: none. Danger: a
	// page of such an origin acts with its user's cookies.
	AllowedOrigins []string

	// TrustedProxies are the networks (CIDR, or single addresses) of proxies
	// whose X-Forwarded-For or Forwarded header says where a client is; "unix"
	// stands for whoever comes by a Unix socket. Default: those on this machine.
	// Danger: without its proxy here, everybody behind it counts as one address;
	// with a network that others are in, anybody can claim any address.
	TrustedProxies []string
	// IPv6Prefix is how many bits of an IPv6 address count as one address.
	// Default 64.
	IPv6Prefix int
	// AddressRates are how often one address may do what costs something, and
	// are looked at before anything else. Default: 100 hellos, 500 resumes, 500
	// messages and 200 calls a second, and a burst of 1000, 2000, 2000 and 1000.
	// [Unlimited] turns them off.
	AddressRates Rates
	// IdentityRates are those of one subject. Default: 10 hellos, 50 resumes, 100
	// messages and 50 calls a second, and a burst of 100, 200, 1000 and 200.
	IdentityRates Rates
	// MaxConnections is how many connections there may be, waiting polls among
	// them. Default 100,000.
	MaxConnections int
	// MaxConnectionsPerAddress is how many of them one address may have. Default
	// 10,000, as it may stand for many people.
	MaxConnectionsPerAddress int
	// MaxHandshakes is how many clients may be let in at the same moment: what
	// Authenticate, OnConnect, Authorize and the log have to bear when all come
	// back at once. The others are told to come a little later. Default 256.
	MaxHandshakes int
	// MaxHeader is the most bytes of a request's address and headers. Default
	// 16 KiB; http.Server.MaxHeaderBytes bounds them before.
	MaxHeader int

	// MemoryLimit is how many bytes of memory the process may take. Default:
	// GOMEMLIMIT if it is set, else 90 % of what its cgroup allows, else none;
	// below 0: none. From 80 % of it on the log gives up its oldest events, from 90 %
	// on new clients are refused as busy while those who were here may come back,
	// and from 95 % on those who lag behind most are evicted. A log has to be an
	// [eventlog.Shrinker] for the first; one in memory is, and one that wraps it has
	// to pass that on. It keeps a 32nd of the limit whatever happens. That of New
	// holds a quarter of MemoryLimit at most, and 256 MiB; of one that you make
	// yourself you say so (eventlog.MemoryOptions.MaxBytes).
	//
	// What counts is what the process comes to take, not what it has just now:
	// twice what lives in the heap, as the runtime lets as much garbage grow beside
	// it (GOGC). The server leaves the runtime's own settings alone, as they are the
	// whole process's. Recommended: set GOMEMLIMIT, which lets nearly twice as much
	// live within the same limit, as garbage then gives way.
	MemoryLimit int64

	// PublishTimeout is how long a publish may take, or a batch of them:
	// Authorize, OnPublish and the log. Default 10 s. Keep it well below how
	// long the log remembers producers.
	PublishTimeout time.Duration
	// CallTimeout is how long a call may take before it is answered unknown.
	// Default 30 s.
	CallTimeout time.Duration
	// MaxCalls is how many calls of one client are in work at a time. Default 16.
	MaxCalls int
	// DisconnectTimeout is how long OnDisconnect may take. Default 10 s.
	DisconnectTimeout time.Duration
	// StoreTimeout bounds one question to the Store. Default 5 s.
	StoreTimeout time.Duration
	// PresenceGrace is how long a session stays present after its last
	// connection ended. Default 15 s.
	PresenceGrace time.Duration
	// PresenceInterval is how often leases are renewed, and how often the Store
	// is asked who is present: an end without goodbye shows everywhere within
	// PresenceGrace and two of these. Default 5 s; at most a third of
	// PresenceGrace. Below 3.4 s, who comes back at another server in the last
	// moments of the grace may show as gone for a moment.
	PresenceInterval time.Duration
	// MaxPresent is above how many members a channel's presence is only
	// a number. Default 200.
	MaxPresent int

	// Dependencies say when the log, the store, or a function that fails again and
	// again is not asked for a while. Default: after 5 failures in a row, or if half
	// of many calls failed, for 2 s.
	Dependencies Dependencies

	// Heartbeat is how long a stream may be silent. Default 25 s; keep it
	// below what proxies on the way cut at.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take to accept a page of events
	// before it is evicted. Default 10 s.
	WriteTimeout time.Duration
	// PeerTimeout is how long a client may leave unanswered what was sent to it
	// before its connection counts as dead. Default 20 s. A WebSocket is asked
	// by a ping with each heartbeat, so it is noticed within Heartbeat and
	// PeerTimeout; a stream by what it takes (a quarter later at most), only on
	// Linux and with [Server.ConnContext]; a poll
	// that waits is over with MaxWait anyway. Danger: if it is shorter than the
	// holes in the network of somebody on the road, they have to come back after
	// each, and don't know it yet; they miss nothing.
	PeerTimeout time.Duration
	// GoodbyeTimeout is how long the last word to a client may take, and what is
	// written outside its events. Default 1 s.
	GoodbyeTimeout time.Duration
	// CloseTimeout is how long a WebSocket may take to answer a close frame.
	// Default 1 s.
	CloseTimeout time.Duration
	// AttachTimeout is how long Authenticate, Authorize and the log may take to
	// let a client in, or to take what it publishes. Default 10 s.
	AttachTimeout time.Duration
	// DrainTime is over how long the clients of a server that is shut down are
	// told to come back, after RetryDelay, each at a time of its own: what the other servers, or the
	// next one, have to bear. Default 5 s.
	DrainTime time.Duration
	// RefreshLead is how long before its credentials end (Identity.Expires) a
	// client is asked for fresh ones, or half of what is left if that is less.
	// Default 1 min.
	RefreshLead time.Duration
	// ReadTimeout bounds one question to the log. Default 5 s.
	ReadTimeout time.Duration
	// RetryDelay is how soon to ask a log again that was unavailable, and,
	// somewhat longer, when clients that met that may return. Default 1 s.
	RetryDelay time.Duration
	// HelloTimeout is how long a client may take to say what it wants: the
	// first frame of a WebSocket, the body of a request. Default 10 s.
	HelloTimeout time.Duration
	// MaxWait cuts how long a poll may ask to wait. Default 55 s.
	MaxWait time.Duration
	// Retry is how soon an EventSource comes back after its stream ended.
	// Default 1 s.
	Retry time.Duration
	// MaxLag is by how many events a client that had caught up may fall behind
	// for LagWindow without coming closer, before it is evicted. Default 1000.
	MaxLag int
	// MaxLagBytes is the same in bytes, about. Default 8 MiB.
	MaxLagBytes int64
	// MaxLagAge is the same by how old the newest event is that was sent to it.
	// Default: any age. Danger: it compares the clocks of the log and of this
	// server.
	MaxLagAge time.Duration
	// LagWindow: see MaxLag. Default 10 s.
	LagWindow time.Duration
	// Slow is what happens to who falls behind. Default Evict. A Rule may say
	// SkipToLatest for channels in which only the newest counts.
	Slow Slow
	// EvictionDelay is when an evicted client may come back: what it asks for
	// before is refused with slow_consumer and the delay that is left. It
	// doubles each time. docs/slow-clients.md has the whole picture. Default 5 s.
	EvictionDelay time.Duration
	// MaxEvictionDelay is how long it gets at most. Default 5 min.
	MaxEvictionDelay time.Duration
	// EvictionMemory is for how long a client has to keep up before it begins
	// with EvictionDelay again. Default 10 min.
	EvictionMemory time.Duration
	// MaxEvicted is how many clients are remembered that were evicted, at about
	// 1 kB each; beyond it, the one that was heard of least lately is forgotten.
	// Default 10,000.
	MaxEvicted int
	// BrokenLines is how many WebSockets of a session have to break in a row, each
	// within BrokenWithin after it began, before they are refused to the session
	// for EvictionDelay, then twice that and so on up to BrokenWithin, with the
	// names of the other transports. Default 3.
	BrokenLines int
	// BrokenWithin: see BrokenLines. Default 1 min.
	BrokenWithin time.Duration
	// LaggardBytes is the room for what was read for clients that lag, and is
	// on its way to them, all together: as it fills up they get smaller pages,
	// and then wait. Clients that keep up don't need it. Default 64 MiB.
	LaggardBytes int
	// PageBytes bounds what is written to a client at once, and so what a slow
	// one costs. Default 64 KiB.
	PageBytes int
	// MaxChannels is how many channels one connection may have. Default 128.
	MaxChannels int
	// HistoryEvents is how many events a page of history holds at most. Default
	// 1000.
	HistoryEvents int
	// HistoryBytes is how many bytes of events it holds, but for one event that is
	// larger; over a connection and by /up it is PageBytes, if that is less.
	// Default 256 KiB.
	HistoryBytes int
	// HistoryScan is how many bytes of events are looked through for it, with those
	// that its filter leaves out. Default 4 MiB.
	HistoryScan int
	// HistoryMaxAge is for how long browsers, and where everybody may read the
	// channel other caches, may keep an answer of history that never changes.
	// Danger: what the log has given up since can still be seen there. Below a
	// second they ask each time. Default 1 h.
	HistoryMaxAge time.Duration
	// CompressOver is how many bytes of events an answer of a poll or of history may
	// have before it is compressed, if the client takes gzip. What all get who ask
	// for the same is compressed once. Danger: see Rule.Secret. Default 1 KiB.
	CompressOver int
	// MaxName is the most bytes of the name of a channel or a call that a client
	// says. Default 200, which is the most that a log takes.
	MaxName int
	// MaxFrame is the most bytes of a frame from a client. Default 64 KiB.
	MaxFrame int64
	// MaxMessage is the most bytes of data in a message that a client publishes,
	// and in a call. Default what the log takes (1 MiB in memory), which also
	// bounds it; a WebSocket brings no more than MaxFrame.
	MaxMessage int

	// Transports are further ones, by the last element of their path: a client
	// finds "ndjson" at {base}/ndjson. The server checks origins and identities
	// for them as for its own. They should pass conformance.TestTransport.
	Transports map[string]func(transport.Engine) Transport

	// Logger gets what happens, as docs/logs.md says, and never payloads or what
	// shows who somebody is. What clients choose is bounded and escaped, and from
	// info up each event is written at most ten times a minute. Default:
	// slog.Default().
	Logger *slog.Logger
}

// Dependencies say when something that the server needs is not asked for
// a while, because it fails. Who needs it is refused at once then, as unavailable
// and to come back later; one question tries it again. What answers, even by
// a no, does not fail. It has to fail to answer within the time it is given, to
// say that it is unavailable ([eventlog.ErrUnavailable], or a *transport.Refusal
// of that code), or, the log and the store, to return an error that is not theirs.
// A function that panics harms the client that met it and nobody else.
//
// Authenticate, Authorize, OnConnect, OnSubscribe, OnPublish, the From of all
// rules together, and each call by its name are given up only if at least half of
// at least 20 calls in 10 s failed; the log and the store then, too.
type Dependencies struct {
	// FailuresInARow of the log, or of the store, are enough. Default 5.
	FailuresInARow int
	// OpenFor is how long something is not asked before it is tried again.
	// Default 2 s.
	OpenFor time.Duration
	// Disabled has everything asked always. Danger: whoever needs what does not
	// answer waits until its time is over, and holds what it holds.
	Disabled bool
}
