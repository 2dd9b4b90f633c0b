package faultproxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/memnet"
)

// TestWhatIsDueTogetherIsOnePiece: a Merge relies on it, and over a network it
// can't be seen for certain.
func TestWhatIsDueTogetherIsOnePiece(t *testing.T) {
	now := time.Now()
	soon := now.Add(time.Hour)
	whole := []byte("abcd")
	var f flow
	f.add([]timed{{soon, whole[:2]}, {soon, []byte("xy")}, {soon.Add(1), whole[2:]}})
	if len(f.queue) != 2 || string(f.queue[0].p) != "abxy" || string(f.queue[1].p) != "cd" || f.queued != 6 {
		t.Errorf("%d pieces, %d bytes", len(f.queue), f.queued)
	}
	f = flow{} // what is due now isn't joined: a Split relies on it
	f.add([]timed{{now, whole[:2]}, {now, whole[2:]}})
	if len(f.queue) != 2 {
		t.Errorf("%d pieces", len(f.queue))
	}
}

// TestWhatIsGivenUpIsNotPassed, also when the end comes at the same time.
func TestWhatIsGivenUpIsNotPassed(t *testing.T) {
	s := held{max: 9, free: func() bool { return false }}
	s.shape(time.Now(), []byte("x"))
	if left := s.end(time.Now()); left != nil {
		t.Errorf("%d pieces", len(left))
	}
}

// wrapped is a connection that says what it is made of, as those of TLS do.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestResetReachesThrough(t *testing.T) {
	client, server := memnet.Pipe()
	reset(wrapped{wrapped{server}})
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
	client, server = memnet.Pipe()
	reset(struct{ net.Conn }{server}) // can't be reset
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
}

func TestTheLogIsBounded(t *testing.T) {
	var p Proxy
	for i := range maxLog + 1 {
		p.note(i, strings.Repeat("x", 2*maxNamed), "")
	}
	log := p.Log()
	if len(log) > maxLog || log[len(log)-1].Conn != maxLog || len(log[0].Request) > maxNamed+len("…") {
		t.Errorf("%d entries, the last of %d, with %d bytes", len(log), log[len(log)-1].Conn, len(log[0].Request))
	}
}
