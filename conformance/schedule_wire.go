package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
)

// A wire is the way of one client to the nodes, through a proxy of its own
// that does what troubles there are.
type wire struct {
	name   string // whose way it is
	record *recorder
	http   *http.Client
	near   *memnet.Network // from the client to the proxy
	proxy  *faultproxy.Proxy

	mu      sync.Mutex
	to      *memnet.Network // guarded by mu, as all below: from the proxy to a node
	armed   []func()        // each removes a trouble that nothing has met yet
	lasting bool            // what happened to the present connections may last
}

// deadFor is how long a connection that is dead stays so before both ends are
// told, as TCP does when nothing is acknowledged.
const deadFor = 15 * time.Minute

func newWire(record *recorder, name string) *wire {
	w := &wire{name: name, record: record, near: memnet.New()}
	w.http = &http.Client{Transport: &http.Transport{DialContext: w.near.Dial, DisableCompression: true}}
	w.proxy = faultproxy.New(faultproxy.Options{Listener: w.near, Dial: w.dial, Hold: deadFor})
	return w
}

// close ends all connections, and notes what happened to them.
func (w *wire) close() {
	w.http.CloseIdleConnections()
	w.proxy.Close()
	w.record.onTheWay(w.name, w.proxy.Log())
}

// lead has new connections lead to a node.
func (w *wire) lead(to *memnet.Network) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
}

func (w *wire) dial(ctx context.Context) (net.Conn, error) {
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	return to.Dial(ctx, "", "")
}

// cut ends all connections now.
func (w *wire) cut(how faultproxy.Ending) {
	cut := w.proxy.CutNow(nil, how)
	if cut > 0 && how == faultproxy.HalfOpen {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.lasting = true
	}
}

// arm has the next request that fits meet a trouble.
func (w *wire) arm(t Trouble) {
	rule := t.rule()
	fits := rule.Match
	met := new(atomic.Bool)
	rule.Match = func(r *http.Request) bool {
		if fits != nil && !fits(r) || !met.CompareAndSwap(false, true) {
			return false
		}
		if t.lasts() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lasting = true
		}
		return true
	}
	remove := w.proxy.Add(rule)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = append(w.armed, remove)
}

// isNoStream reports whether the answer to a request ends soon.
func isNoStream(r *http.Request) bool {
	return !strings.HasSuffix(r.URL.Path, "/sse") && !strings.HasSuffix(r.URL.Path, "/ws")
}

// disarm has nothing more happen to later requests.
func (w *wire) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, remove := range w.armed {
		remove()
	}
	w.armed = nil
}

// troubled reports whether what comes over the present connections may be late,
// or not come at all.
func (w *wire) troubled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lasting
}

// forget is called when the client has left all its connections.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lasting = false
}

// publishByWire publishes one event by a request, which something may happen to.
func (r *scheduleRun) publishByWire(s *Step) {
	if _, lacks := r.server.Lacks[PublishByRequest]; lacks {
		return
	}
	n, m := r.publishing("the client", s)
	p := clientPublish{run: r, node: r.nodes[s.Node], kind: m.Kind.String(), data: m.Data, key: fmt.Sprintf("%032d", n)}
	if s.Do == PublishBad {
		p.kind, p.data = "JSON", append(m.Data, "} \xff"...)
	}
	position, err := p.send(s.Trouble)
	for again := 0; err != nil && again < 3 && s.Do != GiveUp && !isRefusal(err); again++ {
		position, err = p.send(Trouble{})
	}
	switch {
	case err == nil:
		r.acknowledged(n, position)
	case isRefusal(err) && s.Do != GiveUp:
		r.refused(n, err.Error())
	default:
		r.witness()
	}
}

// isRefusal reports whether a publish was refused for good.
func isRefusal(err error) bool {
	refused, ok := errors.AsType[*wireclient.Refused](err)
	return ok && refused.Class == "never"
}

// A clientPublish is one message that a client publishes by requests
// (PROTOCOL.md §7), with a key by which the server knows repeats.
type clientPublish struct {
	run  *scheduleRun
	node *node
	kind string
	data []byte
	key  string
}

// publishPatience is how long a client waits for the answer to a publish.
const publishPatience = 20 * time.Second

// send sends the request. When it returns, nothing of it is under way any more,
// neither the request nor a copy: the log may lose its history next.
func (p *clientPublish) send(t Trouble) (position string, err error) {
	w := newWire(p.run.recorder, "the client")
	defer w.close()
	w.lead(p.node.network)
	if t != (Trouble{}) {
		w.arm(t)
	}
	ctx, cancel := context.WithTimeout(p.run.ctx, publishPatience)
	defer cancel()
	position, err = p.ask(ctx, w)
	if t != (Trouble{}) {
		time.Sleep(t.For + serverTime)
		synctest.Wait()
	}
	return position, err
}

var contentTypes = map[string]string{"JSON": "application/json", "text": "text/plain", "binary": "application/octet-stream"}

func (p *clientPublish) ask(ctx context.Context, w *wire) (position string, err error) {
	target := p.node.base() + "/publish?" + url.Values{"channel": {scheduleChannel}, "type": {"said"}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(p.data))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", contentTypes[p.kind])
	req.Header.Set("Idempotency-Key", p.key)
	resp, err := w.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Position string
		Error    wireclient.Reason
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", &wireclient.Refused{Status: resp.StatusCode, Header: resp.Header, Reason: answer.Error}
	}
	return answer.Position, nil
}
