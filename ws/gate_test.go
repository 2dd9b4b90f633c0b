package ws

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/transport"
)

// readFrame reads one unmasked frame.
func readFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&finBit == 0 || head[0]&0x70 != 0 || head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("not a whole unmasked frame: % x", head)
	}
	n := uint64(head[1])
	extended := map[uint64]int{126: 2, 127: 8}[n]
	if extended > 0 {
		long := make([]byte, 8)
		if _, err = io.ReadFull(r, long[8-extended:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(long)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[0] & 0xF, payload, err
}

// TestControlFramesStandBetweenDataFrames: the library writes pings, pongs and
// at last a close while flushes go on; nothing is torn, and nothing follows the
// close frame.
func TestControlFramesStandBetweenDataFrames(t *testing.T) {
	client, server := memnet.Pipe()
	g := newGate(time.Second)
	g.Conn = server
	const flushes = 3000
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range flushes {
			var frames []byte
			for k := range i%4 + 1 {
				frames = appendFrame(frames, opText, fmt.Appendf(nil, "%d.%d %0*d", i, k, i%300*(i%7), 0))
			}
			if err := g.send(net.Buffers{frames}, time.Now().Add(time.Minute), false); err != nil {
				t.Errorf("flush %d: %v", i, err)
				return
			}
		}
		if _, err := g.Write(appendFrame(nil, opClose, []byte{3, 232})); err != nil {
			t.Error(err)
		}
		if err := g.send(net.Buffers{appendFrame(nil, opText, nil)}, time.Now().Add(time.Minute), false); err == nil {
			t.Error("data was taken after the close frame")
		}
		_, _ = g.Write(appendFrame(nil, opPing, nil))
		_ = server.Close()
	})
	writers.Go(func() {
		for i := range 2000 {
			_, _ = g.Write(appendFrame(nil, opPong, fmt.Append(nil, i)))
			_, _ = g.Write(appendFrame(nil, opPing, nil))
		}
	})
	seen, controls, closed := 0, 0, false
	for {
		opcode, payload, err := readFrame(client)
		if err != nil {
			break
		}
		if closed {
			t.Fatalf("frame %x follows the close frame", opcode)
		}
		switch opcode {
		case opText:
			var i, k int
			if _, err := fmt.Sscanf(string(payload), "%d.%d", &i, &k); err != nil {
				t.Fatalf("torn: %.40q", payload)
			}
			seen++
		case opClose:
			closed = true
		default:
			controls++
		}
	}
	writers.Wait()
	if want := flushes / 4 * 10; seen != want || !closed || controls == 0 {
		t.Errorf("%d of %d data frames, %d control frames, closed: %v", seen, want, controls, closed)
	}
}

// TestStalledClientThatPingsIsNotCutOff: a pong that can't be written now waits
// for the flush, so that only the engine's deadline ends the connection.
func TestStalledClientThatPingsIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := memnet.Pipe()
		g := newGate(time.Second)
		g.Conn = server
		flushed := make(chan error, 1)
		go func() {
			flushed <- g.send(net.Buffers{appendFrame(nil, opText, make([]byte, 2*memnet.Window))}, time.Now().Add(30*time.Second), false)
		}()
		synctest.Wait()
		began := time.Now()
		for i := range 5 {
			if _, err := g.Write(appendFrame(nil, opPong, fmt.Append(nil, i))); err != nil {
				t.Errorf("pong %d: %v", i, err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the library was kept waiting for %v", took)
		}
		time.Sleep(20 * time.Second)
		if opcode, _, err := readFrame(client); opcode != opText || err != nil {
			t.Fatalf("frame %x, %v", opcode, err)
		}
		if err := <-flushed; err != nil {
			t.Errorf("the flush: %v", err)
		}
		if opcode, payload, err := readFrame(client); opcode != opPong || string(payload) != "4" || err != nil {
			t.Errorf("frame %x %q, %v, want the latest pong", opcode, payload, err)
		}
	})
}

// TestTornControlFrameEndsTheConnection: part of a pong before the next data
// frame would swallow that frame.
func TestTornControlFrameEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := memnet.Pipe()
		g := newGate(time.Second)
		g.Conn = server
		big := appendFrame(nil, opText, bytes.Repeat([]byte{'x'}, memnet.Window))
		sent := make(chan error, 3)
		send := func(frame []byte) {
			sent <- g.send(net.Buffers{frame}, time.Now().Add(10*time.Second), false)
		}
		go send(big)
		synctest.Wait()
		_, _ = g.Write(appendFrame(nil, opPong, []byte("123456789"))) // waits in its slot
		got := make([]byte, len(big)-memnet.Window+3)
		_, _ = io.ReadFull(client, got) // room for the rest of the flush and three bytes
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		go func() {
			send(appendFrame(nil, opText, []byte("first!")))
			send(appendFrame(nil, opText, []byte("second")))
		}()
		rest := io.MultiReader(bytes.NewReader(got), client)
		if op, _, err := readFrame(rest); op != opText || err != nil {
			t.Fatalf("frame %x, %v", op, err)
		}
		if op, payload, err := readFrame(rest); err == nil {
			t.Errorf("frame %x %.30q came after a pong that could be written in part only", op, payload)
		}
		<-sent
		<-sent
	})
}

func TestLibraryMayNotWriteData(t *testing.T) {
	_, server := memnet.Pipe()
	g := newGate(time.Second)
	g.Conn = server
	if _, err := g.Write(appendFrame(nil, opText, []byte("x"))); err == nil {
		t.Error("a data frame of the library went through")
	}
}

func TestFramesOfEveryLength(t *testing.T) {
	for _, n := range []int{0, 1, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 125, 126, 127, 65_400, 65_450, 65_473, 65_474, 65_475, 65_476, 65_477, 65_480, 65_535, 65_536, 70_000} {
		e := &eventlog.Event{Message: eventlog.Message{Type: "t", Kind: eventlog.Text, Data: bytes.Repeat([]byte{'x'}, n)}, At: eventlog.Position{Offset: 1, Mark: 2}}
		want := transport.AppendEventJSON(nil, "room", e)
		frames := codec{}.AppendEvent([]byte("before"), "room", e)
		opcode, payload, err := readFrame(bytes.NewReader(frames[len("before"):]))
		if err != nil || opcode != opText || !bytes.Equal(payload, want) || !bytes.HasPrefix(frames, []byte("before")) {
			t.Errorf("%d bytes of data: opcode %x, %d bytes of %d, %v", n, opcode, len(payload), len(want), err)
		}
	}
}

var _ net.Conn = (*gate)(nil)
