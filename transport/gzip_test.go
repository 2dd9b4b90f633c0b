package transport

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/throughline/throughline/eventlog"
)

// aRun is one of n events that have much in common.
func aRun(n int, secret bool) *Run {
	r := &Run{Channel: eventlog.Channel{Name: "room"}, Secret: secret}
	for i := range n {
		e := eventlog.Event{At: eventlog.Position{Offset: uint64(i + 1), Mark: 1}}
		e.Data = fmt.Appendf(nil, `{"n":%d,"text":%q}`, i, strings.Repeat("again and ", 5))
		r.Events = append(r.Events, e)
		r.Next = e.At
	}
	return r
}

// TestGzipOfPieces: whatever a member is put together from, it unpacks to that.
func TestGzipOfPieces(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		g := NewGzip()
		var want []byte
		for range chance.IntN(6) {
			if chance.IntN(2) == 0 {
				piece := []byte(strings.Repeat("x", chance.IntN(200_000)>>chance.IntN(18)))
				g.Append(piece)
				want = append(want, piece...)
			} else {
				r := aRun(chance.IntN(30), chance.IntN(3) == 0)
				g.AppendRun(r, HistoryCodec{})
				want = append(want, r.As(HistoryCodec{}).Bytes...)
			}
		}
		packed := g.End()
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes were unpacked of %d: %v", len(got), len(want), err)
		}
	}
}

// TestCompressedOnce: a run is compressed once for all who get it, and one of
// a channel that holds secrets not at all.
func TestCompressedOnce(t *testing.T) {
	r := aRun(100, false)
	first, second := r.deflated(HistoryCodec{}), r.deflated(HistoryCodec{})
	if &first[0] != &second[0] {
		t.Error("it was compressed twice")
	}
	plain := r.As(HistoryCodec{}).Bytes
	if len(first) > len(plain)/5 {
		t.Errorf("%d bytes became %d", len(plain), len(first))
	}
	g := NewGzip()
	g.AppendRun(aRun(100, true), HistoryCodec{})
	if packed := g.End(); len(packed) < len(plain) {
		t.Errorf("%d bytes of secrets became %d", len(plain), len(packed))
	}
}

// BenchmarkGzip: what an answer costs whose run was compressed before.
func BenchmarkGzip(b *testing.B) {
	r := aRun(500, false)
	b.SetBytes(int64(len(r.As(HistoryCodec{}).Bytes)))
	for b.Loop() {
		g := NewGzip()
		g.AppendRun(r, HistoryCodec{})
		_ = g.End()
	}
}
