package conformance

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

func (c *serverCheck) upToSixteenChannels() {
	var names []string
	for n := range 17 {
		names = append(names, fmt.Sprint("room ", n))
	}
	r := c.readMany("", names[:16]...)
	r.next() // the opening
	for _, name := range names[:16] {
		at := c.publish(name, "1")
		if it := r.next(); it.Channel != name || it.Position != at {
			c.errorf("a stream of 16 channels brought %s of %q, not the event of %q at %q", inWords(it), it.Channel, name, at)
		}
	}
	c.refusedInWords("17 channels", c.ask(c.http, "GET", "/sse"+wireclient.Query("", names...), ""), 400, "too_many_channels", "never")
}

func (c *serverCheck) lastEventIDWins() {
	at := c.publishMany("room", 1, 4)
	for _, after := range []string{"", "latest", "earliest", "last=1", at[0], at[3]} {
		s := c.stream(wireclient.Query(after, "room"), "Last-Event-ID", at[1])
		if id := s.id(s.block()); id != at[1] {
			c.errorf("with the Last-Event-ID %q and after=%s, the stream opens at %q", at[1], after, id)
			continue
		}
		s.expect("data: 3", "id: "+at[2])
		s.expect("data: 4", "id: "+at[3])
	}
}

func (c *serverCheck) startsForSeveral() {
	for i, start := range []struct {
		after string
		from  int // the first event of three; 3: none
	}{{"", 3}, {"latest", 3}, {"earliest", 0}, {"last=2", 1}} {
		pair := []string{fmt.Sprint("a", i), fmt.Sprint("b", i)}
		a, b := c.publishMany(pair[0], 1, 3), c.publishMany(pair[1], 1, 3)
		s := c.stream(wireclient.Query(start.after, pair...) + "&as=event")
		vector := s.id(s.block())
		came := c.comesOf(s, pair, "after="+start.after, append(a[start.from:], b[start.from:]...))
		s = c.stream(wireclient.Query(vector, pair...) + "&as=event")
		s.block()
		c.comesOf(s, pair, "the vector that it gave in after", came)
		c.refusedInWords("one position for two channels", c.ask(c.http, "GET", "/sse"+wireclient.Query(a[0], pair...), ""), 400, "bad_position", "never")
	}
}

// comesOf takes events of several channels in any order, and then what is
// published of each.
func (c *serverCheck) comesOf(s *blockStream, channels []string, what string, positions []string) (came []string) {
	want := map[string]bool{}
	for _, position := range positions {
		want[position] = true
	}
	more := len(channels)
	for len(want)+more > 0 {
		if len(want) == 0 {
			more--
			want[c.publish(channels[more], `"more"`)] = true
		}
		lines := s.news()
		it := c.parseObject(strings.Join(fields(lines, "data"), "\n"))
		if !want[it.Position] {
			c.fatalf("of %q with %s, %q came, which is none of %v", channels, what, lines, want)
		}
		delete(want, it.Position)
		came = append(came, it.Position)
	}
	return came
}

func (c *serverCheck) beginsWithRetryAndID() {
	at := c.publish("room", "1")
	for _, query := range []string{wireclient.Query("", "room"), wireclient.Query(at, "room"), wireclient.Query("", "room", "other")} {
		s := c.stream(query)
		if media, _, _ := strings.Cut(s.header.Get("Content-Type"), ";"); media != "text/event-stream" {
			c.errorf("GET /sse%s: the Content-Type is %q", query, s.header.Get("Content-Type"))
		}
		first := s.block()
		retry := fields(first, "retry")
		if len(retry) != 1 || len(fields(first, "data"))+len(fields(first, "event")) > 0 {
			c.fatalf("GET /sse%s begins with %q, not with a retry and an id without data", query, first)
		}
		if ms, err := strconv.Atoi(retry[0]); err != nil || ms <= 0 || ms > 60_000 {
			c.errorf("GET /sse%s: the retry %q is no delay", query, retry[0])
		}
		if id := s.id(first); !strings.Contains(query, "other") && id != at {
			c.errorf("GET /sse%s: the stream opens at %q, not at %q", query, id, at)
		}
	}
}

func (c *serverCheck) oneBlockAnEvent() {
	s := c.stream(wireclient.Query("", "room"))
	s.block()
	for _, m := range []eventlog.Message{
		{Type: "said", Data: []byte(`{"a": [1, 2]}`)},
		{Data: []byte("[\n 1,\n\n 2]")},
		{Kind: eventlog.Text, Data: []byte("two\nlines")},
		{Kind: eventlog.Text, Data: []byte("ends\n")},
		{Kind: eventlog.Text, Data: []byte("")},
		{Kind: eventlog.Text, Data: []byte(" indented: x")},
		{Kind: eventlog.Text, Data: []byte("id: forged")},
		{Kind: eventlog.Text, Data: []byte("\n\nevent: x\n\n")},
	} {
		at := c.publishMessage("room", m)
		want := []string{"id: " + at}
		for line := range strings.SplitSeq(string(m.Data), "\n") {
			want = append(want, "data: "+line)
		}
		s.expect(want...)
	}
}

func (c *serverCheck) dataURLs() {
	s := c.stream(wireclient.Query("", "room"))
	s.block()
	for _, m := range []eventlog.Message{
		{Kind: eventlog.Binary, Data: []byte{0, 255, 10, 13}},
		{Kind: eventlog.Binary, Data: []byte{}},
		{Kind: eventlog.Binary, Data: []byte("text")},
		{Kind: eventlog.Text, Data: []byte("a\rb")},
		{Kind: eventlog.Text, Data: []byte("a\r\nb")},
		{Kind: eventlog.JSON, Data: []byte("[1,\r\n2]")},
		{Kind: eventlog.Text, Data: []byte("data:;base64,AAAA")},
	} {
		at := c.publishMessage("room", m)
		s.expect("data: data:;base64,"+base64.StdEncoding.EncodeToString(m.Data), "id: "+at)
	}
	at := c.publishMessage("room", eventlog.Message{Kind: eventlog.Text, Data: []byte("a data:;base64,AAAA")})
	s.expect("data: a data:;base64,AAAA", "id: "+at) // that nobody takes for one
}

func (c *serverCheck) asEvent() {
	s := c.stream(wireclient.Query("", "room") + "&as=event")
	s.block()
	for _, m := range []eventlog.Message{
		{Type: "said", Data: []byte("{\"a\": [1,\n 2]}")}, {Kind: eventlog.Text, Data: []byte("two\nlines\r")}, {Kind: eventlog.Binary, Data: []byte{0, 255}},
	} {
		at := c.publishMessage("room", m)
		lines := s.news()
		it, data := wireclient.Item{}, fields(lines, "data")
		if len(data) == 1 {
			it = c.parseObject(data[0])
		}
		if how := differs(it, m, false); !it.Event || it.Channel != "room" || it.Position != at || s.id(lines) != at || how != "" || len(fields(lines, "event")) > 0 {
			c.errorf("with as=event, the %v %q at %q came as %q; %s", m.Kind, m.Data, at, lines, how)
		}
	}
}

func (c *serverCheck) namedEvents() {
	named := c.stream(wireclient.Query("", "room") + "&events=named")
	both := c.stream(wireclient.Query("", "room") + "&events=named&as=event")
	plain := c.stream(wireclient.Query("", "room"))
	for _, s := range []*blockStream{named, both, plain} {
		s.block()
	}
	for published, shown := range map[string]string{"said": "event: said", "room.moved é": "event: room.moved é", "": "", "message": ""} {
		at := c.publishMessage("room", eventlog.Message{Type: published, Data: []byte("1")})
		want := []string{"data: 1", "id: " + at}
		plain.expect(want...)
		if shown != "" {
			want = append(want, shown)
		}
		named.expect(want...)
		if got := strings.Join(fields(both.news(), "event"), "\n"); "event: "+got != shown && got+shown != "" {
			c.errorf("with events=named and as=event, an event of the type %q is named %q", published, got)
		}
	}
}

func (c *serverCheck) gapIsABlock() {
	at := c.publishMany("room", 1, 10)
	held := c.firstHeld("room", at)
	end := at[held-1]
	for _, more := range []string{"", "&events=named", "&as=event"} {
		query := wireclient.Query(at[1], "room") + more
		s := c.stream(query)
		first := s.block()
		if len(fields(first, "retry")) != 1 {
			c.errorf("GET /sse%s: the first block, %q, holds no retry", query, first)
		}
		if len(fields(first, "data")) == 0 { // the retry alone
			if ids := fields(first, "id"); len(ids) > 0 && ids[0] != at[1] {
				c.errorf("GET /sse%s: the first block, %q, is already where the gap ends", query, first)
			}
			first = s.news()
		}
		it := c.parseObject(strings.Join(fields(first, "data"), "\n"))
		if kind := fields(first, "event"); len(kind) != 1 || kind[0] != "throughline.gap" || it.Channel != "room" || it.Gap == nil || *it.Gap != (wireclient.Gap{From: at[1], To: end, Reason: "trimmed"}) {
			c.fatalf("GET /sse%s: %q came, not a gap \"trimmed\" from %q to %q", query, first, at[1], end)
		}
		if id := s.id(first); id != end {
			c.errorf("GET /sse%s: the gap has the id %q, not its own end, %q", query, id, end)
		}
		if id := s.id(s.news()); id != at[held] {
			c.errorf("GET /sse%s: after the gap comes the event at %q, not that at %q", query, id, at[held])
		}
	}
}

func (c *serverCheck) reservedTypes() {
	for _, kind := range []string{"throughline.gap", "throughline.", "throughline.x", "open", "error"} {
		if at, err := c.testee.Publish(c.ctx, "room", eventlog.Message{Type: kind, Data: []byte("1")}); err == nil {
			c.errorf("an event of the type %q was published, at %q", kind, at)
		}
	}
	for _, kind := range []string{"throughline", "opened", "errors", "Open", "gap"} {
		c.publishMessage("room", eventlog.Message{Type: kind, Data: []byte("1")})
	}
}

func (c *serverCheck) vectorsResumeEach() {
	channels := []string{"a", "b", "c"}
	query := wireclient.Query("", channels...) + "&as=event"
	s := c.stream(query)
	id := s.id(s.block())
	for n := range 12 { // a connection for each event that is taken
		want := map[string]bool{}
		for i := range 2 {
			want[c.publish(channels[(n+i)%3], "1")] = true
		}
		for range 2 {
			s = c.stream(query, "Last-Event-ID", id)
			if opened := s.id(s.block()); opened != id {
				c.fatalf("presented the vector %q, the stream opens at %q", id, opened)
			}
			lines := s.news()
			at := c.parseObject(strings.Join(fields(lines, "data"), "\n")).Position
			if !want[at] {
				c.fatalf("presented the vector %q, %q came, which is none of %v", id, lines, want)
			}
			delete(want, at)
			id = s.id(lines)
			s.cancel()
		}
	}
}

func (c *serverCheck) vectorOfAnotherList() {
	c.publish("a", "1")
	s := c.stream(wireclient.Query("", "a", "b", "c"))
	id := s.id(s.block())
	single := c.stream(wireclient.Query("", "a"))
	position := single.id(single.block())
	for _, other := range []struct {
		id       string
		channels []string
	}{
		{id, []string{"b", "a", "c"}},
		{id, []string{"a", "b"}},
		{id, []string{"a", "b", "c", "d"}},
		{id, []string{"a", "b", "d"}},
		{id, []string{"ab", "c"}},
		{id, []string{"a"}},
		{position, []string{"a", "b"}},
		{id + "~" + position, []string{"a", "b", "c"}},
		{id[:len(id)-len(position)], []string{"a", "b", "c"}},
		{strings.Repeat("v~", 3000), []string{"a", "b", "c"}},
	} {
		what := fmt.Sprintf("the Last-Event-ID %.40q for the channels %q", other.id, other.channels)
		c.refusedInWords(what, c.ask(c.http, "GET", "/sse"+wireclient.Query("", other.channels...), "", "Last-Event-ID", other.id), 400, "bad_position", "never")
	}
}

func (c *serverCheck) vectorBeforeAGap() {
	c.publish("a", "0")
	query := wireclient.Query("", "a", "b")
	s := c.stream(query)
	id := s.id(s.block())
	s.cancel()
	c.settle() // what is read by nobody is kept by the log alone
	c.publishMany("a", 1, 10)
	for range 3 { // each comes back with what it was told before the gap
		s = c.stream(query, "Last-Event-ID", id)
		first := s.block()
		if len(fields(first, "data")) == 0 {
			id = s.id(first)
			first = s.news()
		}
		if it := c.parseObject(strings.Join(fields(first, "data"), "\n")); it.Gap == nil || it.Channel != "a" {
			c.fatalf("presented the vector %q, from which events of \"a\" are lost, %q came, not a gap", id, first)
		}
		s.cancel()
	}
}

func (c *serverCheck) commentsInSilence() {
	interval := c.setup.Heartbeat
	s := c.stream(wireclient.Query("", "room"))
	s.block()
	at := c.publish("room", "1")
	s.expect("data: 1", "id: "+at)
	last := time.Now()
	for n := range 6 {
		lines := s.block()
		took := time.Since(last)
		last = time.Now()
		for _, line := range lines {
			if !strings.HasPrefix(line, ":") {
				c.fatalf("a silent stream brought %q, not a comment", lines)
			}
		}
		if took > 2*interval || n > 0 && took < interval/2 {
			c.errorf("the interval is %v, and comment %d came after %v", interval, n+1, took)
		}
	}
}

func (c *serverCheck) oneRefusedRefusesAll() {
	for _, order := range [][]string{{"room", "secret"}, {"secret", "room"}, {"a", "b", "secret", "c"}} {
		c.refusedInWords(fmt.Sprintf("the channels %q", order), c.ask(c.http, "GET", "/sse"+wireclient.Query("", order...), ""), 403, "forbidden", "never")
	}
	s := c.stream(wireclient.Query("", "a", "b"))
	s.block()
}

// told checks that an answer is a stream that holds a retry, and ends.
func (c *serverCheck) told(what string, r httpAnswer) {
	media, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	if r.status != 200 || media != "text/event-stream" {
		c.fatalf("%s: answered %d %q %.200q, not with a stream", what, r.status, r.header.Get("Content-Type"), r.text)
	}
	lines := strings.Split(r.text, "\n")
	retry := fields(lines, "retry")
	if len(retry) == 0 || len(fields(lines, "data")) > 0 {
		c.fatalf("%s: answered with the stream %q, not with a retry", what, r.text)
	}
	if ms, err := strconv.Atoi(retry[len(retry)-1]); err != nil || ms <= 0 {
		c.errorf("%s: the retry %q is no delay", what, retry)
	}
}

func (c *serverCheck) refusedForAWhile() {
	at := c.publish("room", "1")
	c.told("a channel that is busy", c.ask(c.http, "GET", "/sse?channel=crowded", "", "Last-Event-ID", at))
	c.told("two channels, one of them busy", c.ask(c.http, "GET", "/sse?channel=room&channel=crowded", ""))
}

func (c *serverCheck) endsWithRetry() {
	streams := []*blockStream{c.stream(wireclient.Query("", "room")), c.stream(wireclient.Query("", "room", "other"))}
	for _, s := range streams {
		s.block()
	}
	at := c.publish("room", "1")
	for _, s := range streams {
		s.news()
	}
	over := make(chan error, 1)
	go func() { over <- c.testee.Shutdown(c.ctx) }()
	for _, s := range streams {
		last := s.news()
		if retry := fields(last, "retry"); len(retry) != 1 || len(last) != 1 {
			c.fatalf("GET %s: the server goes away, and %q comes, not a retry", s.what, last)
		}
		s.ends()
	}
	if err := <-over; err != nil {
		c.errorf("Testee.Shutdown: %v", err)
	}
	c.told("who comes when the server has gone", c.ask(c.http, "GET", "/sse?channel=room", "", "Last-Event-ID", at))
}

func (c *serverCheck) eventSourceGoesOn() {
	begin := c.publish("room", "0")
	e := c.eventSource(wireclient.Query(begin, "room"))
	var want []string
	for n := 1; n <= 30; n++ {
		want = append(want, c.publish("room", fmt.Sprint(n)))
	}
	for n, at := range want {
		e.event(at, fmt.Sprint(n+1))
		if n%3 == 1 || n%7 == 0 {
			e.drop()
		}
	}
	e.drop() // and while nothing comes
	at := c.publish("room", "31")
	e.event(at, "31")
	if e.opened < 10 {
		c.errorf("the EventSource was cut, but connected %d times only", e.opened)
	}
	if e.retry >= browserRetry*10 {
		c.errorf("the EventSource was told to wait %v", e.retry)
	}
}

func (c *serverCheck) eventSourceOfSeveral() {
	channels := []string{"a", "b", "c"}
	begin := c.stream(wireclient.Query("", channels...))
	id := begin.id(begin.block())
	e := c.eventSource(wireclient.Query(id, channels...) + "&as=event")
	want := map[string][]string{}
	for n := range 30 {
		name := channels[n*n%3]
		want[name] = append(want[name], c.publish(name, fmt.Sprint(n)))
	}
	for n := range 30 {
		d, ok := e.next()
		if !ok {
			c.fatalf("the EventSource gave up: %s", e.gaveUp)
		}
		it := c.parseObject(d.data)
		if left := want[it.Channel]; len(left) == 0 || left[0] != it.Position {
			c.fatalf("the EventSource shows %s of %q after %d cuts, where %.1q should come next", inWords(it), it.Channel, e.opened-1, left)
		}
		want[it.Channel] = want[it.Channel][1:]
		if n%3 == 0 {
			e.drop()
		}
	}
}

func (c *serverCheck) eventSourceShowsPayloads() {
	begin := c.publish("room", "0")
	e := c.eventSource(wireclient.Query(begin, "room"))
	for _, m := range payloadKinds() {
		at := c.publishMessage("room", m)
		d, ok := e.next()
		if !ok {
			c.fatalf("the EventSource gave up: %s", e.gaveUp)
		}
		url := "data:;base64," + base64.StdEncoding.EncodeToString(m.Data)
		asIs := m.Kind != eventlog.Binary && d.data == string(m.Data) && !strings.HasPrefix(d.data, "data:;base64,")
		if d.id != at || d.kind != "message" || !asIs && d.data != url {
			c.fatalf("the EventSource shows %.60q of the type %q at %q for the %v %.60q at %q", d.data, d.kind, d.id, m.Kind, m.Data, at)
		}
	}
}

func (c *serverCheck) eventSourceEnds() {
	for _, query := range []string{"?channel=secret", "?channel=room&after=yesterday!", ""} {
		e := c.eventSource(query)
		if d, ok := e.next(); ok || e.opened != 1 {
			c.errorf("an EventSource of /sse%s, which is refused, shows %q after %d connections, and does not end", query, d.data, e.opened)
		}
	}
	e := c.eventSource("?channel=crowded")
	began := time.Now()
	for n := range 4 {
		if n > 0 {
			time.Sleep(time.Until(e.ended.Add(e.retry)))
		}
		if !e.open() {
			c.fatalf("an EventSource that may return after a while ends for good, in connection %d: %s", n+1, e.gaveUp)
		}
		_, _ = e.block() // to the end of the response
		e.drop()
		if e.retry == browserRetry || e.retry <= 0 || e.retry > time.Minute {
			c.errorf("an EventSource that may return after a while was told to do so after %v", e.retry)
		}
	}
	if took := time.Since(began); took == 0 {
		c.errorf("an EventSource came back 3 times in %v", took)
	}
}
