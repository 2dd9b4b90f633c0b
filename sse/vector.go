package sse

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// maxVector is the most bytes of a vector's text: the longest positions of the
// most channels fit.
const maxVector = 2048

// vectorVersion is the first character of a vector's text.
const vectorVersion = 'v'

// A vector is the id of a stream of several channels: a position for each, in
// the order of the query (PROTOCOL P3.8).
type vector struct {
	hash  string
	names []string
	at    []eventlog.Position
}

func newVector(subs []transport.Subscription) *vector {
	v := &vector{}
	for _, s := range subs {
		v.names = append(v.names, s.Channel)
		v.at = append(v.at, s.After)
	}
	v.hash = hashOf(v.names)
	return v
}

// hashOf tells one list of channels from another. It is no protection: the
// positions are checked by their marks.
func hashOf(names []string) string {
	h := fnv.New64a()
	for _, name := range names {
		h.Write(binary.AppendUvarint(nil, uint64(len(name))))
		h.Write([]byte(name))
	}
	return strconv.FormatUint(h.Sum64()>>24, 36)
}

func (v *vector) set(name string, at eventlog.Position) {
	for i := range v.names {
		if v.names[i] == name {
			v.at[i] = at
		}
	}
}

// appendBlockEnd appends the vector as an id, and ends the block.
func (v *vector) appendBlockEnd(dst []byte) []byte {
	dst = append(dst, "id: "...)
	dst = append(dst, vectorVersion)
	dst = append(dst, v.hash...)
	for _, at := range v.at {
		dst = append(dst, '~')
		dst = at.Append(dst)
	}
	return append(dst, "\n\n"...)
}

// parseVector reads an id for these channels. The error is a *Refusal.
func parseVector(text string, subs []transport.Subscription) ([]eventlog.Position, error) {
	if len(text) > maxVector {
		return nil, transport.Refuse(transport.CodeBadPosition, "a vector of positions has at most %d bytes, not %d", maxVector, len(text))
	}
	parts := strings.Split(text, "~")
	names := make([]string, len(subs))
	for i := range subs {
		names[i] = subs[i].Channel
	}
	if len(parts) != len(subs)+1 || parts[0] != string(vectorVersion)+hashOf(names) {
		return nil, transport.Refuse(transport.CodeBadPosition, "this is not a vector of positions for these %d channels in this order", len(subs))
	}
	at := make([]eventlog.Position, len(subs))
	for i, part := range parts[1:] {
		p, err := eventlog.ParsePosition(part)
		if err != nil {
			return nil, transport.Refuse(transport.CodeBadPosition, "the vector holds %.40q, which is no position", part)
		}
		at[i] = p
	}
	return at, nil
}
