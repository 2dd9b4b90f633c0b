package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Opcodes of RFC 6455 §5.2.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// A message is numbered by a mark in its data, which nothing around it holds,
// whatever the contestant puts there: a tilde and eight digits.
const (
	markSign   = '~'
	markDigits = 8
)

// message makes the data of message n: JSON of a given size.
func message(n, size int) []byte {
	b := fmt.Appendf(nil, `{"id":"%c%0*d","text":"`, markSign, markDigits, n)
	const end = `"}`
	for len(b) < size-len(end) {
		b = append(b, 'a'+byte(len(b)%26))
	}
	return append(b, end...)
}

func messages(first, count, size int) [][]byte {
	all := make([][]byte, count)
	for i := range all {
		all[i] = message(first+i, size)
	}
	return all
}

// appendTextFrame appends an unmasked text frame of less than 64 KiB, as
// servers send them.
func appendTextFrame(dst, payload []byte) []byte {
	if n := len(payload); n < 126 {
		dst = append(dst, 0x80|opText, byte(n))
	} else {
		dst = append(dst, 0x80|opText, 126, byte(n>>8), byte(n))
	}
	return append(dst, payload...)
}

// appendClientFrame appends a masked text frame, as clients must send them. The
// mask is zero, so the payload stays as it is.
func appendClientFrame(dst, payload []byte) []byte {
	n := len(payload)
	dst = append(dst, 0x80|opText, 0x80|126, byte(n>>8), byte(n), 0, 0, 0, 0)
	return append(dst, payload...)
}

// A frameParser finds the marks in what a server sends, wherever the reads cut
// it. A message of several events, as batching makes them, has several marks.
type frameParser struct {
	head  [10]byte
	known int    // bytes of head that are there
	rest  uint64 // bytes of payload still to come
	op    byte

	marking bool // within a mark
	digits  int  // of it, so far
	number  int

	pings   int    // that came; the drain, which is never at it for long, answers none
	closing []byte // payload of a close frame, so far
}

// feed takes what was read and appends the numbers of the marks to found.
func (p *frameParser) feed(b []byte, found []int) []int {
	for len(b) > 0 {
		if p.rest == 0 {
			b = p.header(b)
			continue
		}
		n := int(min(uint64(len(b)), p.rest))
		p.rest -= uint64(n)
		if p.op == opClose {
			p.closing = append(p.closing, b[:n]...)
		} else if p.op < opClose {
			found = p.payload(b[:n], found)
		}
		b = b[n:]
	}
	return found
}

// header takes bytes of a frame's header (RFC 6455 §5.2) and returns the rest.
func (p *frameParser) header(b []byte) []byte {
	for len(b) > 0 {
		p.head[p.known] = b[0]
		p.known++
		b = b[1:]
		length, whole := headerLength(p.head[:p.known])
		if whole {
			p.op, p.rest, p.known = p.head[0]&0xF, length, 0
			if p.op == opPing {
				p.pings++
			}
			break
		}
	}
	return b
}

func headerLength(head []byte) (length uint64, whole bool) {
	if len(head) < 2 {
		return 0, false
	}
	switch short := head[1] & 0x7F; {
	case short < 126:
		return uint64(short), true
	case short == 126 && len(head) == 4:
		return uint64(binary.BigEndian.Uint16(head[2:])), true
	case short == 127 && len(head) == 10:
		return binary.BigEndian.Uint64(head[2:]), true
	}
	return 0, false
}

func (p *frameParser) payload(b []byte, found []int) []int {
	for {
		for p.marking && len(b) > 0 {
			p.number = p.number*10 + int(b[0]-'0')
			b = b[1:]
			if p.digits++; p.digits == markDigits {
				found = append(found, p.number)
				p.marking = false
			}
		}
		at := bytes.IndexByte(b, markSign)
		if at < 0 {
			return found
		}
		b = b[at+1:]
		p.marking, p.digits, p.number = true, 0, 0
	}
}

// closed tells what a close frame said, or nothing.
func (p *frameParser) closed() string {
	if len(p.closing) < 2 {
		return ""
	}
	return fmt.Sprintf("%d %s", binary.BigEndian.Uint16(p.closing), p.closing[2:])
}
