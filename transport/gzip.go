package transport

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
)

// A Gzip puts a gzip member (RFC 1952) together from pieces: what many get is
// deflated once, and what is one client's own goes in as it is. So neither the
// length of the whole nor its content depends on how the two compare, and a
// browser, which reads one member only, gets one.
type Gzip struct {
	b    []byte
	sum  uint32
	size uint32
}

// NewGzip begins a member.
func NewGzip() *Gzip {
	return &Gzip{b: []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}}
}

// Append appends bytes that are not to be compressed, in stored blocks (RFC 1951
// §3.2.4).
func (g *Gzip) Append(plain []byte) {
	g.count(plain)
	for len(plain) > 0 {
		n := min(len(plain), math.MaxUint16)
		g.b = append(g.b, 0)
		g.b = binary.LittleEndian.AppendUint16(g.b, uint16(n))  //nolint:gosec // it fits
		g.b = binary.LittleEndian.AppendUint16(g.b, ^uint16(n)) //nolint:gosec // it fits
		g.b = append(g.b, plain[:n]...)
		plain = plain[n:]
	}
}

// AppendRun appends a run in the form of a codec.
func (g *Gzip) AppendRun(r *Run, c Codec) {
	plain := r.As(c).Bytes
	if r.Secret {
		g.Append(plain)
		return
	}
	g.count(plain)
	g.b = append(g.b, r.deflated(c)...)
}

func (g *Gzip) count(plain []byte) {
	g.sum = crc32.Update(g.sum, crc32.IEEETable, plain)
	g.size += uint32(len(plain)) //nolint:gosec // RFC 1952: modulo 2^32
}

// End ends the member, and returns all of it.
func (g *Gzip) End() []byte {
	g.b = append(g.b, 1, 0, 0, 0xff, 0xff) // a last block that is empty
	g.b = binary.LittleEndian.AppendUint32(g.b, g.sum)
	return binary.LittleEndian.AppendUint32(g.b, g.size)
}

// deflating is the codec under which a run remembers its deflated bytes.
type deflating struct{ Codec }

// deflated returns the run in the form of a codec, compressed once for
// everybody: whole blocks that end on a byte and refer to nothing before them, so
// that they may stand in any stream.
func (r *Run) deflated(c Codec) []byte {
	plain := r.As(c).Bytes
	return r.memo.get(deflating{c}, func() Encoded { return Encoded{Bytes: deflate(plain)} }).Bytes
}

// deflaters are large, and used for a moment.
var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.DefaultCompression) // of a level that is there
	return w
}}

func deflate(plain []byte) []byte {
	var out bytes.Buffer
	w := deflaters.Get().(*flate.Writer) //nolint:forcetypeassert // it holds nothing else
	defer deflaters.Put(w)
	w.Reset(&out)
	_, _ = w.Write(plain) // into memory
	_ = w.Flush()
	w.Reset(nil)
	return out.Bytes()
}

// AcceptsGzip reports whether who makes a request takes gzip (RFC 9110 §12.5.3).
func AcceptsGzip(h http.Header) bool {
	others := false
	for _, line := range h.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip", "x-gzip":
				return wanted(parameters)
			case "*":
				others = wanted(parameters)
			}
		}
	}
	return others
}

// wanted reports whether the weight of a coding is above zero.
func wanted(parameters string) bool {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, ok := strings.Cut(p, "=")
		if ok && strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return err == nil && q > 0
		}
	}
	return true
}
