package conformance

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/throughline/throughline/internal/wireclient"
)

// What is sent wrongly, to whichever path: it is refused in words, and harms
// nobody else.
var malformedClauses = []serverClause{
	{
		id: "P3.1_NoChannel", group: "malformed input", clock: anyClock, needs: []Feature{PlainSSE, PlainPoll},
		text: "MUST: a plain request that names no channel is refused with 400 bad_request.",
		run:  (*serverCheck).noChannel,
	},
	{
		id: "P5.2_BadWaits", group: "malformed input", over: overPlainPoll, clock: anyClock,
		text: "MUST: a wait that is no duration is refused with 400 bad_request.",
		run:  (*serverCheck).badWaits,
	},
	{
		id: "P8.3_BadChannelNames", group: "malformed input", over: allForms, clock: anyClock,
		text: "MUST: a channel whose name is empty, over 200 bytes, or holds control characters is refused with bad_channel, and others are not.",
		run:  (*serverCheck).badChannelNames,
	},
	{
		id: "P8.3_NamesAreUTF8", group: "malformed input", over: plainForms, clock: anyClock,
		text: "MUST: a channel whose name is not UTF-8 is refused with bad_channel.",
		run:  (*serverCheck).namesAreUTF8,
	},
	{
		id: "P8.3_BadMethods", group: "malformed input", clock: anyClock, needs: []Feature{PlainSSE, PlainPoll, PublishByRequest},
		text: "MUST: a method that a path doesn't take is refused with 405 bad_request, and a path that there isn't with 404 not_found.",
		run:  (*serverCheck).badMethods,
	},
	{
		id: "P8.3_BadHandshakes", group: "malformed input", over: []form{plainWS, sessionWS}, clock: anyClock,
		text: "MUST: a request to the WebSocket's path that is no handshake is refused with 426 bad_request, and another that can't be accepted with 4xx.",
		run:  (*serverCheck).badHandshakes,
	},
	{
		id: "P4.5_BrokenFrames", group: "malformed input", over: []form{plainWS, sessionWS},
		text: "MUST: a frame that isn't one of RFC 6455 is closed with 1002, and nobody else notices.",
		run:  (*serverCheck).brokenFrames,
	},
	{
		id: "P4.5_TextIsUTF8", group: "malformed input", over: []form{plainWS, sessionWS},
		text: "MUST: a text message that is not UTF-8, as a whole, is closed with 1007.",
		run:  (*serverCheck).textIsUTF8,
	},
	{
		id: "P4.5_FragmentsAreOneMessage", group: "malformed input", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: a message in fragments, with control frames between them and cut within a character, is one message (RFC 6455 §5.4).",
		run:  (*serverCheck).fragmentsAreOneMessage,
	},
	{
		id: "P6.14_EndlessMessages", group: "malformed input", over: []form{sessionWS},
		text:  "MUST: a message that is longer than a frame may be is closed with 4002 too_large, also if it comes in fragments or announces more than it brings.",
		setup: ServerSetup{MaxFrame: 2000},
		run:   (*serverCheck).endlessMessages,
	},
}

func (c *serverCheck) noChannel() {
	unharmed := c.neighbour()
	for _, path := range []string{"/sse", "/poll", "/sse?after=latest", "/poll?wait=25s", "/sse?Channel=room", "/poll?channels=room"} {
		c.refusedInWords(path, c.ask(c.http, "GET", path, ""), 400, "bad_request", "never")
		unharmed("GET " + path)
	}
}

func (c *serverCheck) badWaits() {
	for _, wait := range []string{"soon", "-1s", "-5", "5 s", "25sec", "1e3", "s", "0x10", "٣s", strings.Repeat("9", 300)} {
		c.refusedInWords("wait="+wait, c.ask(c.http, "GET", "/poll?channel=room&wait="+url.QueryEscape(wait), ""), 400, "bad_request", "never")
	}
}

// names of channels that no server takes, and some that every one does.
var (
	badNames  = []string{"", strings.Repeat("x", 201), strings.Repeat("é", 101), "a\x00b", "a\r\nid: x", "a\n", "\t", "a\x1bb", "a\u0085b", "a\x7f"}
	goodNames = []string{strings.Repeat("x", 200), strings.Repeat("é", 100), "a b", "a/b", "a&b=c#d", "\"quoted\"", "日本", "a\u2028b", "..", "a%00b", "throughline.x", "<b>", "{}", "0"}
)

func (c *serverCheck) badChannelNames() {
	for _, name := range badNames {
		it, err := c.firstAbout(name, "")
		if code := refusalCode(err); code != "bad_channel" {
			c.errorf("%s: the channel %.60q was answered with %s, %v, not refused with bad_channel", c.form.name, name, inWords(it), err)
		}
	}
	for _, name := range goodNames {
		r := c.read(name, "")
		r.opening()
		at := c.publish(name, "1")
		if it := r.next(); it.Position != at || c.form.name != plainSSE.name && it.Channel != name {
			c.errorf("%s: the channel %.60q brings %s of %q, not its event", c.form.name, name, inWords(it), it.Channel)
		}
		r.stream.Close()
	}
}

func (c *serverCheck) namesAreUTF8() {
	for _, name := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "a\xf0\x9fb"} {
		it, err := c.firstAbout(name, "")
		if code := refusalCode(err); code != "bad_channel" {
			c.errorf("%s: the channel %q was answered with %s, %v, not refused with bad_channel", c.form.name, name, inWords(it), err)
		}
	}
}

// refusalCode is why something was refused; "" if it wasn't.
func refusalCode(err error) string {
	if r, ok := refusalOf(err); ok {
		return r.Code
	}
	return ""
}

func (c *serverCheck) badMethods() {
	unharmed := c.neighbour()
	for path, methods := range map[string][]string{
		"/sse?channel=room": {"PUT", "DELETE", "PATCH"}, "/poll?channel=room": {"PUT", "DELETE"}, "/publish?channel=room": {"GET", "PUT", "DELETE"},
	} {
		for _, method := range methods {
			c.refusedInWords(method+" "+path, c.ask(c.http, method, path, ""), 405, "bad_request", "never")
			unharmed(method + " " + path)
		}
	}
	for _, path := range []string{"/", "/events", "/sse/more?channel=room", "/publish2?channel=room", "/SSE?channel=room"} {
		c.refusedInWords("GET "+path, c.ask(c.http, "GET", path, ""), 404, "not_found", "never")
	}
}

func (c *serverCheck) badHandshakes() {
	path := "/ws"
	if c.form.name == plainWS.name {
		path = "/ws?channel=room"
	}
	unharmed := c.neighbour()
	c.refusedInWords("no handshake", c.ask(c.http, "GET", path, ""), 426, "bad_request", "never")
	for what, headers := range map[string][]string{
		"an old version": {"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
		"no key":         {"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13"},
		"a short key":    {"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "c2hvcnQ="},
		"a bad key":      {"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "!"},
	} {
		if r := c.ask(c.http, "GET", path, "", headers...); r.status < 400 || r.status > 499 {
			c.errorf("%s: a handshake with %s was answered %d", c.form.name, what, r.status)
		}
		unharmed(what)
	}
}

func (c *serverCheck) brokenFrames() {
	unharmed := c.neighbour()
	for what, bytes := range map[string]string{
		"an unmasked frame":           "\x81\x02{}",
		"the first reserved bit":      wsFrame(wsFin|0x40|wsText, "{}"),
		"the second reserved bit":     wsFrame(wsFin|0x20|wsText, "{}"),
		"the third reserved bit":      wsFrame(wsFin|0x10|wsText, "{}"),
		"an unknown opcode":           wsFrame(wsFin|3, "{}"),
		"an unknown control frame":    wsFrame(wsFin|0xB, ""),
		"a ping in fragments":         wsFrame(wsPing, "x"),
		"a ping of 126 bytes":         wsFrame(wsFin|wsPing, strings.Repeat("x", 126)),
		"a fragment of nothing":       wsFrame(wsFin, "{}"),
		"a message within another":    wsFrame(wsText, "{") + wsFrame(wsFin|wsText, "}"),
		"a negative length":           "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04",
		"a close frame of one byte":   wsFrame(wsFin|wsClose, "\x03"),
		"a close code that is no one": wsFrame(wsFin|wsClose, "\x03\xed"),
	} {
		s := c.socketOfRoom()
		s.write(bytes)
		c.endsWith(s, what, "^1002( |$)")
		unharmed(what)
	}
}

func (c *serverCheck) textIsUTF8() {
	unharmed := c.neighbour()
	for what, bytes := range map[string]string{
		"a byte that is none of UTF-8":    wsFrame(wsFin|wsText, "{\"x\":\"\xff\"}"),
		"a character broken by fragments": wsFrame(wsText, "{\"x\":\"\xc3") + wsFrame(wsFin, "\x28\"}"),
		"half a character at the end":     wsFrame(wsText, "{}\xf0\x9f") + wsFrame(0, "\x98") + wsFrame(wsFin, ""),
		"a surrogate":                     wsFrame(wsFin|wsText, "\"\xed\xa0\x80\""),
	} {
		s := c.socketOfRoom()
		s.write(bytes)
		c.endsWith(s, what, "^1007( |$)")
		unharmed(what)
	}
}

func (c *serverCheck) fragmentsAreOneMessage() {
	s := c.socket("/ws")
	hello := string(wireclient.HelloFor("", "é").Frame())
	cut := strings.Index(hello, "é") + 1
	s.write(wsFrame(wsText, hello[:3]) + wsFrame(wsFin|wsPing, "ping") + wsFrame(0, "") + wsFrame(0, hello[3:cut]) + wsFrame(wsFin|wsPong, "") + wsFrame(wsFin, hello[cut:]))
	s.about("position")
	at := c.publish("é", "1")
	if o := s.about("data"); string(o["channel"]) != `"é"` || string(o["position"]) != `"`+at+`"` {
		c.errorf("a hello in fragments brought the event %s of %s, not that at %q", o["position"], o["channel"], at)
	}
}

func (c *serverCheck) endlessMessages() {
	unharmed := c.neighbour()
	limit := c.setup.MaxFrame
	announced := "\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00\x01\x02\x03\x04"
	for what, bytes := range map[string]string{
		"a long message":                           wsFrame(wsFin|wsText, strings.Repeat("x", limit+1)),
		"a long message in fragments":              wsFrame(wsText, strings.Repeat("x", limit-10)) + strings.Repeat(wsFrame(0, "xxxx"), 10),
		"a terabyte, of which some kilobytes come": announced + strings.Repeat("x", 4*limit),
	} {
		s := c.socketOfRoom()
		s.write(bytes)
		c.endsWith(s, fmt.Sprintf("%s, where %d bytes are the most", what, limit), "^4002 too_large$")
		unharmed(what)
	}
}
