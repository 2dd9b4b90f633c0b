package conformance

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

var pasts = []Feature{HistoryPages}

// What §12 of PROTOCOL.md promises to who reads what a channel holds.
var pastClauses = []serverClause{
	{
		id: "P12.1_Bounds", group: "history", clock: anyClock, needs: pasts,
		text: "MUST: a page holds what lies within the positions and times that are asked for, in the order that is asked for, and no more events than that.",
		run:  (*serverCheck).pastBounds,
	},
	{
		id: "P12.2_Answer", group: "history", clock: anyClock, needs: pasts,
		text: "MUST: a page has each event as P2.2 says, with its time, key and tags, and tells where it ends, whether that is all, and the ends of what is kept.",
		run:  (*serverCheck).pastAnswer,
	},
	{
		id: "P12.2_PagesJoin", group: "history", clock: anyClock, needs: pasts,
		text: "MUST: pages that are asked for one after the other hold each event once and in order, in both orders.",
		run:  (*serverCheck).pastPagesJoin,
	},
	{
		id: "P12.3_Filters", group: "history", clock: anyClock, needs: pasts,
		text: "MUST: with a filter pages hold the events that it lets through and no others, and move on over the others.",
		run:  (*serverCheck).pastFilters,
	},
	{
		id: "P12.4_Gaps", group: "history", clock: anyClock, needs: []Feature{HistoryPages, Retention},
		text:  "MUST: what was asked for and is trimmed, or of another history, is said by a gap, before what follows it.",
		setup: ServerSetup{Keep: 4},
		run:   (*serverCheck).pastGaps,
	},
	{
		id: "P12.5_HistoryIsARight", group: "rights", over: append([]form{{name: "by GET"}}, upForms...), clock: anyClock, needs: []Feature{HistoryPages, Rights},
		text: "MUST: who may not read history is refused with the program's code, also beside a position.",
		setup: ServerSetup{Refuse: func(action, _, channel string) string {
			return map[string]string{"history": refuseSome("", "", channel)}[action]
		}},
		run: (*serverCheck).pastIsARight,
	},
	{
		id: "P12.6_Caches", group: "history", clock: anyClock, needs: []Feature{HistoryPages, Retention},
		text:  "MUST: only a page that can't become another may be kept, and its ETag is answered 304.",
		setup: ServerSetup{Keep: 20},
		run:   (*serverCheck).pastCaches,
	},
	{
		id: "P12.6_NotPastTheRight", group: "rights", clock: anyClock, needs: []Feature{HistoryPages, Identities, Rights},
		text: "MUST: an ETag is answered 304 only to who has the right, and what others may not read is private.",
		setup: ServerSetup{Subjects: true, Refuse: func(action, subject, _ string) string {
			if action == "history" && subject == "bob" {
				return "forbidden"
			}
			return ""
		}},
		run: (*serverCheck).notPastTheRight,
	},
	{
		id: "P12.7_Compressed", group: "history", clock: anyClock, needs: pasts,
		text: "MUST: a page is compressed only for who takes gzip, is one member, and says the same.",
		run:  func(c *serverCheck) { c.compressedAlike("GET", "/history?channel=room", "") },
	},
	{
		id: "P5.6_Compressed", group: "plain use", over: []form{plainPoll, sessionPoll}, clock: anyClock,
		text: "MUST: an answer is compressed only for who takes gzip, is one member, and says the same.",
		run: func(c *serverCheck) {
			if c.form.name == plainPoll.name {
				c.compressedAlike("GET", "/poll?channel=room&after=earliest", "")
			} else {
				c.compressedAlike("POST", "/poll", string(wireclient.HelloFor("earliest", "room").Frame()))
			}
		},
	},
	{
		id: "P12.8_BadRequests", group: "malformed input", clock: anyClock, needs: pasts,
		text: "MUST: a question that can't be read is refused with 400 and the code that says what is wrong.",
		run:  (*serverCheck).badPasts,
	},
	{
		id: "P12.9_AsByGET", group: "upstream", over: upForms, clock: anyClock, needs: pasts,
		text: "MUST: the frame history is answered with the page that a GET of the same has, under its id.",
		run:  (*serverCheck).pastByFrame,
	},
	{
		id: "P12.9_BadFrames", group: "malformed input", over: upForms, clock: anyClock, needs: pasts,
		text: "MUST: a frame history that can't be read is refused with its code, as other frames are.",
		run:  (*serverCheck).badPastFrames,
	},
}

// A pastPage is a page as it is written.
type pastPage struct {
	Events            []json.RawMessage
	Next, First, Head *string
	Done              *bool
	Gap               *wireclient.Gap
}

// past asks for a page, which has to be given.
func (c *serverCheck) past(query string) pastPage {
	a := c.ask(c.http, "GET", "/history?channel=room"+query, "")
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	var p pastPage
	if err := json.Unmarshal([]byte(a.text), &p); err != nil || a.status != 200 || media != "application/json" {
		c.fatalf("GET /history?channel=room%s was answered %d %q %.200q", query, a.status, a.header.Get("Content-Type"), a.text)
	}
	p.check(c, query)
	return p
}

// check has a page hold all that a page has.
func (p *pastPage) check(c *serverCheck, query string) {
	if p.Events == nil || p.Next == nil || p.First == nil || p.Head == nil || p.Done == nil {
		c.fatalf("the page of %q lacks one of events, next, first, head and done", query)
	}
}

// data are the events' data, joined by spaces.
func (p *pastPage) data(c *serverCheck) string {
	var all []string
	for _, raw := range p.Events {
		all = append(all, string(c.parseObject(string(raw)).Data))
	}
	return strings.Join(all, " ")
}

// pastAll asks for page after page; bound is what their next stands for.
func (c *serverCheck) pastAll(query, bound string) string {
	var all []string
	next := ""
	for range 1000 {
		q := query
		if next != "" {
			q += "&" + bound + "=" + next
		}
		p := c.past(q)
		if data := p.data(c); data != "" {
			all = append(all, data)
		}
		if *p.Done {
			return strings.Join(all, " ")
		}
		if *p.Next == next {
			break
		}
		next = *p.Next
	}
	c.fatalf("the pages of %q don't come to an end", query)
	return ""
}

func (c *serverCheck) pastBounds() {
	at := c.publishMany("room", 0, 9)
	for query, want := range map[string]string{
		"":                                    "0 1 2 3 4 5 6 7 8 9",
		"&order=asc":                          "0 1 2 3 4 5 6 7 8 9",
		"&order=desc":                         "9 8 7 6 5 4 3 2 1 0",
		"&after=" + at[6]:                     "7 8 9",
		"&until=" + at[2]:                     "0 1 2",
		"&after=" + at[2] + "&until=" + at[5]: "3 4 5",
		"&order=desc&after=" + at[2] + "&until=" + at[5]: "5 4 3",
		"&after=" + at[4] + "&until=" + at[4]:            "",
		"&limit=3":                                       "0 1 2",
		"&after=" + at[0] + "&limit=3":                   "1 2 3",
		"&last=3":                                        "9 8 7",
		"&last=3&until=" + at[5]:                         "5 4 3",
		"&since=0":                                       "0 1 2 3 4 5 6 7 8 9",
		"&before=0":                                      "",
		"&since=32503680000000":                          "",
		"&order=desc&before=32503680000000&limit=1":      "9",
	} {
		p := c.past(query)
		c.expect("the page of "+query, p.data(c), want)
	}
	times := c.pastTimes(c.past(""))
	if !slices.IsSorted(times) {
		c.errorf("the events' times, %v, go back", times)
	}
	same := 0
	for _, t := range times {
		if t < times[len(times)-1] {
			same++
		}
	}
	for query, n := range map[string]int{"&since=": len(times) - same, "&before=": same} {
		if p := c.past(query + fmt.Sprint(times[len(times)-1])); len(p.Events) != n {
			c.errorf("%s and the time of the last of %d events has %d of them, not %d", query, len(times), len(p.Events), n)
		}
	}
}

// pastTimes are the events' times.
func (c *serverCheck) pastTimes(p pastPage) (all []int64) {
	for _, raw := range p.Events {
		var e struct{ Time *int64 }
		if err := json.Unmarshal(raw, &e); err != nil || e.Time == nil {
			c.fatalf("the event %.200s has no time: %v", raw, err)
		}
		all = append(all, *e.Time)
	}
	return all
}

func (c *serverCheck) pastAnswer() {
	empty := c.past("")
	if *empty.First != *empty.Head || !*empty.Done || *empty.Next != *empty.Head {
		c.errorf("a channel that nobody wrote has the page %+v", empty)
	}
	before := time.Now().Add(-time.Second)
	first := c.publishMessage("room", eventlog.Message{Type: "said", Data: []byte(`{"a": 1}`), Key: "k", Tags: []string{"x", "y"}})
	last := c.publishMessage("room", eventlog.Message{Kind: eventlog.Binary, Data: []byte{0, 1, 2}})
	p := c.past("")
	if len(p.Events) != 2 || !*p.Done || *p.Next != last || *p.Head != last || *p.First != *empty.First {
		c.fatalf("the page of two events has %d, done %v, next %q, first %q and head %q, where the last is %q", len(p.Events), *p.Done, *p.Next, *p.First, *p.Head, last)
	}
	want := fmt.Sprintf(`{"channel":"room","data":{"a":1},"key":"k","position":%q,"tags":["x","y"],"type":"said"} {"channel":"room","data":"AAEC","encoding":"base64","position":%q,"type":"message"}`, first, last)
	var got []string
	for _, raw := range p.Events {
		var e map[string]any
		_ = json.Unmarshal(raw, &e)
		delete(e, "time")
		text, _ := json.Marshal(e)
		got = append(got, string(text))
	}
	c.expect("the events of a page, but for their times", strings.Join(got, " "), want)
	for _, ms := range c.pastTimes(p) {
		if at := time.UnixMilli(ms); at.Before(before) || at.After(time.Now().Add(time.Second)) {
			c.errorf("an event of now has the time %v", at)
		}
	}
	if p := c.past("&limit=1"); *p.Done || *p.Next != first {
		c.errorf("a page of the first of two events has done %v and next %q, not %q", *p.Done, *p.Next, first)
	}
}

func (c *serverCheck) pastPagesJoin() {
	at := c.publishMany("room", 0, 40)
	var forth, back []string
	for n := range 41 {
		forth = append(forth, fmt.Sprint(n))
		back = append(back, fmt.Sprint(40-n))
	}
	c.expect("pages of 7", c.pastAll("&limit=7", "after"), strings.Join(forth, " "))
	c.expect("pages of 7, the newest first", c.pastAll("&order=desc&limit=7", "until"), strings.Join(back, " "))
	c.expect("pages of 3 from an event to another", c.pastAll("&limit=3&until="+at[20], "after"), strings.Join(forth[:21], " "))
	c.expect("pages as large as the server has them", c.pastAll("", "after"), strings.Join(forth, " "))
}

func (c *serverCheck) pastFilters() {
	c.aMix("room", 0)
	c.aMix("room", 10)
	for _, f := range choices {
		want := append(numbers(0, f.of), numbers(10, f.of)...)
		c.expect(fmt.Sprintf("the page of %+v", f.choice), c.pastAll(f.query(), "after"), strings.Join(want, " "))
		c.expect(fmt.Sprintf("pages of one event of %+v", f.choice), c.pastAll("&limit=1"+f.query(), "after"), strings.Join(want, " "))
		slices.Reverse(want)
		c.expect(fmt.Sprintf("the page of %+v, the newest first", f.choice), c.pastAll("&order=desc&limit=2"+f.query(), "until"), strings.Join(want, " "))
	}
	if p := c.past("&type=none"); len(p.Events) > 0 || *p.Next != *p.Head || !*p.Done {
		c.errorf("a page of which all is left out has %d events, next %q and head %q", len(p.Events), *p.Next, *p.Head)
	}
}

func (c *serverCheck) pastGaps() {
	at := c.publishMany("room", 0, 20)
	first := c.past("")
	n := len(first.Events)
	if n < 4 || n > 8 || *first.First != at[20-n] {
		c.fatalf("of 21 events, of which 4 at least are kept, and not twice as many, %d are there after %q", n, *first.First)
	}
	held := first.data(c)
	trimmed := func(from string) *wireclient.Gap {
		return &wireclient.Gap{From: from, To: *first.First, Reason: "trimmed"}
	}
	other := c.publishMany("other", 0, 30)[30] // no place here has its offset
	rewritten := &wireclient.Gap{From: other, To: at[20], Reason: "rewritten"}
	if got := c.past("&order=desc&limit=2&after=" + at[2]); got.Gap != nil && *got.Done {
		c.errorf("the newest 2 of more are said to be all")
	}
	for query, want := range map[string]struct {
		data string
		gap  *wireclient.Gap
	}{
		"":                                    {held, nil},
		"&after=" + at[2]:                     {held, trimmed(at[2])},
		"&until=" + at[2]:                     {"", trimmed(at[2])},
		"&after=" + at[20-n]:                  {held, nil},
		"&after=" + other:                     {"", rewritten},
		"&until=" + other:                     {"", rewritten},
		"&after=" + at[2] + "&until=" + at[4]: {"", trimmed(at[2])},
		"&after=" + at[2] + "&limit=1":        {held[:2], trimmed(at[2])},
	} {
		p := c.past(query)
		c.expect("the page of "+query, p.data(c), want.data)
		if (p.Gap == nil) != (want.gap == nil) || p.Gap != nil && *p.Gap != *want.gap {
			c.errorf("the page of %s has the gap %+v, not %+v", query, p.Gap, want.gap)
		}
	}
	p := c.past("&order=desc&after=" + at[2])
	if p.Gap == nil || *p.Gap != *trimmed(at[2]) || !*p.Done || len(p.Events) != n {
		c.errorf("backwards to a position that is trimmed: %d events, done %v, and the gap %+v", len(p.Events), *p.Done, p.Gap)
	}
}

// pastRefused asks for a page by the clause's way, and returns how it was refused.
func (c *serverCheck) pastRefused(channel, after string) string {
	if c.form.carrier == "" {
		a := c.ask(c.http, "GET", "/history"+wireclient.Query(after, channel), "")
		if a.status == 200 {
			return ""
		}
		return c.refusal("GET /history of "+channel, a).Code
	}
	it := c.mouth()(fmt.Sprintf(`{"history":{"id":1,"channel":%q,"after":%q}}`, channel, after))
	if it.Reply != nil && it.Reply.Error != nil {
		return it.Reply.Error.Code
	}
	if it.Reply != nil && it.Reply.Next != "" {
		return ""
	}
	return inWords(it)
}

func (c *serverCheck) pastIsARight() {
	for channel, want := range map[string]string{"secret": "forbidden", "crowded": "busy", "room": ""} {
		at := c.publish(channel, "1")
		c.expect("the history of "+channel, c.pastRefused(channel, ""), want)
		c.expect("the history of "+channel+" from a position", c.pastRefused(channel, at), want)
	}
}

var maxAge = regexp.MustCompile(`\bmax-age=(\d+)\b`)

// kept reports whether caches may keep an answer without asking.
func kept(a httpAnswer) bool {
	cache := a.header.Get("Cache-Control")
	m := maxAge.FindStringSubmatch(cache)
	if m == nil || strings.Contains(cache, "no-store") || strings.Contains(cache, "no-cache") {
		return false
	}
	age, _ := strconv.Atoi(m[1])
	return age > 0
}

func (c *serverCheck) pastCaches() {
	at := c.publishMany("room", 0, 9)
	ask := func(query string, headers ...string) httpAnswer {
		return c.ask(c.http, "GET", "/history?channel=room"+query, "", headers...)
	}
	for _, query := range []string{"", "&limit=2", "&order=desc", "&last=2", "&after=" + at[5], "&order=desc&until=" + at[5], "&until=" + at[5], "&since=0", "&before=32503680000000&after=" + at[2]} {
		if a := ask(query); kept(a) {
			c.errorf("the page of %q, which becomes another, is answered with Cache-Control %q", query, a.header.Get("Cache-Control"))
		}
	}
	for _, query := range []string{"&after=" + at[2] + "&until=" + at[5], "&after=" + at[2] + "&limit=2", "&order=desc&limit=2&until=" + at[5], "&order=desc&after=" + at[2] + "&until=" + at[5]} {
		a := ask(query)
		tag := a.header.Get("ETag")
		if !kept(a) || tag == "" {
			c.errorf("the page of %q, which can't become another, is answered with Cache-Control %q and ETag %q", query, a.header.Get("Cache-Control"), tag)
			continue
		}
		if again := ask(query, "If-None-Match", tag); again.status != 304 || again.text != "" || again.header.Get("ETag") != tag {
			c.errorf("the page of %q is answered with %d and %.100q to who has it", query, again.status, again.text)
		}
		if other := ask(query+"&type=said", "If-None-Match", tag); other.status != 200 {
			c.errorf("another page is answered with %d to who has that of %q", other.status, query)
		}
		if vary := strings.ToLower(strings.Join(a.header.Values("Vary"), ",")); !strings.Contains(vary, "accept-encoding") || !strings.Contains(vary, "cookie") || !strings.Contains(vary, "authorization") {
			c.errorf("a page that may be kept is answered with Vary %q", vary)
		}
	}
	c.publishMany("room", 10, 60)
	if a := ask("&after=" + at[2] + "&until=" + at[5]); kept(a) {
		c.errorf("a page with a gap is answered with Cache-Control %q", a.header.Get("Cache-Control"))
	}
}

func (c *serverCheck) notPastTheRight() {
	at := c.publishMany("room", 0, 9)
	path := "/history?channel=room&after=" + at[2] + "&until=" + at[5]
	a := c.ask(c.http, "GET", path, "", "Authorization", "Bearer ann")
	if !kept(a) || strings.Contains(a.header.Get("Cache-Control"), "public") || !strings.Contains(a.header.Get("Cache-Control"), "private") {
		c.errorf("a page that not everybody may read is answered with Cache-Control %q", a.header.Get("Cache-Control"))
	}
	b := c.ask(c.http, "GET", path, "", "Authorization", "Bearer bob", "If-None-Match", a.header.Get("ETag"))
	c.refusedAs("the page of an ETag, to who may not read it,", b, 403, "forbidden", "never")
	if strings.Contains(b.header.Get("Cache-Control"), "max-age") {
		c.errorf("a refusal may be kept: Cache-Control %q", b.header.Get("Cache-Control"))
	}
}

// volatile are what of an answer differs from one to the next.
var volatile = regexp.MustCompile(`"(token|session)":"[^"]*"`)

// compressedAlike asks for something large in several codings.
func (c *serverCheck) compressedAlike(method, path, body string) {
	for n := range 100 {
		c.publish("room", fmt.Sprintf(`"%d, and the same again and again"`, n))
	}
	plain := c.ask(c.http, method, path, body)
	if coding := plain.header.Get("Content-Encoding"); coding != "" {
		c.errorf("who names no coding is answered with %q", coding)
	}
	want := volatile.ReplaceAllString(plain.text, "")
	for _, accept := range []string{"gzip", "br, gzip;q=0.5", "identity", "gzip;q=0", "br", "*;q=0", "gzip;q=0, *"} {
		a := c.ask(c.http, method, path, body, "Accept-Encoding", accept)
		text := a.text
		switch coding := a.header.Get("Content-Encoding"); {
		case coding == "gzip" && (accept == "gzip" || accept == "br, gzip;q=0.5"):
			var err error
			if text, err = oneMember(a.text); err != nil {
				c.errorf("%s %s, compressed: %v", method, path, err)
			}
			if vary := strings.ToLower(strings.Join(a.header.Values("Vary"), ",")); !strings.Contains(vary, "accept-encoding") {
				c.errorf("%s %s, compressed, is answered with Vary %q", method, path, vary)
			}
		case coding != "":
			c.errorf("%s %s of who takes %q is answered with the coding %q", method, path, accept, coding)
		}
		if got := volatile.ReplaceAllString(text, ""); got != want {
			c.errorf("%s %s of who takes %q says %.200q, not %.200q", method, path, accept, got, want)
		}
	}
}

// oneMember unpacks gzip of one member, as browsers do: they read no other.
func oneMember(packed string) (string, error) {
	in := strings.NewReader(packed)
	z, err := gzip.NewReader(in)
	if err != nil {
		return "", err
	}
	z.Multistream(false)
	text, err := io.ReadAll(z)
	if err == nil && in.Len() > 0 {
		err = fmt.Errorf("%d bytes follow the first member", in.Len())
	}
	return string(text), err
}

// badPastQueries are queries that can't be, and how they are refused.
func badPastQueries(at []string) map[string]string {
	return map[string]string{
		"":                              "bad_request",
		"channel=":                      "bad_channel",
		"channel=a&channel=b":           "too_many_channels",
		"channel=room&after=yesterday!": "bad_position",
		"channel=room&until=latest":     "bad_position",
		"channel=room&after=last%3D3":   "bad_position",
		"channel=room&after=" + at[3] + "&until=" + at[1]: "bad_request",
		"channel=room&since=2&before=1":                   "bad_request",
		"channel=room&since=2026-01-01":                   "bad_request",
		"channel=room&before=-1":                          "bad_request",
		"channel=room&limit=0":                            "bad_request",
		"channel=room&limit=-1":                           "bad_request",
		"channel=room&limit=x":                            "bad_request",
		"channel=room&last=0":                             "bad_request",
		"channel=room&last=3&limit=3":                     "bad_request",
		"channel=room&last=3&order=asc":                   "bad_request",
		"channel=room&order=backwards":                    "bad_request",
		"channel=room&tag=" + strings.Repeat("x", 300):    "bad_request",
		"channel=room" + strings.Repeat("&key=k", 17):     "bad_request",
	}
}

func (c *serverCheck) badPasts() {
	at := c.publishMany("room", 0, 4)
	for query, code := range badPastQueries(at) {
		c.refusedInWords("GET /history?"+query, c.ask(c.http, "GET", "/history?"+query, ""), 400, code, "never")
	}
}

// frameOf is a query as a frame.
func frameOf(query string) string {
	values, _ := url.ParseQuery(query)
	fields := map[string]any{"id": 7}
	for name := range values {
		switch text := values.Get(name); name {
		case "since", "before", "limit", "last":
			fields[name] = json.Number(text)
		case "type", "tag", "key":
			fields["filter"] = map[string]any{name + "s": values[name]}
		default:
			fields[name] = text
		}
	}
	text, _ := json.Marshal(map[string]any{"history": fields})
	return string(text)
}

func (c *serverCheck) pastByFrame() {
	at := c.publishMany("room", 0, 9)
	c.aMix("room", 10)
	say := c.mouth()
	for _, query := range []string{"", "&limit=3", "&last=2", "&order=desc&limit=4&until=" + at[5], "&after=" + at[2] + "&until=" + at[5], "&since=0&before=32503680000000", "&type=said", "&tag=y", "&key=k&key=l"} {
		want := c.past(query)
		it := say(frameOf("channel=room" + query))
		if it.Reply == nil || it.Reply.Error != nil || it.Reply.ID != 7 {
			c.fatalf("the frame %s was answered with %s", frameOf("channel=room"+query), inWords(it))
		}
		got := pastPage{Events: it.Reply.Events, Next: &it.Reply.Next, First: &it.Reply.First, Head: &it.Reply.Head, Done: &it.Reply.Done, Gap: it.Reply.Gap}
		inShort := func(p pastPage) string {
			return fmt.Sprintf("%s, next %s, first %s, head %s, done %v", p.data(c), *p.Next, *p.First, *p.Head, *p.Done)
		}
		c.expect("the page of "+query, inShort(got), inShort(want))
		if len(c.pastTimes(got)) != len(want.Events) {
			c.errorf("the page of %s has no times", query)
		}
	}
	c.expect("the history of a channel that can't be", replyOf(say(`{"history":{"id":8,"channel":""}}`)), "8:bad_channel")
}

func (c *serverCheck) badPastFrames() {
	at := c.publishMany("room", 0, 4)
	for query, code := range badPastQueries(at) {
		switch values, _ := url.ParseQuery(query); {
		case len(values["channel"]) != 1, values.Get("channel") == "", values.Get("limit") != "" && values.Get("limit") != "-1", values.Get("last") == "0", strings.Contains(query, "2026"):
			continue // a frame can't say so, or says something else by it
		}
		c.expect("the frame of "+query, replyOf(c.mouth()(frameOf(query))), "refused:"+code)
	}
}
