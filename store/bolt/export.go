package bolt

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	bbolt "go.etcd.io/bbolt"
)

// Export writes all events of a file that no Log has open, as lines of JSON, from
// which [Import] makes a file in which clients go on where they are. What is
// remembered of producers, and the secrets, are not in it. An error tells what
// could not be read; what was written then lacks its last line, so that Import
// refuses it.
func Export(path string, to io.Writer) (err error) {
	f, err := openReadOnly(path)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, f.close()) }()
	c, err := readContents(f)
	if err != nil {
		return err
	}
	x := newExporter(path, to)
	return x.export(f, func(tx *bbolt.Tx) error {
		for _, id := range sortedIDs(c) {
			ch := c.channels[id]
			s := &ch.next
			if err := x.channel(tx, ch, s.base, s.base.at.Offset+1, s.head.at.Offset); err != nil {
				return err
			}
		}
		return nil
	})
}

// Salvage is Export of a file that is damaged. It leaves out what can't be read,
// and says what that is. Where events are missing between others it writes those
// after the damage only, whose positions clients are most likely to have, as if
// the others had been trimmed; where there are none after it, those before. An
// error tells why it could not go on.
func Salvage(path string, to io.Writer, lost func(string)) (err error) {
	damaged := func(err error) {
		lost(strings.TrimPrefix(words(err), path+": "))
	}
	f, err := openDamaged(path, damaged)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, f.close()) }()
	c, x := &contents{channels: make(map[uint64]*channel)}, newExporter(path, to)
	return x.export(f, func(tx *bbolt.Tx) error {
		if err := c.read(path, tx, damaged); err != nil {
			return err
		}
		for _, id := range sortedIDs(c) {
			if err := x.salvage(tx, c.channels[id], lost); err != nil {
				return err
			}
		}
		checkStrays(path, tx, c, damaged)
		return nil
	})
}

// An exporter writes lines.
type exporter struct {
	path   string
	buffer *bufio.Writer
	out    *json.Encoder
	counts exportedCounts
}

func newExporter(path string, to io.Writer) *exporter {
	x := &exporter{path: path, buffer: bufio.NewWriter(to)}
	x.out = json.NewEncoder(x.buffer)
	return x
}

// export writes the first line, what is written of a file, and the last line. It
// writes whole lines only, also if it fails.
func (x *exporter) export(f *file, write func(*bbolt.Tx) error) (err error) {
	defer func() { err = cmp.Or(err, x.buffer.Flush()) }()
	if err := x.out.Encode(line{Export: exportVersion}); err != nil {
		return err
	}
	if err := f.view(write); err != nil {
		return err
	}
	return x.out.Encode(line{End: &x.counts})
}

// channel writes a channel with some of its events, which come after a place.
func (x *exporter) channel(tx *bbolt.Tx, ch *channel, after place, from, to uint64) error {
	if err := x.out.Encode(line{Channel: exportName(ch, after)}); err != nil {
		return err
	}
	x.counts.Channels++
	var failed error
	before := after.at
	err := eventsOf(tx, ch.id, nil).forwards(from, to, func(e *entry) bool {
		if e.Before() != before {
			failed = &missing{e.At.Offset, "doesn't follow the one before it"}
			return false
		}
		before = e.At
		x.counts.Events++
		failed = x.out.Encode(line{Event: exportEvent(e)})
		return failed == nil
	})
	err = cmp.Or(err, failed)
	if gone, ok := errors.AsType[*missing](err); ok {
		return corrupt(x.path, "channel %v: %v", ch.name, gone)
	}
	return err
}

// salvage writes the newest run of a channel's events.
func (x *exporter) salvage(tx *bbolt.Tx, ch *channel, lost func(string)) error {
	runs := survey(x.path, tx, ch)
	newest := slices.IndexFunc(runs, func(r run) bool { return r.why == "" })
	after, from, to := ch.next.base, uint64(1), uint64(0)
	if newest >= 0 {
		from, to = runs[newest].from, runs[newest].to
		first, err := eventsOf(tx, ch.id, nil).try(x.path, from)
		if err != nil {
			return err
		}
		after = first.before()
	} else if len(runs) > 0 {
		after = ch.next.head // nobody has to be told more than that all before is gone
	}
	for i, r := range slices.Backward(runs) {
		switch {
		case r.why != "":
			lost(fmt.Sprintf("channel %v: left out %v: %v", ch.name, &r, r.why))
		case i != newest:
			lost(fmt.Sprintf("channel %v: left out %v, whole, but older than the damage", ch.name, &r))
		}
	}
	return x.channel(tx, ch, after, from, to)
}
