package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

const (
	// maxHead bounds the bytes of a head, and of the trailers of a body.
	maxHead = 1 << 20
	// maxLine bounds a line between two chunks.
	maxLine = 4 << 10
)

// A framing finds the end of a body in bytes that pass unchanged.
type framing struct {
	kind  kind
	left  uint64 // bytes of the body, or of this chunk
	state chunkState
	line  []byte // the beginning of a line between chunks
	extra int    // bytes of trailers
}

type kind uint8

const (
	byLength kind = iota
	inChunks
	untilClose
	nothing // whatever comes belongs to the next message
)

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd
	chunkTrailer
)

var errChunks = errors.New("malformed chunks")

func requestFraming(r *http.Request) *framing {
	if len(r.TransferEncoding) > 0 {
		return &framing{kind: inChunks}
	}
	return &framing{left: uint64(max(0, r.ContentLength))}
}

func answerFraming(method string, r *http.Response) *framing {
	switch {
	case method == http.MethodHead, r.StatusCode < 200, r.StatusCode == http.StatusNoContent, r.StatusCode == http.StatusNotModified:
		return &framing{}
	case len(r.TransferEncoding) > 0:
		return &framing{kind: inChunks}
	case r.ContentLength >= 0:
		return &framing{left: uint64(r.ContentLength)}
	default:
		return &framing{kind: untilClose}
	}
}

// empty reports whether there is no body.
func (f *framing) empty() bool { return f.kind == byLength && f.left == 0 }

// take says how many of the next bytes are the body's, and whether it ends
// there.
func (f *framing) take(p []byte) (n int, done bool, err error) {
	switch f.kind {
	case nothing:
		return 0, true, nil
	case untilClose:
		return len(p), false, nil
	case inChunks:
		return f.takeChunks(p)
	default:
		n = int(min(f.left, uint64(len(p))))
		f.left -= uint64(n)
		return n, f.left == 0, nil
	}
}

func (f *framing) takeChunks(p []byte) (n int, done bool, err error) {
	for n < len(p) {
		if f.state == chunkData {
			k := min(f.left, uint64(len(p)-n))
			n, f.left = n+int(k), f.left-k
			if f.left == 0 {
				f.state = chunkEnd
			}
			continue
		}
		line, _, whole := bytes.Cut(p[n:], []byte("\n"))
		f.line = append(f.line, line...)
		n += len(line)
		switch {
		case f.state == chunkTrailer && f.extra+len(f.line) > maxHead, f.state != chunkTrailer && len(f.line) > maxLine:
			return n, false, errChunks
		case !whole:
			return n, false, nil
		}
		n++
		if done, err = f.endLine(); done || err != nil {
			return n, done, err
		}
	}
	return n, false, nil
}

// endLine looks at a line between chunks.
func (f *framing) endLine() (done bool, err error) {
	line := strings.TrimSuffix(string(f.line), "\r")
	f.line = f.line[:0]
	switch f.state {
	case chunkSize:
		size, _, _ := strings.Cut(line, ";")
		f.left, err = strconv.ParseUint(strings.TrimRight(size, " \t"), 16, 63)
		if err != nil {
			return false, errChunks
		}
		f.state = chunkData
		if f.left == 0 {
			f.state = chunkTrailer
		}
	case chunkEnd:
		if line != "" {
			return false, errChunks
		}
		f.state = chunkSize
	case chunkTrailer:
		f.extra += len(line)
		return line == "", nil
	}
	return false, nil
}

// gone returns what the end of the connection means for the body.
func (f *framing) gone(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case f.kind == untilClose:
		return nil
	default:
		return io.EOF
	}
}

// endOfHead returns how long the head is that p begins with, or negative.
func endOfHead(p []byte) int {
	at := math.MaxInt
	for _, end := range []string{"\n\r\n", "\n\n"} {
		if i := bytes.Index(p, []byte(end)); i >= 0 {
			at = min(at, i+len(end))
		}
	}
	if at == math.MaxInt {
		return -1
	}
	return at
}

// rewriteHead changes the first line of a head, leaves out headers, and adds
// others.
func rewriteHead(head []byte, first func(string) string, without, with []string) []byte {
	var b strings.Builder
	left := false
	for i, line := range strings.Split(strings.TrimRight(string(head), "\r\n"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if i == 0 {
			line = first(line)
		} else if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") { // else it continues the last
			name, _, _ := strings.Cut(line, ":")
			left = named(without, name)
		}
		if !left {
			b.WriteString(line + "\r\n")
		}
	}
	for _, line := range with {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

func named(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
