//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// An item is one thing that came down a line. What it holds is good until the
// next one is asked for.
type item struct {
	Kind     itemKind
	N        int           // of an event
	At       time.Duration // when it was published
	Position []byte        // of an event or an opening
	From, To []byte        // of a gap
	Token    string        // of an open, if it gave one
}

type itemKind int

const (
	isBeat itemKind = iota
	isOpen
	isOpening
	isEvent
	isGap
)

// An object is any of PROTOCOL.md's that a reader gets.
type object struct {
	Position   string
	Data       json.RawMessage
	Gap        *struct{ From, To string }
	End, Close *struct {
		Code  string
		After int64
	}
	Open *struct{ Token string }
}

// An ended is the error of a line that the server ended with a word.
type ended struct {
	code  string
	after time.Duration // when the client may return
}

func (e *ended) Error() string { return "the server said " + e.code }

// parse reads an object. Events are most of what comes, and are read without
// encoding/json, which costs as much as all the rest.
func parse(b []byte) (item, error) {
	if it, ok := quickEvent(b); ok {
		return it, nil
	}
	var o object
	if err := json.Unmarshal(b, &o); err != nil {
		return item{}, fmt.Errorf("not a frame: %w: %.100q", err, b)
	}
	return o.item()
}

func (o *object) item() (item, error) {
	switch {
	case o.Close != nil:
		return item{}, &ended{o.Close.Code, time.Duration(o.Close.After) * time.Millisecond}
	case o.End != nil:
		return item{}, &ended{o.End.Code, time.Duration(o.End.After) * time.Millisecond}
	case o.Open != nil:
		return item{Kind: isOpen, Token: o.Open.Token}, nil
	case o.Gap != nil:
		return item{Kind: isGap, From: []byte(o.Gap.From), To: []byte(o.Gap.To)}, nil
	case o.Data != nil:
		it := item{Kind: isEvent, Position: []byte(o.Position)}
		err := it.payload(o.Data)
		return it, err
	case o.Position != "":
		return item{Kind: isOpening, Position: []byte(o.Position)}, nil
	}
	return item{Kind: isBeat}, nil
}

// payload reads what the publisher has put into an event.
func (it *item) payload(b []byte) error {
	n, at, ok := quickPayload(b)
	if ok {
		it.N, it.At = n, at
		return nil
	}
	var p struct {
		N  int
		At int64
	}
	err := json.Unmarshal(b, &p)
	it.N, it.At = p.N, time.Duration(p.At)
	return err
}

// quickEvent reads an event in the one form that a server gives it. Whatever is
// not exactly that is left to parse.
func quickEvent(b []byte) (item, bool) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"channel":"`))
	if !ok {
		return item{}, false
	}
	_, rest, _ = bytes.Cut(rest, []byte(`","position":"`))
	position, rest, _ := bytes.Cut(rest, []byte(`","type":"message","data":`))
	n, at, ok := quickPayload(rest)
	return item{Kind: isEvent, N: n, At: at, Position: position}, ok
}

func quickPayload(b []byte) (n int, at time.Duration, ok bool) {
	b, ok1 := bytes.CutPrefix(b, []byte(`{"n":`))
	number, b, ok2 := digitsOf(b)
	b, ok3 := bytes.CutPrefix(b, []byte(`,"at":`))
	clock, _, ok4 := digitsOf(b)
	return number, time.Duration(clock), ok1 && ok2 && ok3 && ok4
}

func digitsOf(b []byte) (n int, rest []byte, ok bool) {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		n, b, ok = n*10+int(b[0]-'0'), b[1:], true
	}
	return n, b, ok
}
