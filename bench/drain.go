package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// parentToken is what the poller calls the pipe from the server, which is
// silent while a load is on: if it can be read, the server is gone.
const parentToken = -1

// readBytes is how much is read of a client at once.
const readBytes = 64 << 10

// A drain is all the clients.
type drain struct {
	poller  *poller
	clients []*client

	first, end int // the load: messages from first to before end
	waiting    int // clients that don't have all of it, and may get it
	having     []int
	tally      tally

	// Scratch space.
	buf   []byte
	ready []int
	found []int
}

// serveDrain is the drain's process. It ends when the server closes the pipe.
func serveDrain(in io.Reader, out io.Writer) error {
	runtime.GOMAXPROCS(1)
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	var p plan
	if err := orders.Decode(&p); err != nil {
		return err
	}
	d, err := newDrain(p)
	if err != nil {
		return answers.Encode(answer{Error: err.Error()})
	}
	if err := answers.Encode(answer{}); err != nil {
		return err
	}
	for {
		var w watch
		if err := orders.Decode(&w); err != nil {
			return ignoreEOF(err)
		}
		d.arm(w)
		if err := answers.Encode(answer{Armed: true}); err != nil {
			return err
		}
		if err := d.take(time.Duration(w.LimitMillis) * time.Millisecond); err != nil {
			return ignoreEOF(err)
		}
		if err := answers.Encode(answer{Tally: &d.tally}); err != nil {
			return err
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func newDrain(p plan) (*drain, error) {
	poller, err := newPoller()
	if err != nil {
		return nil, err
	}
	d := &drain{poller: poller, buf: make([]byte, readBytes)}
	for i := range p.Clients {
		c, err := connect(p)
		if err != nil {
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
		d.clients = append(d.clients, c)
		if err := poller.add(c.fd, i); err != nil {
			return nil, err
		}
	}
	return d, poller.add(0, parentToken)
}

// arm gets ready for a load.
func (d *drain) arm(w watch) {
	d.first, d.end = w.First, w.First+w.Count
	d.having = make([]int, w.Count)
	d.tally = tally{Whole: make([]int64, w.Count), Ended: map[string]int{}}
	d.waiting = 0
	for _, c := range d.clients {
		c.next = w.First
		if c.why != "" {
			d.tally.Ended[c.why]++
			continue
		}
		d.waiting++
	}
}

// take reads until the load is there, or never will be.
func (d *drain) take(patience time.Duration) error {
	before, deadline := cpu(), now()+patience
	for d.waiting > 0 && now() < deadline {
		var err error
		if d.ready, err = d.poller.wait(min(time.Second, patience), d.ready[:0]); err != nil {
			return err
		}
		for _, token := range d.ready {
			if token == parentToken {
				return io.EOF
			}
			d.read(d.clients[token])
		}
	}
	d.tally.Over = int64(now())
	d.tally.CPU = int64(cpu() - before)
	d.tally.Missing = len(d.clients)*(d.end-d.first) - d.tally.Delivered
	return nil
}

func (d *drain) read(c *client) {
	n, err := unix.Read(c.fd, d.buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case err != nil:
		d.lose(c, err.Error())
		return
	case n == 0:
		d.lose(c, "end of stream")
		return
	}
	d.tally.Bytes += int64(n)
	d.found = c.parser.feed(d.buf[:n], d.found[:0])
	for _, number := range d.found {
		d.count(c, number)
	}
}

// count counts one event. Events that were skipped stay uncounted.
func (d *drain) count(c *client, number int) {
	if number < c.next || number >= d.end {
		d.tally.Disorder++
		return
	}
	c.next = number + 1
	d.tally.Delivered++
	i := number - d.first
	if d.having[i]++; d.having[i] == len(d.clients) {
		d.tally.Whole[i] = int64(now())
	}
	if c.next == d.end {
		d.waiting--
	}
}

// lose forgets a client whose connection ended.
func (d *drain) lose(c *client, why string) {
	if said := c.parser.closed(); said != "" {
		why = said
	}
	c.why = why
	d.tally.Ended[why]++
	if c.next < d.end {
		d.waiting--
	}
	_ = unix.Close(c.fd) // which takes it out of the poller, too
}
