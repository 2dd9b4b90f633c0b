package transport_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A fixture is a frame as it crosses the wire. They are kept for the builds to
// come, which have to go on speaking this version, and the client's tests use
// the same file.
type fixture struct {
	Name, Clause, From string
	Frame              json.RawMessage
}

func fixtures(t *testing.T) []fixture {
	t.Helper()
	text, err := os.ReadFile("testdata/wire/v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []fixture
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func at(t *testing.T, text string) eventlog.Position {
	t.Helper()
	p, err := eventlog.ParsePosition(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestFixturesOfTheClient: each frame is read, as what it is.
func TestFixturesOfTheClient(t *testing.T) {
	room := func(after string) transport.Subscription {
		return transport.Subscription{Channel: "room:42", After: at(t, after)}
	}
	message := func(kind eventlog.Kind, data string) eventlog.Message {
		return eventlog.Message{Kind: kind, Data: []byte(data)}
	}
	const producer = "0123456789abcdef0123456789abcdef"
	paused := room("a1.10000001")
	paused.Paused = true
	want := map[string]any{
		"hello, first": transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{{Channel: "room:42"}}, Presence: []transport.Watch{}},
		"hello, resuming": transport.Hello{Version: 1, Token: "a.k1.e30.c2ln", Line: 2, Channels: []transport.Subscription{
			room("a1.10000001"), {Channel: "news", Start: eventlog.Start{Last: 20}},
		}, Presence: []transport.Watch{}},
		"hello, with a paused channel and presence": transport.Hello{
			Version: 1, Token: "a.k1.e30.c2ln", Line: 3, Channels: []transport.Subscription{paused},
			Presence: []transport.Watch{{Channel: "room:42", Seen: "v1"}},
		},
		"hello, probe": transport.Hello{Version: 1, Line: 4, Probe: true, Channels: []transport.Subscription{}, Presence: []transport.Watch{}},
		"subscribe":    transport.Frame{Kind: transport.FrameSubscribe, Channels: []transport.Subscription{{Channel: "room:43", Start: eventlog.Start{Earliest: true}}}},
		"unsubscribe":  transport.Frame{Kind: transport.FrameUnsubscribe, Names: []string{"room:43"}},
		"subscribe, with a filter": transport.Frame{Kind: transport.FrameSubscribe, Channels: []transport.Subscription{{
			Channel: "room:44", Filter: &eventlog.Filter{Types: []string{"said"}, Tags: []string{"a", "b"}, Keys: []string{"k"}},
		}}},
		"history asked": transport.Frame{Kind: transport.FrameHistory, History: &transport.HistoryQuery{
			ID: 6, Channel: "room:42", Events: 2, Filter: &eventlog.Filter{Types: []string{"said"}},
			Range: eventlog.Range{Until: at(t, "a4.10000004"), Since: time.UnixMilli(1764482693000), Backwards: true},
		}},
		"history asked, by request": transport.Upstream{Version: 1, Frame: transport.Frame{Kind: transport.FrameHistory, History: &transport.HistoryQuery{
			ID: 7, Channel: "room:42", Events: 3,
			Range: eventlog.Range{After: at(t, "a1.10000001"), Before: time.UnixMilli(1764482693000), Backwards: true},
		}}},
		"pause":                 transport.Frame{Kind: transport.FramePause, Names: []string{"room:42"}},
		"presence asked":        transport.Frame{Kind: transport.FrameWatch, Watches: []transport.Watch{{Channel: "room:42"}}},
		"credentials":           transport.Frame{Kind: transport.FrameCredentials, Credentials: "eyJhbGciOiJub25lIn0.e30."},
		"goodbye of the client": transport.Frame{Kind: transport.FrameGoodbye},
		"goodbye of the client, by request": transport.Upstream{
			Version: 1, Token: "a.k1.e30.c2ln", Frame: transport.Frame{Kind: transport.FrameGoodbye, Line: 3},
		},
		"publish": transport.Frame{Kind: transport.FramePublish, Publish: &transport.Publish{Producer: producer, Frames: []transport.PublishFrame{
			{Seq: 7, Channel: "room:42", Messages: []eventlog.Message{{Type: "said", Data: []byte(`{"text": "hello"}`)}}},
			{Seq: 8, Channel: "news", Repeat: true, Messages: []eventlog.Message{message(eventlog.Binary, "\x00\x01\x02"), message(eventlog.Text, "plain text")}},
		}}},
		"publish, by request": transport.Upstream{Version: 1, Frame: transport.Frame{Kind: transport.FramePublish, Publish: &transport.Publish{
			Producer: producer, Frames: []transport.PublishFrame{{Seq: 1, Channel: "room:42", Messages: []eventlog.Message{message(eventlog.JSON, "null")}}},
		}}},
		"call": transport.Frame{Kind: transport.FrameCall, Call: &transport.Call{ID: 3, Name: "add", Payload: transport.Payload{Data: []byte(`[1, 2]`)}}},
		"call, repeatable, by request": transport.Upstream{Version: 1, Frame: transport.Frame{Kind: transport.FrameCall, Call: &transport.Call{
			ID: 4, Name: "add", Key: "k0123456789", Payload: transport.Payload{Kind: eventlog.Binary, Data: []byte("\x00\x01\x02")},
		}}},
	}
	for _, f := range fixtures(t) {
		if f.From != "client" && f.From != "another client" {
			continue
		}
		var got any
		var err error
		if bytes.Contains(f.Frame, []byte(`"up"`)) {
			got, err = transport.ParseUpstream(f.Frame)
		} else {
			var up transport.Up
			if up, err = transport.ParseUp(f.Frame); up.Hello != nil {
				got = *up.Hello
			} else if up.Frame != nil {
				got = *up.Frame
			}
		}
		if err != nil || !reflect.DeepEqual(got, want[f.Name]) {
			t.Errorf("%s %s was read as\n%+v, %v, not as\n%+v", f.Clause, f.Name, got, err, want[f.Name])
		}
		delete(want, f.Name)
	}
	for name := range want {
		t.Errorf("there is no fixture %q", name)
	}
}

// TestFixturesOfTheServer: each frame is written, byte for byte.
func TestFixturesOfTheServer(t *testing.T) {
	open := transport.Open{Line: 3, Heartbeat: 25 * time.Second, Remembered: 10 * time.Minute, Limit: 65536}
	withToken := open
	withToken.Token = "a.k1.e30.c2ln"
	never := func(code, message string) transport.Reason {
		return transport.Reason{Code: code, Class: transport.Never, Message: message}
	}
	presence := func(p transport.Presence) transport.Frame {
		return transport.Frame{Kind: transport.FramePresence, Channel: "room:42", Presence: &p}
	}
	end := func(channel string, why transport.Reason) transport.Frame {
		return transport.Frame{Kind: transport.FrameEnd, Channel: channel, Reason: why}
	}
	answer := func(a transport.Answer) transport.Frame {
		return transport.Frame{Kind: transport.FrameAnswer, Answer: &a}
	}
	frames := map[string]transport.Frame{
		"open":                  {Kind: transport.FrameOpen, Open: &withToken},
		"open, the token stays": {Kind: transport.FrameOpen, Open: &open},
		"open, of a probe":      {Kind: transport.FrameOpen, Open: &transport.Open{Line: 4, Heartbeat: 25 * time.Second}},
		"opening":               {Kind: transport.FrameOpening, Channel: "room:42", At: at(t, "a1.10000001")},
		"opening, given":        {Kind: transport.FrameOpening, Channel: "news", At: at(t, "a1.10000001"), Given: true},
		"gap": {Kind: transport.FrameGap, Channel: "room:42", Lost: eventlog.Lost{
			From: at(t, "a4.10000004"), To: at(t, "a9.10000009"), Reason: eventlog.Trimmed,
		}},
		"end, for good": end("room:42", never("forbidden", "not allowed to subscribe")),
		"end, as asked": end("room:43", transport.Reason{Code: transport.CodeUnsubscribed, Class: transport.Now}),
		"end, paused":   end("room:42", transport.Reason{Code: transport.CodePaused, Class: transport.Now}),
		"heartbeat":     {Kind: transport.FrameBeat},
		"goodbye": {Kind: transport.FrameClose, Reason: transport.Reason{
			Code: transport.CodeShutdown, Class: transport.Later, After: 1200 * time.Millisecond, Message: "this server is going away",
		}},
		"goodbye, superseded": {Kind: transport.FrameClose, Reason: transport.Reason{Code: transport.CodeSuperseded, Class: transport.Now}},
		"published": {Kind: transport.FramePublished, Published: []transport.Published{
			{Seq: 7, At: at(t, "a5.10000005")},
			{Seq: 8, At: at(t, "a6.10000006"), Duplicate: true},
			{Seq: 9, Refused: transport.Refuse("forbidden", "not allowed to publish")},
			{Seq: 10, Retry: &transport.Refusal{Reason: transport.Reason{Code: "unavailable", Class: transport.Later, After: time.Second}}, Tried: true},
		}},
		"answer":          answer(transport.Answer{ID: 3, Payload: transport.Payload{Data: []byte("3")}}),
		"answer, binary":  answer(transport.Answer{ID: 4, Payload: transport.Payload{Kind: eventlog.Binary, Data: []byte("\x00\x01\x02")}}),
		"answer, refused": answer(transport.Answer{ID: 5, Refused: transport.Refuse("failed", "the handler of this call failed")}),
		"history, by frame": answer(transport.Answer{ID: 6, History: &transport.HistoryPage{
			Run: &transport.Run{Channel: eventlog.Channel{Name: "room:42"}, Next: at(t, "a3.10000003"), Events: []eventlog.Event{
				{At: at(t, "a4.10000004"), Time: time.UnixMilli(1764482693001), Message: eventlog.Message{Type: "said", Data: []byte("4"), Key: "k", Tags: []string{"a", "b"}}},
				{At: at(t, "a3.10000003"), Time: time.UnixMilli(1764482693000), Message: eventlog.Message{Type: "said", Kind: eventlog.Binary, Data: []byte("\x00\x01\x02")}},
			}},
			Next: at(t, "a2.10000002"), First: at(t, "a2.10000002"), Head: at(t, "a4.10000004"), Done: true,
			Lost: &eventlog.Lost{From: at(t, "a1.10000001"), To: at(t, "a2.10000002"), Reason: eventlog.Trimmed},
		}}),
		"refresh": {Kind: transport.FrameRefresh, Left: time.Minute},
		"presence, snapshot": presence(transport.Presence{Version: "v1", Total: 2, Members: []transport.Member{
			{ID: "s1", Subject: "ann", Info: json.RawMessage(`{"colour":"red"}`)}, {ID: "s2"},
		}}),
		"presence, difference": presence(transport.Presence{
			Version: "v2", Total: 2, Joined: []transport.Member{{ID: "s3", Subject: "bob"}}, Left: []string{"s2"},
		}),
		"presence, counts only": presence(transport.Presence{Version: "v3", Total: 5000}),
		"presence, refused":     presence(transport.Presence{Refused: transport.Refuse("forbidden", "not allowed to see who is here")}),
	}
	events := map[string]eventlog.Event{
		"event, JSON":   {At: at(t, "a2.10000002"), Message: eventlog.Message{Type: "said", Data: []byte(`{"text":"hello"}`), Key: "m1", Tags: []string{"de", "en"}}},
		"event, text":   {At: at(t, "a3.10000003"), Message: eventlog.Message{Type: "message", Kind: eventlog.Text, Data: []byte("plain text")}},
		"event, binary": {At: at(t, "a4.10000004"), Message: eventlog.Message{Type: "message", Kind: eventlog.Binary, Data: []byte("\x00\x01\x02")}},
	}
	const later = "a frame of a later build"
	seen := 0
	for _, f := range fixtures(t) {
		if f.From != "server" && f.From != "server to another" || f.Name == later {
			continue
		}
		seen++
		var got []byte
		if frame, ok := frames[f.Name]; ok {
			got = transport.AppendFrameJSON(nil, &frame)
		} else if event, ok := events[f.Name]; ok {
			got = transport.AppendEventJSON(nil, "room:42", &event)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, f.Frame); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s %s is\n%s, not\n%s", f.Clause, f.Name, got, want.Bytes())
		}
	}
	if seen != len(frames)+len(events) {
		t.Errorf("there are %d fixtures of the server, not %d", seen, len(frames)+len(events))
	}
}

// TestOtherVersions shows what is accepted and how the rest is refused: an
// invented older and newer version, in forms that mean nothing here, and
// members that a later build of this version may add.
func TestOtherVersions(t *testing.T) {
	for _, frame := range []string{
		`{"hello":{"version":0,"room":"lobby"}}`,
		`{"hello":{"version":2,"channels":{"room:42":"newer form"},"line":"seven"}}`,
		`{"hello":{}}`,
	} {
		_, err := transport.ParseUp([]byte(frame))
		refused(t, frame, err, transport.CodeBadVersion)
	}
	for _, frame := range []string{
		`{"up":{"version":0},"publish":"older form"}`,
		`{"up":{"version":2},"publish":["newer form"]}`,
	} {
		_, err := transport.ParseUpstream([]byte(frame))
		refused(t, frame, err, transport.CodeBadVersion)
	}
	up, err := transport.ParseUp([]byte(`{"hello":{"version":1,"line":1,"invented":true,"channels":[{"channel":"a","after":"b1.2","invented":{}}]},"trace":"x"}`))
	if err != nil {
		t.Fatalf("P11.3: members of a later build: %v", err)
	}
	refused(t, "a position of another version", up.Hello.Channels[0].Bad, transport.CodeBadPosition)
	_, err = transport.ParseUp([]byte(`{"invented":{}}`))
	refused(t, "a frame of a later build", err, transport.CodeBadRequest)
}

func refused(t *testing.T, what string, err error, code string) {
	t.Helper()
	isRefusal(t, err)
	if r, ok := err.(*transport.Refusal); ok && r.Code != code { //nolint:errorlint // these functions return it as it is
		t.Errorf("P11: %s is refused with %s, not %s", what, r.Code, code)
	}
}
