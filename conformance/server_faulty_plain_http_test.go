package conformance_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/throughline/throughline/internal/testee"
)

// said changes what the server says on a path, plainly.
func said(path string, change func(text string) string) testee.Rewriter {
	return testee.Rewriter{Down: func(s testee.Said) []string {
		if s.Path == path && s.Plain {
			return []string{change(s.Text)}
		}
		return []string{s.Text}
	}}
}

// unsaid leaves out what the server says on a path, plainly.
func unsaid(path string, is func(text string) bool) testee.Rewriter {
	return testee.Rewriter{Down: func(s testee.Said) []string {
		if s.Path == path && s.Plain && is(s.Text) {
			return nil
		}
		return []string{s.Text}
	}}
}

// replaced is said with texts replaced.
func replaced(path string, oldnew ...string) testee.Rewriter {
	return said(path, strings.NewReplacer(oldnew...).Replace)
}

// asked changes the plain requests to a path before the server sees them. A change
// that answers by itself returns true.
func asked(path string, change func(w http.ResponseWriter, r *http.Request, query url.Values) (answered bool)) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/"+path) {
				query := r.URL.Query()
				if change(w, r, query) {
					return
				}
				r.URL.RawQuery = query.Encode()
			}
			next.ServeHTTP(w, r)
		})
	}}
}

// each is asked for queries of several paths, and in all methods but POST, which
// is the session protocol's.
func each(paths []string, change func(r *http.Request, query url.Values)) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if i := strings.LastIndexByte(r.URL.Path, '/'); slices.Contains(paths, r.URL.Path[i+1:]) && r.Method != http.MethodPost {
				query := r.URL.Query()
				change(r, query)
				r.URL.RawQuery = query.Encode()
			}
			next.ServeHTTP(w, r)
		})
	}}
}

// mistakesReturns takes who comes back to a stream for the one whose stream is
// still open: the new one begins where that is.
func mistakesReturns() testee.Variant {
	var mu sync.Mutex
	open := map[string]int{} // by channel: those that presented something
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		mu.Lock()
		clear(open) // another server
		mu.Unlock()
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query := r.URL.Query()
			channel := query.Get("channel")
			if strings.HasSuffix(r.URL.Path, "/sse") && len(query) == 2 && strings.HasPrefix(query.Get("after"), "a") {
				mu.Lock()
				if open[channel]++; open[channel] > 1 {
					query.Set("after", "latest")
					r.URL.RawQuery = query.Encode()
				}
				mu.Unlock()
				defer func() { mu.Lock(); open[channel]--; mu.Unlock() }()
			}
			next.ServeHTTP(w, r)
		})
	}}
}

// frames has the bytes of each write to a plain WebSocket changed, or left out if
// none are returned. Control frames are a write each.
func frames(change func(frame []byte) []byte) testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/ws") {
				w = &lending{ResponseWriter: w, conn: func(c net.Conn) net.Conn { return &changedWrites{c, change} }}
			}
			next.ServeHTTP(w, r)
		})
	}}
}

// lending hands out a connection with something done to it.
type lending struct {
	http.ResponseWriter
	conn func(net.Conn) net.Conn
}

func (l *lending) Unwrap() http.ResponseWriter { return l.ResponseWriter }

func (l *lending) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, _, err := http.NewResponseController(l.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c = l.conn(c)
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

type changedWrites struct {
	net.Conn
	change func(frame []byte) []byte
}

func (c *changedWrites) Write(p []byte) (int, error) {
	if changed := c.change(p); len(changed) > 0 {
		if _, err := c.Conn.Write(changed); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// closing changes the code and reason of close frames.
func closing(change func(code uint16, reason string) (uint16, string)) testee.Variant {
	return frames(func(frame []byte) []byte {
		if frame[0] != 0x88 || len(frame) < 4 {
			return frame
		}
		code, reason := change(binary.BigEndian.Uint16(frame[2:]), string(frame[4:]))
		if code == 0 {
			return nil
		}
		out := binary.BigEndian.AppendUint16([]byte{0x88, byte(2 + len(reason))}, code) //nolint:gosec // under 126
		return append(out, reason...)
	})
}

// noFragments breaks off where a message comes in fragments.
func noFragments() testee.Variant {
	return testee.Variant{Handler: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/ws") {
				w = &lending{ResponseWriter: w, conn: func(c net.Conn) net.Conn { return &wholeReads{c} }}
			}
			next.ServeHTTP(w, r)
		})
	}}
}

type wholeReads struct{ net.Conn }

func (c *wholeReads) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && p[0] == 0x01 { // what the suite writes at once is read at once
		return 0, io.EOF
	}
	return n, err
}

// lastAnswers are the positions that polls were answered with, where there were
// events.
type lastAnswers struct {
	mu sync.Mutex
	at map[string]string // guarded by mu: by channel
}

func (l *lastAnswers) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = map[string]string{}
}

// hear notes what an answer says, and changes nothing.
func (l *lastAnswers) hear(text string) string {
	var answer struct {
		Events    []struct{ Position string }
		Positions map[string]string
	}
	if json.Unmarshal([]byte(text), &answer) == nil && len(answer.Events) > 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		maps.Copy(l.at, answer.Positions)
	}
	return text
}

func (l *lastAnswers) of(channel, asked string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.at[channel]; ok {
		return at
	}
	return asked
}
