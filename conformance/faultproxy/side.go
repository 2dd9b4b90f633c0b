package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// readSize is how much is read at once.
const readSize = 16 << 10

var (
	errOver    = errors.New("the connection is over")
	errStopped = errors.New("stopped")
	errHead    = errors.New("the head is too long")
	errUnasked = errors.New("it spoke unasked")
	errLate    = errors.New("the rest of the head did not come in time")
)

// A piece is what was read at once.
type piece struct {
	at time.Time
	p  []byte
}

// A side is one of the two connections of a pair. Its goroutine reads one piece
// ahead, which bounds what is held and shows when the peer leaves.
type side struct {
	net.Conn
	pieces chan piece // closes when reading failed
	stop   chan struct{}

	// Set before pieces closes.
	err    error
	goneAt time.Time

	rest piece // was given back; owned by who reads the pieces
}

func newSide(c net.Conn) *side {
	return &side{Conn: c, pieces: make(chan piece), stop: make(chan struct{})}
}

// read hands over what comes, until stop closes or reading fails. It sets last
// whenever something comes.
func (s *side) read(last *atomic.Int64) {
	defer close(s.pieces)
	buf := make([]byte, readSize)
	for {
		n, err := s.Read(buf)
		now := time.Now()
		if n > 0 {
			last.Store(now.UnixNano())
			select {
			case s.pieces <- piece{now, bytes.Clone(buf[:n])}:
			case <-s.stop:
				s.err, s.goneAt = errOver, now
				return
			}
		}
		if err != nil {
			s.err, s.goneAt = err, now
			return
		}
	}
}

// takeRest returns what was given back.
func (s *side) takeRest() (p piece, ok bool) {
	p, s.rest = s.rest, piece{}
	return p, len(p.p) > 0
}

// giveBack is called with what of a piece wasn't used.
func (s *side) giveBack(p piece) { s.rest = p }

// head returns the next head. It waits for its first byte without bound, until
// over closes or another side says something; for the rest until timeout.
func (s *side) head(timeout time.Duration, over <-chan struct{}, other <-chan piece) (piece, error) {
	var head []byte
	var late <-chan time.Time
	for {
		p, err := s.next(over, late, other)
		if err != nil {
			if errors.Is(err, io.EOF) && len(head) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return piece{}, err
		}
		head, other = append(head, p.p...), nil
		if n := endOfHead(head); n >= 0 {
			s.giveBack(piece{p.at, head[n:]})
			return piece{p.at, head[:n:n]}, nil
		}
		if len(head) > maxHead {
			return piece{}, errHead
		}
		if late == nil {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			late = timer.C
		}
	}
}

func (s *side) next(over <-chan struct{}, late <-chan time.Time, other <-chan piece) (piece, error) {
	if p, ok := s.takeRest(); ok {
		return p, nil
	}
	select {
	case p, ok := <-s.pieces:
		if !ok {
			return piece{}, s.err
		}
		return p, nil
	case <-other:
		return piece{}, errStopped
	case <-late:
		return piece{}, errLate
	case <-over:
		return piece{}, errOver
	}
}

// why returns why the side ended or spoke while nothing was asked of it.
func (s *side) why() error {
	select {
	case _, ok := <-s.pieces:
		if !ok {
			return s.err
		}
	default:
	}
	return errUnasked
}

// finish ends the connection as how says; for HalfOpen it does nothing.
func (s *side) finish(how Ending) {
	switch how {
	case Reset:
		reset(s.Conn)
	case Orderly:
		_ = s.Close()
	}
}

// halfClose says that no more will be written, and reports whether it could.
func (s *side) halfClose() bool {
	c, ok := s.Conn.(interface{ CloseWrite() error })
	return ok && c.CloseWrite() == nil
}

// reset breaks a connection, so that its peer reads an error and not an end.
func reset(c net.Conn) {
	defer func() { _ = c.Close() }()
	for inner := c; ; {
		switch conn := inner.(type) {
		case interface{ Reset() }:
			conn.Reset()
			return
		case interface{ SetLinger(int) error }:
			_ = conn.SetLinger(0)
			_ = inner.Close()
			return
		case interface{ NetConn() net.Conn }: // as TLS has it
			inner = conn.NetConn()
		default:
			return
		}
	}
}
