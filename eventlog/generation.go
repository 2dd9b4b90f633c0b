package eventlog

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// markMask is the bits that a mark may have.
const markMask = 1<<MarkBits - 1

// marks draws marks. It asks for randomness in large pieces, as each call costs
// more than the bytes. It is guarded by the mutex of its Memory.
type marks struct {
	buffer [4096]byte
	left   []byte
}

func (m *marks) draw() uint64 {
	for {
		if len(m.left) < 8 {
			rand.Read(m.buffer[:]) // never fails
			m.left = m.buffer[:]
		}
		mark := binary.LittleEndian.Uint64(m.left) & markMask
		m.left = m.left[8:]
		if mark != 0 {
			return mark
		}
	}
}

// A generation is a time in which the place before a channel's first event
// stays the same. It is guarded by the mutex of its Memory.
type generation struct {
	number  uint64
	secrets [2][32]byte   // this generation's, and that of the one before
	rose    time.Duration // when it began
}

func newGeneration() generation {
	var g generation
	rand.Read(g.secrets[0][:])
	rand.Read(g.secrets[1][:])
	return g
}

// rise begins the next generation. Its secret owes nothing to the last.
func (g *generation) rise(now time.Duration) {
	g.number++
	g.rose = now
	g.secrets[1] = g.secrets[0]
	rand.Read(g.secrets[0][:])
}

// marks returns the marks of the place before a channel's first event that are
// valid now, the present one first.
func (g *generation) marks(ch Channel) [2]uint64 {
	return [2]uint64{placeMark(&g.secrets[0], ch), placeMark(&g.secrets[1], ch)}
}

// place returns the position before the first event of an unborn channel.
func (g *generation) place(ch Channel) Position {
	return Position{Offset: 0, Mark: placeMark(&g.secrets[0], ch)}
}

// holds reports whether p is that position, now or in the generation before.
func (g *generation) holds(ch Channel, p Position) bool {
	if p.Offset != 0 || p.Mark == 0 {
		return false
	}
	m := g.marks(ch)
	return p.Mark == m[0] || p.Mark == m[1]
}

// placeMark derives a mark from a secret and a channel. The lengths stand
// before the names, so that no two channels have the same text.
func placeMark(secret *[32]byte, ch Channel) uint64 {
	mac := hmac.New(sha256.New, secret[:])
	text := make([]byte, 0, 128)
	for _, part := range []string{ch.Namespace, ch.Name} {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	mac.Write(text)
	mark := binary.BigEndian.Uint64(mac.Sum(nil)) & markMask
	return max(mark, 1) // zero is no mark
}

// rise begins a generation, drops the names that can go, and returns who must
// be woken because a place moved. Guarded by mu; the caller wakes without it.
func (m *Memory) rise(now time.Duration) []*watcher {
	for h := range m.empty {
		if m.droppable(h) && h.written < m.generation.number {
			delete(m.empty, h)
			delete(m.channels, h.channel)
		}
	}
	m.generation.rise(now)
	m.counted = now
	var wake []*watcher
	for ch, watchers := range m.watchers {
		if m.channels[ch] == nil {
			wake = append(wake, watchers...)
		}
	}
	return wake
}

// droppable reports whether nothing but its age keeps the name of an empty
// channel. A watcher keeps it: its cursor at the head is still exact.
func (m *Memory) droppable(h *history) bool {
	return len(h.producers) == 0 && len(m.watchers[h.channel]) == 0
}
