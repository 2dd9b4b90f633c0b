//go:build linux

package main

import (
	"bufio"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestQuickEventsAreRead holds the quick way to read events against the slow one.
func TestQuickEventsAreRead(t *testing.T) {
	quick := `{"channel":"load-0","position":"0abc","type":"message","data":{"n":7,"at":1234,"text":"xx"}}`
	slow := strings.Replace(quick, `"data":{"n":7,`, `"data": { "n": 7, `, 1)
	want := item{Kind: isEvent, N: 7, At: 1234, Position: []byte("0abc")}
	if got, ok := quickEvent([]byte(quick)); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("quick: %+v, %v", got, ok)
	}
	if _, ok := quickEvent([]byte(slow)); ok {
		t.Error("the quick way takes what it can't read")
	}
	if got, err := parse([]byte(slow)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("slow: %+v, %v", got, err)
	}
}

func TestWhatIsNoEvent(t *testing.T) {
	for text, want := range map[string]item{
		`{}`:                                   {Kind: isBeat},
		`{"open":{"version":1,"token":"abc"}}`: {Kind: isOpen, Token: "abc"},
		`{"channel":"load-0","position":"0a"}`: {Kind: isOpening, Position: []byte("0a")},
		`{"channel":"load-0","gap":{"from":"0a","to":"0b","reason":"trimmed"}}`:        {Kind: isGap, From: []byte("0a"), To: []byte("0b")},
		`{"channel":"load-0","position":"0a","type":"other","data":{"n":1,"at":2}}`:    {Kind: isEvent, N: 1, At: 2, Position: []byte("0a")},
		`{"channel":"load-0","position":"0a","type":"message","data":{"at":2,"n":1 }}`: {Kind: isEvent, N: 1, At: 2, Position: []byte("0a")},
	} {
		if got, err := parse([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	_, err := parse([]byte(`{"close":{"code":"shutdown","class":"later","after":1200}}`))
	if e, ok := errors.AsType[*ended](err); !ok || e.code != "shutdown" || e.after != 1200*time.Millisecond {
		t.Errorf("a goodbye is %v", err)
	}
}

func TestStreamsAreRead(t *testing.T) {
	const text = "retry: 1000\nid: 0a\n\n:\n\ndata: {\"n\":1,\"at\":2,\"text\":\"\"}\nid: 0b\n\n" +
		"event: throughline.gap\ndata: {\"channel\":\"c\",\"gap\":{\"from\":\"0b\",\"to\":\"0c\"}}\nid: 0c\n\n"
	l := &sseLine{r: bufio.NewReader(strings.NewReader(text))}
	for _, want := range []item{
		{Kind: isOpening, Position: []byte("0a")},
		{Kind: isBeat},
		{Kind: isEvent, N: 1, At: 2, Position: []byte("0b")},
		{Kind: isGap, From: []byte("0b"), To: []byte("0c")},
	} {
		if got, err := l.next(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v in place of %+v", got, err, want)
		}
	}
}
