package bolt

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// What is in the file. Each value is sealed: a version, a checksum over its key
// and itself, and a body. A value that is damaged, or was written for another
// key, doesn't open, so it is never taken for an event.
const (
	valueVersion = 1
	sealSize     = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSeal = errors.New("its checksum is wrong")

// unsealed begins a value of about so many bytes.
func unsealed(size int) []byte { return make([]byte, sealSize, sealSize+size) }

// seal ends a value.
func seal(key, value []byte) []byte {
	value[0] = valueVersion
	binary.LittleEndian.PutUint32(value[1:], checksum(key, value))
	return value
}

func checksum(key, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, value[:1])
	return crc32.Update(sum, castagnoli, value[sealSize:])
}

// unseal returns the body of a value.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < sealSize || value[0] != valueVersion || binary.LittleEndian.Uint32(value[1:]) != checksum(key, value) {
		return nil, errSeal
	}
	return value[sealSize:], nil
}

// eventKey is where an event is: its channel's number, and its offset.
func eventKey(channel, offset uint64) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 16), channel)
	return binary.BigEndian.AppendUint64(key, offset)
}

// parseEventKey is the reverse.
func parseEventKey(key []byte) (channel, offset uint64, ok bool) {
	if len(key) != 16 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:]), true
}

// channelKey is where a channel's record is.
func channelKey(channel uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 8), channel)
}

// producerKey is where a producer is.
func producerKey(channel uint64, id string) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(id)), channel), id...)
}

// An entry is an event, with what a log needs to know about it.
type entry struct {
	eventlog.Event

	sum int64 // bytes ever appended to the channel up to this event
}

func (e *entry) place() place { return place{at: e.At, sum: e.sum} }

// encodeEntry returns the value of an event.
func encodeEntry(key []byte, e *entry) []byte {
	v := unsealed(64 + len(e.Data))
	v = append(v, byte(e.Kind))
	v = binary.AppendUvarint(v, e.At.Mark)
	v = binary.AppendUvarint(v, e.Prev)
	v = appendTime(v, e.Time)
	v = binary.AppendUvarint(v, uint64(e.sum))
	name := e.Type
	if name == eventlog.DefaultType {
		name = "" // most events have it
	}
	v = appendText(v, name)
	v = appendText(v, e.Key)
	v = binary.AppendUvarint(v, uint64(len(e.Tags)))
	for _, tag := range e.Tags {
		v = appendText(v, tag)
	}
	return seal(key, append(v, e.Data...))
}

// decodeEntry reads the value of an event, whose data stays a part of it.
func decodeEntry(key, value []byte) (entry, error) {
	var e entry
	body, err := unseal(key, value)
	if err != nil {
		return e, err
	}
	_, offset, ok := parseEventKey(key)
	f := fields{left: body, bad: !ok}
	e.Kind = eventlog.Kind(f.byte())
	e.At = eventlog.Position{Offset: offset, Mark: f.uint()}
	e.Prev = f.uint()
	e.Time = f.time()
	e.sum = int64(f.uint())
	if e.Type = f.text(); e.Type == "" {
		e.Type = eventlog.DefaultType
	}
	e.Key = f.text()
	if n := f.uint(); n > eventlog.MaxTags {
		f.bad = true
	} else if n > 0 {
		e.Tags = make([]string, n)
		for i := range e.Tags {
			e.Tags[i] = f.text()
		}
	}
	e.Data = f.left
	if f.bad || e.Kind > eventlog.Binary {
		return entry{}, errFields
	}
	return e, nil
}

// encodeRecord returns the value of a channel.
func encodeRecord(key []byte, ch *channel) []byte {
	s := &ch.next
	v := unsealed(128 + len(ch.name.Namespace) + len(ch.name.Name))
	v = appendText(v, ch.name.Namespace)
	v = appendText(v, ch.name.Name)
	v = binary.AppendUvarint(v, ch.births[0])
	v = binary.AppendUvarint(v, ch.births[1])
	v = appendPlace(v, s.base)
	v = appendPlace(v, s.head)
	v = appendTime(v, s.oldest)
	v = appendTime(v, s.newest)
	v = binary.AppendUvarint(v, s.written)
	v = binary.AppendUvarint(v, ch.floor)
	return seal(key, v)
}

// decodeRecord reads the value of a channel.
func decodeRecord(key, value []byte) (*channel, error) {
	body, err := unseal(key, value)
	if err != nil {
		return nil, err
	}
	if len(key) != 8 {
		return nil, errFields
	}
	f := fields{left: body}
	ch := &channel{id: binary.BigEndian.Uint64(key)}
	ch.name = eventlog.Channel{Namespace: f.text(), Name: f.text()}
	ch.births = [2]uint64{f.uint(), f.uint()}
	ch.next.base, ch.next.head = f.place(), f.place()
	ch.next.oldest, ch.next.newest = f.time(), f.time()
	ch.next.written = f.uint()
	ch.floor = f.uint()
	ch.shown = ch.next
	if f.bad || len(f.left) > 0 || ch.name.Check() != nil ||
		ch.floor > ch.next.base.at.Offset || ch.next.base.at.Offset > ch.next.head.at.Offset {
		return nil, errFields
	}
	return ch, nil
}

// encodeProducer returns the value of a producer.
func encodeProducer(key []byte, p *producer) []byte {
	v := unsealed(64 + len(p.owner))
	v = appendText(v, p.owner)
	v = binary.AppendUvarint(v, p.seq)
	v = appendPosition(v, p.last)
	return seal(key, appendTime(v, p.at))
}

// decodeProducer reads the value of a producer, but for its channel.
func decodeProducer(key, value []byte) (channel uint64, p *producer, err error) {
	body, err := unseal(key, value)
	if err != nil {
		return 0, nil, err
	}
	if len(key) <= 8 {
		return 0, nil, errFields
	}
	f := fields{left: body}
	p = &producer{id: string(key[8:]), owner: f.text(), seq: f.uint(), last: f.position(), at: f.time()}
	if f.bad || len(f.left) > 0 {
		return 0, nil, errFields
	}
	return binary.BigEndian.Uint64(key), p, nil
}

// encodeGeneration returns the value of the generation.
func encodeGeneration(key []byte, g *generation) []byte {
	v := unsealed(128)
	v = binary.AppendUvarint(v, g.number)
	v = append(v, g.secrets[0][:]...)
	v = append(v, g.secrets[1][:]...)
	return seal(key, appendTime(v, g.rose))
}

// decodeGeneration reads the value of the generation.
func decodeGeneration(key, value []byte) (generation, error) {
	body, err := unseal(key, value)
	if err != nil {
		return generation{}, err
	}
	f := fields{left: body}
	g := generation{number: f.uint()}
	copy(g.secrets[0][:], f.take(len(g.secrets[0])))
	copy(g.secrets[1][:], f.take(len(g.secrets[1])))
	g.rose = f.time()
	if f.bad || len(f.left) > 0 {
		return generation{}, errFields
	}
	return g, nil
}

func appendText(v []byte, s string) []byte {
	return append(binary.AppendUvarint(v, uint64(len(s))), s...)
}

// appendTime keeps nanoseconds since 1970, and 0 for the zero time.
func appendTime(v []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(v, 0)
	}
	return binary.AppendVarint(v, t.UnixNano())
}

func appendPosition(v []byte, p eventlog.Position) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(v, p.Offset), p.Mark)
}

func appendPlace(v []byte, p place) []byte {
	return binary.AppendUvarint(appendPosition(v, p.at), uint64(p.sum))
}

var errFields = errors.New("it is not what it should be, though its checksum is right")

// fields reads what was appended, field by field. bad stays true after the
// first that isn't there.
type fields struct {
	left []byte
	bad  bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n < 0 || n > len(f.left) {
		f.bad = true
		return nil
	}
	taken := f.left[:n]
	f.left = f.left[n:]
	return taken
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint() uint64 {
	u, n := binary.Uvarint(f.left)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.take(n)
	return u
}

func (f *fields) text() string {
	n := f.uint()
	if n > uint64(len(f.left)) {
		f.bad = true
		return ""
	}
	return string(f.take(int(n)))
}

func (f *fields) time() time.Time {
	ns, n := binary.Varint(f.left)
	if n <= 0 {
		f.bad = true
		return time.Time{}
	}
	f.take(n)
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func (f *fields) position() eventlog.Position {
	return eventlog.Position{Offset: f.uint(), Mark: f.uint()}
}

func (f *fields) place() place { return place{at: f.position(), sum: int64(f.uint())} }
