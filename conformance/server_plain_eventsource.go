package conformance

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An eventSource does what a browser's does (WHATWG HTML §9.2): it comes back by
// itself, after the time it was told, with the last id it was given, until
// a response is not a stream.
type eventSource struct {
	check *serverCheck
	query string

	lastID string
	retry  time.Duration
	opened int    // how often
	gaveUp string // why it won't come back
	ended  time.Time

	cancel context.CancelFunc
	body   io.Closer
	lines  *bufio.Reader
	skipLF bool
}

// A dispatched is an event as a page sees it.
type dispatched struct{ kind, data, id string }

// browserRetry is how long browsers wait who were told nothing.
const browserRetry = 3 * time.Second

func (c *serverCheck) eventSource(query string) *eventSource {
	e := &eventSource{check: c, query: query, retry: browserRetry}
	c.atEnd(e.drop)
	return e
}

// next returns the next event that a page gets to see; ok is false if the
// EventSource gave up.
func (e *eventSource) next() (d dispatched, ok bool) {
	deadline := time.Now().Add(e.check.patience())
	for e.gaveUp == "" && time.Now().Before(deadline) {
		if e.lines == nil && !e.open() {
			continue
		}
		waiting := time.AfterFunc(time.Until(deadline), e.cancel)
		d, err := e.block()
		waiting.Stop()
		if err == nil {
			return d, true
		}
		e.drop()
	}
	if e.gaveUp == "" {
		e.check.fatalf("EventSource of %s: nothing came within %s, in %d connections", e.query, e.check.waited(), e.opened)
	}
	return d, false
}

// event takes the next event, which has to be an ordinary one with this data.
func (e *eventSource) event(position, data string) {
	d, ok := e.next()
	switch {
	case !ok:
		e.check.fatalf("EventSource of %s: it ended for good (%s), before the event %s", e.query, e.gaveUp, data)
	case d.kind != "message" || d.data != data || d.id != position:
		e.check.fatalf("EventSource of %s: the event %q with the data %.60q and the id %q came, not %s at %q", e.query, d.kind, d.data, d.id, data, position)
	}
}

// drop is a line that is cut, on this side.
func (e *eventSource) drop() {
	if e.lines != nil {
		e.cancel()
		_ = e.body.Close()
		e.lines, e.skipLF, e.ended = nil, false, time.Now()
	}
}

// open connects, if it isn't the first time after the time to wait.
func (e *eventSource) open() bool {
	if e.opened > 0 {
		time.Sleep(time.Until(e.ended.Add(e.retry)))
	}
	header := []string{"Accept", "text/event-stream", "Cache-Control", "no-store"}
	if e.lastID != "" {
		header = append(header, "Last-Event-ID", e.lastID)
	}
	e.opened++
	ctx, cancel := context.WithCancel(e.check.ctx)
	waiting := time.AfterFunc(e.check.patience(), cancel)
	resp, err := e.check.request(ctx, e.check.http, http.MethodGet, "/sse"+e.query, "", header...) //nolint:bodyclose // drop closes it
	waiting.Stop()
	if err != nil {
		e.check.fatalf("EventSource of %s: the request was not answered: %v", e.query, err)
	}
	e.cancel, e.body, e.lines = cancel, resp.Body, bufio.NewReader(resp.Body)
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if resp.StatusCode != http.StatusOK || strings.TrimSpace(media) != "text/event-stream" {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		e.gaveUp = strconv.Itoa(resp.StatusCode) + " " + string(text)
		e.drop()
		return false
	}
	return true
}

// block reads up to the next event that is dispatched (§9.2.6).
func (e *eventSource) block() (d dispatched, err error) {
	kind, id := "", e.lastID
	var data strings.Builder
	for {
		line, err := e.line()
		if err != nil {
			return d, err
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			kind = value
		case "data":
			data.WriteString(value + "\n")
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				e.retry = time.Duration(ms) * time.Millisecond
			}
		}
		if line != "" {
			continue
		}
		e.lastID = id
		if data.Len() > 0 {
			if kind == "" {
				kind = "message"
			}
			return dispatched{kind, strings.TrimSuffix(data.String(), "\n"), id}, nil
		}
		kind = ""
	}
}

// line reads a line, which ends with LF, CR, or both.
func (e *eventSource) line() (string, error) {
	var line []byte
	for {
		b, err := e.lines.ReadByte()
		switch {
		case err != nil:
			return "", err
		case b == '\n' && e.skipLF && len(line) == 0:
			e.skipLF = false
			continue
		case b == '\n' || b == '\r':
			e.skipLF = b == '\r'
			return string(line), nil
		}
		e.skipLF = false
		line = append(line, b)
	}
}
