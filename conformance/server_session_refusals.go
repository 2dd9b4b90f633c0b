package conformance

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// How refusals look, and which codes, classes and statuses go together: §8. The
// codes that belong to one thing only are with it: superseded and the ends of
// channels with the session, slow_consumer with slow readers, those of publishes
// and calls with upstream.
var refusalClauses = []serverClause{
	{
		id: "P8.1_RefusalsOverHTTP", group: "malformed input", over: []form{plainSSE, plainPoll, sessionSSE, sessionPoll}, clock: anyClock,
		text: "MUST: over HTTP a refusal is a status and a JSON object whose member error has a code and a class, without a delay where the class is never.",
		run:  (*serverCheck).refusalsOverHTTP,
	},
	{
		id: "P8.1_RetryAfter", group: "rights", over: []form{plainPoll}, clock: anyClock, needs: []Feature{Rights},
		text:  "MUST: a refusal of class later says after how many milliseconds one may come back, and Retry-After says the same in whole seconds, not less.",
		setup: ServerSetup{Refuse: refuseByName},
		run:   (*serverCheck).retryAfter,
	},
	{
		id: "P8.2_NeverStaysSo", group: "malformed input", over: sessionForms, clock: anyClock,
		text: "MUST: what is refused with class never is refused again if it comes again as it was, and accepted once it has changed.",
		run:  (*serverCheck).neverStaysSo,
	},
	{
		id: "P8.2_NowIsAtOnce", group: "sessions", over: sessionForms, clock: anyClock,
		text: "MUST: who was ended or refused with class now may come back at once: who was superseded as a new session, from the positions received.",
		run:  (*serverCheck).nowIsAtOnce,
	},
	{
		id: "P8.3_NotUnderstood", group: "malformed input", clock: anyClock,
		text:  "MUST: requests that can't be understood, are too large, compressed, for no path, or of a foreign page are refused with the codes, classes and statuses of the table.",
		setup: ServerSetup{MaxFrame: 2048},
		run:   (*serverCheck).notUnderstood,
	},
	{
		id: "P8.3_Publishing", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: a message that the log refuses is answered 400 invalid, and a producer's number lower than its last 409 stale, both of class never.",
		run:  (*serverCheck).refusedPublishes,
	},
	{
		id: "P8.3_Rights", group: "rights", clock: anyClock, needs: []Feature{Rights, PlainPoll},
		text:  "MUST: forbidden is 403, class never; busy 503, class later; a code of the program's own 400, or 503 with class later.",
		setup: ServerSetup{Refuse: refuseByName},
		run:   (*serverCheck).refusedRights,
	},
	{
		id: "P8.3_Identity", group: "rights", clock: anyClock, needs: []Feature{Identities, Expiry, PlainPoll},
		text:  "MUST: who is not known is refused with 401 unauthorized, class never, and who shows what has ended with 401 expired, class now.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).refusedIdentity,
	},
	{
		id: "P8.3_Unavailable", group: "drain and restart", over: []form{plainPoll, sessionSSE, sessionPoll, sessionWS}, needs: []Feature{Outages},
		text: "MUST: where the log does not answer a line is refused with 503 unavailable, class later, and let in when it answers again.",
		run:  (*serverCheck).refusedUnavailable,
	},
	{
		id: "P8.3_Shutdown", group: "drain and restart", over: []form{plainPoll, sessionSSE, sessionPoll}, clock: anyClock,
		text: "MUST: who comes to a server that is going away is refused with 503 shutdown, class later.",
		run:  (*serverCheck).refusedShutdown,
	},
	{
		id: "P8.3_Disconnected", group: "rights", over: sessionForms, clock: anyClock, needs: []Feature{Steering, Identities},
		text:  "MUST: a line that the program ends has the goodbye disconnected, class never, and nobody else's ends.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).disconnected,
	},
}

// poll asks once for what a channel has now.
func (c *serverCheck) poll(hc *http.Client, channel string) httpAnswer {
	return c.ask(hc, "GET", "/poll"+wireclient.Query("", channel), "")
}

func (c *serverCheck) refusalsOverHTTP() {
	path := "/" + c.form.carrier
	if c.form.needs == PlainSSE || c.form.needs == PlainPoll {
		c.refusedAs("a position that can't be read", c.ask(c.http, "GET", path+wireclient.Query("x y", "room"), ""), 400, "bad_position", "never")
		return
	}
	c.refusedAs("a hello that is none", c.ask(c.http, "POST", path, "x"), 400, "bad_request", "never")
	c.refusedAs("another version", c.ask(c.http, "POST", path, `{"hello":{"version":2,"line":1}}`), 400, "bad_version", "never")
}

func (c *serverCheck) retryAfter() {
	for _, ms := range []int64{1, 999, 1000, 1001, 1500, 90_000} {
		code := fmt.Sprintf("full %d", ms)
		why := c.refusedAs("a channel that is full", c.poll(c.http, "refused:"+code), 503, "full", "later")
		if why.After != ms {
			c.errorf("a refusal for %d ms says after %d", ms, why.After)
		}
	}
}

func (c *serverCheck) neverStaysSo() {
	for range 3 {
		c.replyRefused(`{"hello":{"version":2,"line":1}}`, 400, "bad_version")
		c.replyRefused(`{"hello":{"version":1,"line":"1"}}`, 400, "bad_request")
	}
	if got := c.replyTo(`{"hello":{"version":1,"line":1}}`); got.refused != nil {
		c.errorf("%s: after hellos that were refused a good one was refused with %q", c.form.name, got.refused.Code)
	}
}

func (c *serverCheck) nowIsAtOnce() {
	l := c.line(helloOf(5, "room"))
	at := l.opens("room", "")
	h := helloOf(4, "room")
	h.Token, h.Channels[0].After = l.token, at
	missed := c.publish("room", "1")
	_, err := c.tryLine(c.form, c.site, c.http, h)
	if r, ok := refusalOf(err); !ok || r.Class != "now" {
		c.fatalf("%s: a line that is lower than its session's was not refused with class now: %v", c.form.name, err)
	}
	h.Token = ""
	back, err := c.tryLine(c.form, c.site, c.http, h)
	if err != nil {
		c.fatalf("%s: who was refused with class now was not let in as a new session: %v", c.form.name, err)
	}
	if back.opened.Token == "" || back.opened.Token == l.token {
		c.errorf("%s: a hello without a token began no new session", c.form.name)
	}
	back.opens("room", at)
	back.eventOf("room", missed, "1")
}

// A badRequest is a request that has to be refused.
type badRequest struct {
	what, method, path, body string
	headers                  []string
	needs                    Feature
	status                   int
	code                     string
}

// badRequests are those that any server refuses.
func (c *serverCheck) badRequests() []badRequest {
	names := make([]string, 17)
	for i := range names {
		names[i] = fmt.Sprint("c", i)
	}
	const hello = `{"hello":{"version":1,"line":1}}`
	foreign := []string{"Origin", "https://foreign.example"}
	return []badRequest{
		{"a DELETE", "DELETE", "/poll?channel=a", "", nil, PlainPoll, 405, "bad_request"},
		{"a PUT", "PUT", "/sse?channel=a", "", nil, PlainSSE, 405, "bad_request"},
		{"a GET of what takes a POST", "GET", "/publish?channel=a", "", nil, PublishByRequest, 405, "bad_request"},
		{"a GET of what takes a POST", "GET", "/up", "", nil, Upstream, 405, "bad_request"},
		{"no handshake", "GET", "/ws", "", nil, SessionWS, 426, "bad_request"},
		{"no handshake", "GET", "/ws?channel=a", "", nil, PlainWS, 426, "bad_request"},
		{"no channel", "GET", "/poll", "", nil, PlainPoll, 400, "bad_request"},
		{"no frame", "POST", "/poll", "x", nil, SessionPoll, 400, "bad_request"},
		{"no frame", "POST", "/up", "x", nil, Upstream, 400, "bad_request"},
		{"another version", "POST", "/sse", `{"hello":{"version":2,"line":1}}`, nil, SessionSSE, 400, "bad_version"},
		{"no position", "GET", "/poll?channel=a&after=x%20y", "", nil, PlainPoll, 400, "bad_position"},
		{"a long position", "GET", "/poll?channel=a&after=" + strings.Repeat("a", 65), "", nil, PlainPoll, 400, "bad_position"},
		{"no position", "GET", "/sse?channel=a", "", []string{"Last-Event-ID", "x y"}, PlainSSE, 400, "bad_position"},
		{"no vector", "GET", "/sse?channel=a&channel=b", "", []string{"Last-Event-ID", "x"}, PlainSSE, 400, "bad_position"},
		{"a channel without a name", "GET", "/poll?channel=", "", nil, PlainPoll, 400, "bad_channel"},
		{"a long name", "GET", "/poll?channel=" + strings.Repeat("a", 201), "", nil, PlainPoll, 400, "bad_channel"},
		{"a name with a line feed", "GET", "/poll?channel=a%0Ab", "", nil, PlainPoll, 400, "bad_channel"},
		{"a name that is not UTF-8", "GET", "/poll?channel=a%FF", "", nil, PlainPoll, 400, "bad_channel"},
		{"two channels", "GET", "/poll?channel=a&channel=b", "", nil, PlainPoll, 400, "too_many_channels"},
		{"17 channels", "GET", "/sse" + wireclient.Query("", names...), "", nil, PlainSSE, 400, "too_many_channels"},
		{fmt.Sprintf("a hello of %d bytes", c.setup.MaxFrame+1), "POST", "/poll", padded(hello, c.setup.MaxFrame+1), nil, SessionPoll, 413, "too_large"},
		{"a compressed hello", "POST", "/poll", hello, []string{"Content-Encoding", "gzip"}, SessionPoll, 415, "bad_encoding"},
		{"a compressed frame", "POST", "/up", `{"up":{"version":1},"close":{}}`, []string{"Content-Encoding", "br"}, Upstream, 415, "bad_encoding"},
		{"no path", "GET", "/nothing", "", nil, "", 404, "not_found"},
		{"a foreign page", "POST", "/poll", hello, foreign, SessionPoll, 403, "foreign_origin"},
		{"a foreign page", "GET", "/sse?channel=a", "", foreign, PlainSSE, 403, "foreign_origin"},
		{"a foreign page", "POST", "/publish?channel=a", "1", foreign, PublishByRequest, 403, "foreign_origin"},
		{"a foreign page", "POST", "/up", `{"up":{"version":1},"close":{}}`, foreign, Upstream, 403, "foreign_origin"},
	}
}

func (c *serverCheck) notUnderstood() {
	for _, r := range c.badRequests() {
		if _, lacks := c.server.Lacks[r.needs]; lacks {
			continue
		}
		what := fmt.Sprintf("%s (%s %.60s)", r.what, r.method, r.path)
		why := c.refusedInWords(what, c.ask(c.http, r.method, r.path, r.body, r.headers...), r.status, r.code, "never")
		if r.code == "bad_version" && !slices.Equal(why.Versions, []int{1}) {
			c.errorf("%s was refused with bad_version and the versions %v", what, why.Versions)
		}
	}
}

func (c *serverCheck) refusedPublishes() {
	publish := func(body string, headers ...string) httpAnswer {
		return c.ask(c.http, "POST", "/publish?channel=room", body, headers...)
	}
	c.refusedAs("what is not JSON", publish("{", "Content-Type", "application/json"), 400, "invalid", "never")
	c.refusedAs("a text that is not UTF-8", publish("a\xff", "Content-Type", "text/plain"), 400, "invalid", "never")
	reserved := c.ask(c.http, "POST", "/publish?channel=room&type=throughline.gap", "1", "Content-Type", "application/json")
	c.refusedAs("a reserved type", reserved, 400, "invalid", "never")
	key := strings.Repeat("k", 32)
	if a := publish("1", "Idempotency-Key", key, "Producer-Seq", "5"); a.status != 200 {
		c.fatalf("a producer's message was answered with %d: %.200s", a.status, a.text)
	}
	c.refusedAs("a number lower than the producer's last", publish("2", "Idempotency-Key", key, "Producer-Seq", "4"), 409, "stale", "never")
}

func (c *serverCheck) refusedRights() {
	c.refusedAs("forbidden", c.poll(c.http, "refused:forbidden"), 403, "forbidden", "never")
	c.refusedAs("busy", c.poll(c.http, "refused:busy"), 503, "busy", "later")
	c.refusedAs("a code of the program's own", c.poll(c.http, "refused:members_only"), 400, "members_only", "never")
	c.refusedAs("a code of the program's own, class later", c.poll(c.http, "refused:full 2000"), 503, "full", "later")
	if a := c.poll(c.http, "room"); a.status != 200 {
		c.errorf("a channel that is allowed was answered with %d: %.200s", a.status, a.text)
	}
}

func (c *serverCheck) refusedIdentity() {
	c.refusedAs("who shows nothing", c.poll(c.http, "room"), 401, "unauthorized", "never")
	c.refusedAs("who shows what nobody has", c.poll(c.as("ann@ever"), "room"), 401, "unauthorized", "never")
	c.refusedAs("who shows what has ended", c.poll(c.as(lasting(-time.Minute)), "room"), 401, "expired", "now")
	if a := c.poll(c.as(lasting(time.Minute)), "room"); a.status != 200 {
		c.errorf("who shows what holds was answered with %d: %.200s", a.status, a.text)
	}
}

// come asks for a channel over the clause's form, and returns how it was refused.
func (c *serverCheck) come() (why wireclient.Reason, let bool) {
	switch {
	case c.form.carrier == "ws":
		got := c.replyTo(string(helloOf(1, "room").Frame()))
		if got.refused == nil {
			return why, true
		}
		return *got.refused, false
	case c.form.needs == PlainPoll:
		a := c.poll(c.http, "room")
		return c.refusalUnless200(a)
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.patience())
	defer cancel()
	r := c.begin(ctx, c.http, "/"+c.form.carrier, string(helloOf(1, "room").Frame()))
	defer r.Body.Close()
	if r.StatusCode == http.StatusOK {
		return why, true
	}
	a, err := readAnswer(r)
	if err != nil {
		c.fatalf("%s: the answer %d has no end: %v, after %.200q", c.form.name, a.status, err, a.text)
	}
	return c.refusalUnless200(a)
}

func (c *serverCheck) refusalUnless200(a httpAnswer) (why wireclient.Reason, let bool) {
	if a.status == http.StatusOK {
		return why, true
	}
	why = c.refusal(c.form.name, a)
	if a.status != http.StatusServiceUnavailable {
		c.errorf("%s was refused with %d %q, not with 503", c.form.name, a.status, why.Code)
	}
	return why, false
}

func (c *serverCheck) comeRefused(code string) {
	why, let := c.come()
	if let {
		c.fatalf("%s was let in, not refused with %q", c.form.name, code)
	}
	if why.Code != code || why.Class != "later" || why.After <= 0 {
		c.errorf("%s was refused with %q, class %q, after %d, not with %q, class \"later\" and a delay", c.form.name, why.Code, why.Class, why.After, code)
	}
}

func (c *serverCheck) refusedUnavailable() {
	c.testee.Outage(true)
	c.comeRefused("unavailable")
	c.testee.Outage(false)
	time.Sleep(time.Minute)
	if why, let := c.come(); !let {
		c.errorf("%s: a minute after the log answers again it was refused with %q", c.form.name, why.Code)
	}
}

func (c *serverCheck) refusedShutdown() {
	if err := c.testee.Shutdown(c.ctx); err != nil {
		c.fatalf("Shutdown: %v", err)
	}
	c.comeRefused("shutdown")
}

func (c *serverCheck) disconnected() {
	ann := c.lineOver(c.form, c.site, c.as("ann"), helloOf(1, "room"))
	ann.opens("room", "")
	bob := c.lineOver(c.form, c.site, c.as("bob"), helloOf(1, "room"))
	bob.opens("room", "")
	it := ann.ordered(func() {
		if err := c.testee.Disconnect(c.ctx, "ann"); err != nil {
			c.fatalf("Disconnect: %v", err)
		}
	})
	if it.Close == nil || it.Close.Code != "disconnected" || it.Close.Class != "never" {
		c.errorf("%s: %s came, not the goodbye \"disconnected\", class \"never\"", c.form.name, whole(it))
	}
	bob.still("room", "1")
}
