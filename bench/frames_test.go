package main

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"
)

// TestParserWhereverReadsCut feeds a stream in pieces of every size: a short
// frame, one of several events as centrifuge joins them, one without any, a
// ping, one with a long length, and a close frame.
func TestParserWhereverReadsCut(t *testing.T) {
	var stream []byte
	stream = appendTextFrame(stream, message(1, 64))
	joined := append(append([]byte(`{"push":`), message(2, 130)...), "}\n{\"push\":"...)
	stream = appendTextFrame(stream, append(joined, message(3, 130)...))
	stream = appendTextFrame(stream, []byte(`{"channel":"bench","position":"a0.1"}`))
	stream = append(stream, 0x89, 2, '~', '9')
	stream = append(stream, 0x80|opText, 127)
	stream = binary.BigEndian.AppendUint64(stream, 70_000)
	stream = append(stream, message(99_999_999, 70_000)...)
	stream = append(stream, 0x80|opClose, 6, 0x0F, 0xA1)
	stream = append(stream, "slow"...)

	for size := 1; size <= 200; size++ {
		var p frameParser
		var found []int
		for piece := range slices.Chunk(stream, size) {
			found = p.feed(piece, found)
		}
		if want := []int{1, 2, 3, 99_999_999}; !slices.Equal(found, want) {
			t.Fatalf("in pieces of %d: found %v, not %v", size, found, want)
		}
		if got := p.closed(); got != "4001 slow" {
			t.Fatalf("in pieces of %d: closed %q", size, got)
		}
	}
}

func TestMessageIsJSONOfItsSize(t *testing.T) {
	for _, size := range []int{64, 130, maxPayload} {
		m := message(7, size)
		if len(m) != size || !json.Valid(m) {
			t.Errorf("message of %d bytes: %d bytes, %s", size, len(m), m)
		}
	}
}

// TestTally: what is lost, comes twice or in disorder is told from what arrives
// well.
func TestTally(t *testing.T) {
	for _, tt := range []struct {
		name                         string
		come                         []int
		delivered, disorder, waiting int
	}{
		{"all", []int{10, 11, 12}, 3, 0, 0},
		{"one skipped", []int{10, 12}, 2, 0, 0},
		{"the last is missing", []int{10, 11}, 2, 0, 1},
		{"one twice", []int{10, 10, 11, 12}, 3, 1, 0},
		{"in disorder", []int{11, 10, 12}, 2, 1, 0},
		{"of another load", []int{9, 10, 11, 12, 13}, 3, 2, 0},
	} {
		c := &client{}
		d := &drain{clients: []*client{c}}
		d.arm(watch{First: 10, Count: 3})
		for _, number := range tt.come {
			d.count(c, number)
		}
		if got := d.tally; got.Delivered != tt.delivered || got.Disorder != tt.disorder || d.waiting != tt.waiting {
			t.Errorf("%s: delivered %d, in disorder %d, waiting %d; want %d, %d, %d",
				tt.name, got.Delivered, got.Disorder, d.waiting, tt.delivered, tt.disorder, tt.waiting)
		}
	}
}
