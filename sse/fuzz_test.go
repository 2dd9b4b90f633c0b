package sse

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// block is what a parser made of one block.
type block struct {
	id, event, data string
	hasData         bool
}

// parseStandard follows WHATWG HTML §9.2.6 to the letter, with all its line
// ends.
func parseStandard(stream string) []block {
	stream = strings.TrimPrefix(stream, "\ufeff")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	var blocks []block
	var b block
	id := ""
	any := false
	for line, rest, more := strings.Cut(stream, "\n"); more; line, rest, more = strings.Cut(rest, "\n") {
		if line == "" {
			if any {
				b.id = id
				b.data = strings.TrimSuffix(b.data, "\n")
				blocks = append(blocks, b)
			}
			b, any = block{}, false
			continue
		}
		any = true
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			b.data += value + "\n"
			b.hasData = true
		case "event":
			b.event = value
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		}
	}
	return blocks
}

// FuzzBlocks: whatever a log takes is one block with one id, whose data is the
// payload, and nothing in it can be taken for a field or a block of its own.
func FuzzBlocks(f *testing.F) {
	f.Add("said", []byte("two\nlines"), uint8(1), true, false)
	f.Add("said", []byte("a\rb\r\nid: x\n\ndata: forged"), uint8(1), false, false)
	f.Add("", []byte("data:;base64,AAAA"), uint8(1), true, true)
	f.Add("message", []byte("{\n\"a\":1\r\n}"), uint8(0), true, false)
	f.Add("t", []byte{0, 0xff, '\n'}, uint8(2), false, true)
	f.Add("", []byte(""), uint8(1), false, false)
	f.Fuzz(func(t *testing.T, kind string, data []byte, k uint8, named, object bool) {
		m := eventlog.Message{Type: kind, Kind: eventlog.Kind(k % 3), Data: data}
		if m.Check(0) != nil {
			return
		}
		m = m.Clone()
		e := &eventlog.Event{Message: m, At: eventlog.Position{Offset: 1, Mark: 2}}
		blocks := parseStandard(string(plainCodec{named: named, object: object}.AppendEvent(nil, "room", e)))
		if len(blocks) != 1 || blocks[0].id != "a1.2" || !blocks[0].hasData {
			t.Fatalf("%q became %+v", data, blocks)
		}
		if want := map[bool]string{true: m.Type}[named && m.Type != "message"]; blocks[0].event != want {
			t.Errorf("type %q came as %q", m.Type, blocks[0].event)
		}
		if object {
			return // FuzzEventJSON
		}
		got := []byte(blocks[0].data)
		if encoded, ok := bytes.CutPrefix(got, []byte(dataURL)); ok {
			got, _ = base64.StdEncoding.DecodeString(string(encoded))
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%q came as %q", data, got)
		}
	})
}

func FuzzParseVector(f *testing.F) {
	subs := []transport.Subscription{{Channel: "a"}, {Channel: "b"}}
	v := newVector(subs)
	v.set("a", eventlog.Position{Offset: 1, Mark: 2})
	v.set("b", eventlog.Position{Offset: 3, Mark: 4})
	good := strings.TrimSpace(strings.TrimPrefix(string(v.appendBlockEnd(nil)), "id: "))
	for _, seed := range []string{good, good + "~a1.2", "v", "v~", "", strings.Replace(good, "a1.2", "a0.0", 1), strings.Repeat("~", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseVector(text, subs)
		if err != nil {
			var r *transport.Refusal
			if !errors.As(err, &r) || r.Code != transport.CodeBadPosition {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		w := newVector(subs)
		copy(w.at, at)
		if back := strings.TrimSpace(strings.TrimPrefix(string(w.appendBlockEnd(nil)), "id: ")); back != text {
			t.Errorf("%q was read as %q", text, back)
		}
	})
}

func TestLargestVectorFits(t *testing.T) {
	var subs []transport.Subscription
	for range MaxPlainChannels {
		subs = append(subs, transport.Subscription{Channel: "x", After: eventlog.Position{Offset: 1<<64 - 1, Mark: 1<<eventlog.MarkBits - 1}})
	}
	if n := len(newVector(subs).appendBlockEnd(nil)); n > maxVector {
		t.Errorf("a vector of %d channels has %d bytes", MaxPlainChannels, n)
	}
}

// FuzzLastEventID: whatever a request presents, each of its channels begins
// where that says, and nowhere else; the header wins.
func FuzzLastEventID(f *testing.F) {
	good := strings.TrimSpace(strings.TrimPrefix(string(newVector([]transport.Subscription{{Channel: "a", After: eventlog.Position{Offset: 1, Mark: 2}}, {Channel: "b", After: eventlog.Position{Offset: 3, Mark: 4}}}).appendBlockEnd(nil)), "id: "))
	f.Add("a1.2", "", "channel=a")
	f.Add("", "latest", "channel=a&channel=b")
	f.Add(good, "", "channel=a&channel=b")
	f.Add(good, "a1.1", "channel=b&channel=a")
	f.Add("", good, "channel=a&channel=b")
	f.Add("v\r\nid: x", "last=3", "channel=a")
	f.Add(strings.Repeat("v~", 3000), "", "channel=%00")
	f.Fuzz(func(t *testing.T, id, after, names string) {
		q, err := url.ParseQuery(names)
		if err != nil {
			return
		}
		q.Set("after", after)
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/sse", RawQuery: q.Encode()}, Header: http.Header{"Last-Event-Id": {id}}}
		h, err := plainHello(r)
		if err != nil {
			if r, ok := errors.AsType[*transport.Refusal](err); !ok || r.Message == "" || len(r.Message) > 600 {
				t.Errorf("%q, %q: %v", id, after, err)
			}
			return
		}
		if len(h.Channels) != len(q["channel"]) || len(h.Channels) == 0 || len(h.Channels) > MaxPlainChannels {
			t.Fatalf("%q became %+v", names, h)
		}
		presented := id
		if id == "" {
			presented = after
		}
		v := newVector(h.Channels)
		for i, s := range h.Channels {
			if s.Channel != q["channel"][i] || id != "" && (s.After.IsZero() || s.Start != eventlog.Start{}) {
				t.Errorf("%q with %q and %q became %+v", names, id, after, s)
			}
			if len(h.Channels) == 1 && !s.After.IsZero() && s.After.String() != presented {
				t.Errorf("%q is read as %v", presented, s.After)
			}
		}
		if back := strings.TrimSpace(strings.TrimPrefix(string(v.appendBlockEnd(nil)), "id: ")); len(h.Channels) > 1 && !h.Channels[0].After.IsZero() && back != presented {
			t.Errorf("%q is read as %q", presented, back)
		}
	})
}
