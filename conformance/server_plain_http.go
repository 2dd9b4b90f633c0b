package conformance

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// neighbour reads a channel beside what a clause does to the server, and has to
// notice nothing of it.
func (c *serverCheck) neighbour() (unharmed func(by string)) {
	f := c.form
	if f.open == nil {
		f = c.aForm(allForms...)
	}
	r := c.readOver(f, c.site, "neighbour", "")
	r.opening()
	n := 0
	return func(by string) {
		n++
		at, err := c.testee.Publish(c.ctx, "neighbour", said(n))
		if err != nil {
			c.fatalf("after %s nothing can be published: %v", by, err)
		}
		if it := r.next(); it.Position != at || !it.Event {
			c.fatalf("after %s another client of %s got %s, not the event %d at %q", by, f.name, inWords(it), n, at)
		}
	}
}

// A stream is a response of Server-Sent Events, whose bytes count.
type blockStream struct {
	check  *serverCheck
	what   string
	header http.Header
	cancel context.CancelFunc
	lines  *bufio.Reader
}

// stream opens a plain stream, which has to be accepted.
func (c *serverCheck) stream(query string, headers ...string) *blockStream {
	ctx, cancel := context.WithCancel(c.ctx)
	waiting := time.AfterFunc(c.patience(), cancel)
	resp, err := c.request(ctx, c.http, http.MethodGet, "/sse"+query, "", headers...)
	waiting.Stop()
	if err != nil {
		c.fatalf("GET /sse%.100s was not answered within %s: %v", query, c.waited(), err)
	}
	c.atEnd(func() { cancel(); _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		c.fatalf("GET /sse%.100s was answered %d %.200q, not with a stream", query, resp.StatusCode, text)
	}
	return &blockStream{c, "/sse" + query, resp.Header, cancel, bufio.NewReader(resp.Body)}
}

// block returns the lines of the next block.
func (b *blockStream) block() []string {
	lines, err := b.tryBlock()
	if err != nil {
		b.check.fatalf("GET %.100s: no further block came within %s: %v, after %q", b.what, b.check.waited(), err, lines)
	}
	return lines
}

func (b *blockStream) tryBlock() (lines []string, err error) {
	waiting := time.AfterFunc(b.check.patience(), b.cancel)
	defer waiting.Stop()
	for {
		line, err := b.lines.ReadString('\n')
		if err != nil {
			return lines, err
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			return lines, nil
		}
		lines = append(lines, line)
	}
}

// expect takes the next block, which has to have these lines, in any order but
// that of the data; comments come by themselves.
func (b *blockStream) expect(want ...string) {
	got := b.news()
	if !sameLines(got, want) {
		b.check.fatalf("GET %.100s: the block %q came, not %q", b.what, got, want)
	}
}

// news returns the next block that is no comment.
func (b *blockStream) news() []string {
	for began := time.Now(); time.Since(began) < b.check.patience(); {
		if lines := b.block(); len(lines) != 1 || !strings.HasPrefix(lines[0], ":") {
			return lines
		}
	}
	b.check.fatalf("GET %.100s: nothing but comments came within %s", b.what, b.check.waited())
	return nil
}

// sameLines compares blocks. Fields of different names may come in any order.
func sameLines(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, field := range []string{"id", "event", "data", "retry"} {
		if strings.Join(fields(a, field), "\n") != strings.Join(fields(b, field), "\n") {
			return false
		}
	}
	return true
}

// fields returns the values that a field has in a block (WHATWG HTML §9.2.6).
func fields(lines []string, name string) (values []string) {
	for _, line := range lines {
		if n, value, _ := strings.Cut(line, ":"); n == name {
			values = append(values, strings.TrimPrefix(value, " "))
		}
	}
	return values
}

// id returns the id of a block.
func (b *blockStream) id(lines []string) string {
	ids := fields(lines, "id")
	if len(ids) != 1 || ids[0] == "" {
		b.check.fatalf("GET %.100s: the block %q has no id", b.what, lines)
	}
	return ids[0]
}

// ends has the response end, with nothing more in it.
func (b *blockStream) ends() {
	for began := time.Now(); time.Since(began) < b.check.patience(); {
		switch lines, err := b.tryBlock(); {
		case errors.Is(err, io.EOF) && len(lines) == 0:
			return
		case err != nil:
			b.check.fatalf("GET %.100s: the response didn't end in good order: %v, after %q", b.what, err, lines)
		case len(lines) > 0 && !strings.HasPrefix(lines[0], ":"):
			b.check.fatalf("GET %.100s: the block %q came, where the response should have ended", b.what, lines)
		}
	}
	b.check.fatalf("GET %.100s: the response has not ended after %s", b.what, b.check.waited())
}

// parseObject reads one of the objects of §2: an event, an opening or a gap. What is
// none of them is an empty item.
func (c *serverCheck) parseObject(text string) (it wireclient.Item) {
	var o struct {
		Channel, Position, Type, Encoding string
		Data                              json.RawMessage
		Gap                               *wireclient.Gap
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		c.errorf("%.200q is no JSON object: %v", text, err)
		return it
	}
	it = wireclient.Item{Channel: o.Channel, Position: o.Position, Type: o.Type, Gap: o.Gap, Data: o.Data, JSON: true}
	it.Event, it.Opening = o.Data != nil, o.Data == nil && o.Gap == nil && o.Position != ""
	if o.Encoding == "base64" {
		var encoded string
		_ = json.Unmarshal(o.Data, &encoded)
		var err error
		if it.Data, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			c.errorf("the data of %.200q is not base64: %v", text, err)
		}
		it.JSON = false
	}
	return it
}
