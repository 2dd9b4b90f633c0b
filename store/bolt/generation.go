package bolt

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// markMask is the bits that a mark may have.
const markMask = 1<<eventlog.MarkBits - 1

// marks draws marks. It asks for randomness in large pieces, as each call costs
// more than the bytes. It is the writer's.
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

// A generation is a time in which the place before a channel's first event stays
// the same. It lasts across restarts.
type generation struct {
	number  uint64
	secrets [2][32]byte // this generation's, and that of the one before
	rose    time.Time   // when it began
}

func newGeneration(now time.Time) generation {
	g := generation{rose: now}
	rand.Read(g.secrets[0][:])
	rand.Read(g.secrets[1][:])
	return g
}

// after returns the next generation. Its secret owes nothing to the last.
func (g generation) after(now time.Time) generation {
	next := generation{number: g.number + 1, rose: now}
	next.secrets[1] = g.secrets[0]
	rand.Read(next.secrets[0][:])
	return next
}

// marks returns the marks of the place before a channel's first event that are
// valid now, the present one first.
func (g *generation) marks(ch eventlog.Channel) [2]uint64 {
	return [2]uint64{placeMark(&g.secrets[0], ch), placeMark(&g.secrets[1], ch)}
}

// placeMark derives a mark from a secret and a channel. The lengths stand before
// the names, so that no two channels have the same text.
func placeMark(secret *[32]byte, ch eventlog.Channel) uint64 {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(appendText(appendText(make([]byte, 0, 128), ch.Namespace), ch.Name))
	return max(binary.BigEndian.Uint64(mac.Sum(nil))&markMask, 1) // zero is no mark
}
