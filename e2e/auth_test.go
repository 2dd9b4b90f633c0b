package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// tokens hands out tokens that last a short while, and knows who shows them.
type tokens struct {
	lasts time.Duration

	mu    sync.Mutex
	ends  map[string]time.Time // guarded by mu
	shown map[string]string    // guarded by mu: by token, where it was seen first
}

func (k *tokens) hand(w http.ResponseWriter) {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := fmt.Sprintf("token-%d", len(k.ends)+1)
	k.ends[text] = time.Now().Add(k.lasts)
	_, _ = w.Write([]byte(text))
}

func (k *tokens) authenticate(r *http.Request) (server.Identity, error) {
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	k.mu.Lock()
	defer k.mu.Unlock()
	ends, ok := k.ends[text]
	if strings.Contains(r.URL.String(), "token-") {
		return server.Identity{}, errors.New("a token in an address")
	}
	if !ok || time.Now().After(ends) {
		return server.Identity{}, errors.New("unknown or too old")
	}
	k.shown[text] = r.URL.Path
	return server.Identity{Subject: "ada", Expires: ends}, nil
}

// A page whose login is a token of a few seconds follows a channel, publishes
// and calls for many times as long, on each transport: nothing is lost, and it
// is never told that it failed.
func TestTokensThatEnd(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, transport := range []string{"websocket", "sse", "poll"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel() // it mostly waits
			k := &tokens{lasts: 2 * time.Second, ends: map[string]time.Time{}, shown: map[string]string{}}
			w := start(t, server.Options{Authenticate: k.authenticate, OnCall: double, RefreshLead: time.Second})
			begin := w.head("room")
			origin := listen(t, newGateTo(w, k))
			p := open(t, "ada", origin)
			p.eval(nil, fmt.Sprintf(`import("/realtime/auth.js").then(({ bearer }) =>
				start("/realtime", { transports: [%q], auth: bearer(() => fetch("/realtime/token").then((answer) => answer.text())) }))`, transport))
			p.follow("room", begin)
			p.until(`carrier() === %q`, transport)
			p.call(nil, "speak", "room", "ada", speaking)
			time.Sleep(8 * time.Second)
			var answer int
			p.eval(&answer, `import("/realtime/call.js").then(({ call }) => call(client, "double", 21))`)
			if answer != 42 {
				t.Errorf("a call was answered with %d", answer)
			}
			c := &chat{world: w, begin: begin, pages: map[string]*page{"ada": p}}
			c.finish()
			k.mu.Lock()
			defer k.mu.Unlock()
			if len(k.shown) < 4 || len(k.ends) > 20 {
				t.Errorf("%d tokens were handed out, %d shown", len(k.ends), len(k.shown))
			}
		})
	}
}

// newGateTo is a gate to the server of a world, beside which tokens are had.
func newGateTo(w *world, k *tokens) *gate {
	return newGate(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/realtime/token" {
			k.hand(rw)
			return
		}
		w.srv.ServeHTTP(rw, r)
	}))
}
