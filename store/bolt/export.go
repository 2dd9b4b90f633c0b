package bolt

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

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
	buffer := bufio.NewWriter(to)
	out := json.NewEncoder(buffer)
	if err := out.Encode(line{Export: exportVersion}); err != nil {
		return err
	}
	counts := exportedCounts{}
	err = f.view(func(tx *bbolt.Tx) error {
		for _, id := range slices.Sorted(maps.Keys(c.channels)) {
			ch := c.channels[id]
			if err := exportChannel(out, tx, ch); err != nil {
				return fmt.Errorf("channel %v: %w", ch.name, err)
			}
			counts.Channels++
			counts.Events += ch.next.events()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := out.Encode(line{End: &counts}); err != nil {
		return err
	}
	return buffer.Flush()
}

func exportChannel(out *json.Encoder, tx *bbolt.Tx, ch *channel) error {
	if err := out.Encode(line{Channel: exportName(ch)}); err != nil {
		return err
	}
	var failed error
	s, before := &ch.next, ch.next.base.at
	err := eventsOf(tx, ch.id, nil).forwards(s.base.at.Offset+1, s.head.at.Offset, func(e *entry) bool {
		if failed = out.Encode(line{Event: exportEvent(e)}); e.Before() != before {
			failed = &missing{e.At.Offset, "doesn't follow the one before it"}
		}
		before = e.At
		return failed == nil
	})
	return cmp.Or(err, failed)
}
