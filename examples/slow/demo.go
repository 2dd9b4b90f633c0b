package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

const (
	// ticks is the channel that all clients read; each event has a number.
	ticks = "ticks"
	// status is the channel that the page draws from: a snapshot each interval.
	status   = "status"
	interval = 500 * time.Millisecond
	// shown is how many snapshots a page that is opened finds: a minute.
	shown = 120

	// eventBytes is what an event holds beside its number, so that a client that
	// reads nothing is noticed within seconds.
	eventBytes = 3000
	mostRate   = 100 // events a second
	maxLag     = 60  // events that a client may be behind
	mostHere   = 12  // clients
	// modemRate is what a modem takes, in bytes a second: 256 kbit/s. Slower ones
	// would miss WriteTimeout: within one machine the kernel sends 64 KiB at once,
	// and takes no more until these are read. Real networks are not so coarse.
	modemRate = 32_000
	// asWho is the header by which the demonstration's clients name themselves.
	asWho = "Demo-Client"
)

// A demo is the server, a publisher, and clients.
type demo struct {
	srv    *server.Server
	log    *eventlog.Memory
	ctx    context.Context // ends with the demonstration
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu        sync.Mutex
	target    string        // guarded by mu: where the clients go
	rate      int           // guarded by mu: events a second
	paced     chan struct{} // guarded by mu: closed when rate changes
	published uint64        // guarded by mu: the last number
	clients   []*client     // guarded by mu
	named     int           // guarded by mu: how many there ever were
}

func newDemo() (*demo, error) {
	d := &demo{rate: 20, paced: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.log = eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(ch server.Channel) eventlog.Retention {
		if ch.Name == status {
			return eventlog.Retention{Events: shown}
		}
		return eventlog.Retention{Events: 30_000, Bytes: 64 << 20} // more than three minutes at the highest rate
	}})
	read := []server.Action{server.Subscribe, server.History}
	var err error
	d.srv, err = server.New(server.Options{
		Log: d.log,
		// All of these are longer in earnest. Here one wants to see something.
		WriteTimeout:     5 * time.Second,
		MaxLag:           maxLag,
		LagWindow:        5 * time.Second,
		EvictionDelay:    4 * time.Second,
		MaxEvictionDelay: 16 * time.Second,
		PageBytes:        16 << 10,
		DrainTime:        time.Second,

		Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{
			ticks: {Allow: read}, status: {Allow: read},
		}}},
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Subject: r.Header.Get(asWho)}, nil
		},
		Authorize: authorize,
		OnCall:    d.command,
		Logger:    slog.New(&watcher{next: slog.Default().Handler(), tell: d.heard, passed: d.passed}),
	})
	return d, err
}

// authorize lets pages command the demonstration, and nothing else beside what the
// rules allow.
func authorize(_ context.Context, who server.Identity, what server.Action, ch server.Channel) error {
	if what == server.Call && commands[ch.Name] != nil && who.Subject == "" {
		return nil
	}
	return errors.New("only what the page needs is open")
}

// begin has clients come to the server at a target, and the publisher publish.
func (d *demo) begin(target string) {
	d.mu.Lock()
	d.target = target // before any client runs
	for _, carrier := range []string{"ws", "ws", "sse", "sse"} {
		d.add(carrier, 0)
	}
	d.mu.Unlock()
	d.work.Go(d.publish)
	d.work.Go(d.report)
}

// close ends everything: the server first, as it would in earnest. It is no error
// that clients had to be cut off when ctx was over: slow ones take long to hear
// anything.
func (d *demo) close(ctx context.Context) error {
	err := d.srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	d.cancel()
	d.work.Wait()
	return errors.Join(err, d.log.Close())
}

// publish publishes numbers.
func (d *demo) publish() {
	padding := strings.Repeat("·", eventBytes/2)
	for d.ctx.Err() == nil {
		d.mu.Lock()
		rate, paced := d.rate, d.paced
		d.mu.Unlock()
		var next <-chan time.Time // at rate 0: never
		if rate > 0 {
			next = time.After(time.Second / time.Duration(rate))
		}
		select {
		case <-d.ctx.Done():
			return
		case <-paced:
			continue
		case <-next:
		}
		d.mu.Lock()
		n := d.published + 1
		d.mu.Unlock()
		data, _ := json.Marshal(tick{n, padding})
		if _, err := d.srv.Publish(d.ctx, ticks, server.Message{Data: data}); err == nil {
			d.mu.Lock()
			d.published = n
			d.mu.Unlock()
		}
	}
}

// A tick is an event's data.
type tick struct {
	N       uint64 `json:"n"`
	Padding string `json:"padding"`
}

// A snapshot is what the page draws.
type snapshot struct {
	Rate      int    `json:"rate"`
	Published uint64 `json:"published"`
	MaxLag    uint64 `json:"maxLag"`
	Clients   []view `json:"clients"`
}

// report tells the page how things are.
func (d *demo) report() {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		}
		d.tell()
	}
}

func (d *demo) tell() {
	data, _ := json.Marshal(d.snapshot())
	_, _ = d.srv.Publish(d.ctx, status, server.Message{Data: data}) // the next one says it, too
}

func (d *demo) snapshot() snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := snapshot{Rate: d.rate, Published: d.published, MaxLag: maxLag, Clients: []view{}}
	for _, c := range d.clients {
		s.Clients = append(s.Clients, c.view(d.published))
	}
	return s
}

// head is the number that was published last.
func (d *demo) head() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.published
}

// An order is what the page says with a command.
type order struct {
	Client  string `json:"client"`
	Rate    int    `json:"rate"`
	Carrier string `json:"carrier"`
}

// commands are the calls of the page. They are called with demo.mu held.
var commands = map[string]func(d *demo, o order) error{
	"rate": func(d *demo, o order) error {
		if o.Rate < 0 || o.Rate > mostRate {
			return fmt.Errorf("the rate is from 0 to %d", mostRate)
		}
		d.rate = o.Rate
		close(d.paced)
		d.paced = make(chan struct{})
		return nil
	},
	"stall": func(d *demo, o order) error { return d.turn(o, false) },
	"read":  func(d *demo, o order) error { return d.turn(o, true) },
	"modem": func(d *demo, _ order) error { return d.add("ws", modemRate) },
	"client": func(d *demo, o order) error {
		if o.Carrier != "ws" && o.Carrier != "sse" {
			return errors.New("a client comes by ws or by sse")
		}
		return d.add(o.Carrier, 0)
	},
	"remove": func(d *demo, o order) error {
		for i, c := range d.clients {
			if c.name == o.Client {
				d.clients = slices.Delete(d.clients, i, i+1)
				c.leave()
				return nil
			}
		}
		return errors.New("there is no such client")
	},
}

// command answers a call of the page's.
func (d *demo) command(_ context.Context, r server.Request) (server.Payload, error) {
	var o order
	if err := json.Unmarshal(r.Data, &o); err != nil {
		return server.Payload{}, transport.Refuse("bad_order", "%v", err)
	}
	d.mu.Lock()
	err := commands[r.Name](d, o)
	d.mu.Unlock()
	if err != nil {
		return server.Payload{}, transport.Refuse("bad_order", "%v", err)
	}
	d.tell() // at once: who presses a button wants to see something
	return server.Payload{Data: []byte("true")}, nil
}

// turn has a client stall or read. Without a name that is the first that may
// stall, or all that don't read. It is called with mu held.
func (d *demo) turn(o order, reads bool) error {
	for _, c := range d.clients {
		switch {
		case o.Client != "" && c.name != o.Client, o.Client == "" && !reads && c.isOut():
		case c.tap.turn(reads) && !reads:
			return nil
		}
	}
	return nil
}

// add has one more client come; rate bounds how many bytes a second it takes. It
// is called with mu held.
func (d *demo) add(carrier string, rate int) error {
	if len(d.clients) == mostHere {
		return fmt.Errorf("%d clients are enough", mostHere)
	}
	d.named++
	c := newClient(d, fmt.Sprintf("%s %d", map[bool]string{true: "Modem", false: "Client"}[rate > 0], d.named), carrier, rate)
	d.clients = append(d.clients, c)
	d.work.Go(c.run)
	return nil
}

// heard takes what the server's log says of a client: that it is kept out.
func (d *demo) heard(subject string, out time.Duration) {
	d.withClient(subject, func(c *client) { c.keptOut(out) })
}

// passed takes what it says as well: that a client has passed its trial.
func (d *demo) passed(subject string) { d.withClient(subject, (*client).pass) }

func (d *demo) withClient(name string, do func(*client)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.clients {
		if c.name == name {
			do(c)
		}
	}
}
