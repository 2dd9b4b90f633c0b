package bolt

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// importBytes is how much is imported in one transaction.
const importBytes = 4 << 20

// importPath is where a file is written that is imported.
func importPath(path string) string { return path + ".import" }

// Import makes a file, which must not be there yet, of what [Export] wrote. Each
// event has the position that it had, so clients go on where they are. Tokens of
// before are not good any more, and who waits in a channel that nobody wrote to
// hears a gap. If it fails there is no file.
func Import(path string, from io.Reader) (err error) {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is there already: import into a new file", path)
	}
	temporary := importPath(path)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if gone := os.Remove(temporary); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	f, err := openNew(temporary, 0)
	if err != nil {
		return err
	}
	f.db.NoSync = true // it is of no use before it is whole
	i := importer{file: f, names: make(map[eventlog.Channel]bool)}
	if err = f.found(firstChanges(time.Now())); err == nil {
		err = i.read(from)
	}
	if err == nil {
		if err = f.sync(); err != nil {
			err = writeError(temporary, err)
		}
	}
	if err = errors.Join(err, f.close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	if err := syncFolder(path); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// firstChanges are what is in a new file.
func firstChanges(now time.Time) []change {
	g := newGeneration(now)
	secret := make([]byte, session.MinSecret)
	rand.Read(secret) // never fails
	return []change{
		{metaBucket, formatKey, []byte(format)},
		{metaBucket, generationKey, encodeGeneration(generationKey, &g)},
		{metaBucket, secretKey, seal(secretKey, append(unsealed(len(secret)), secret...))},
	}
}

// An importer reads lines and writes what they say.
type importer struct {
	file    *file
	names   map[eventlog.Channel]bool
	channel *channel // the last that was named
	counts  exportedCounts
	changes []change
	size    int64
}

func (i *importer) read(from io.Reader) error {
	in := json.NewDecoder(bufio.NewReaderSize(from, 1<<20))
	in.DisallowUnknownFields()
	for n := 1; ; n++ {
		var l line
		err := in.Decode(&l)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("line %d: the export ends before its last line: it is not whole", n)
		case err != nil:
		case n == 1 && l.Export != exportVersion:
			err = fmt.Errorf("this is no export of version %d", exportVersion)
		case n == 1:
		case l.Channel != nil:
			err = i.begin(l.Channel)
		case l.Event != nil:
			err = i.add(l.Event)
		case l.End != nil:
			if *l.End != i.counts {
				return fmt.Errorf("line %d: %+v were exported, and %+v read", n, *l.End, i.counts)
			}
			return i.write()
		default:
			err = errors.New("it is neither a channel, an event nor the end")
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// begin goes on with another channel.
func (i *importer) begin(n *exportedName) (err error) {
	i.record()
	i.counts.Channels++
	if i.channel, err = n.channel(uint64(i.counts.Channels)); err != nil {
		return err
	}
	if i.names[i.channel.name] {
		return fmt.Errorf("channel %v comes twice", i.channel.name)
	}
	i.names[i.channel.name] = true
	return nil
}

// add adds an event to the channel.
func (i *importer) add(x *exportedEvent) error {
	ch := i.channel
	if ch == nil {
		return errors.New("an event comes before a channel")
	}
	m, err := x.message()
	if err != nil {
		return err
	}
	if x.At.Offset != ch.next.head.at.Offset+1 || x.At.Mark == 0 || x.Time.Before(ch.next.newest) && ch.next.events() > 0 {
		return fmt.Errorf("event %v does not follow the one before it", x.At)
	}
	if ch.next.empty() {
		ch.next.newest = time.Time{} // it is that of the last event
	}
	e := ch.push(m, x.At.Mark, x.Time)
	ch.staged = nil
	key := eventKey(ch.id, e.At.Offset)
	i.counts.Events++
	i.put(change{eventsBucket, key, encodeEntry(key, e)})
	if i.size < importBytes {
		return nil
	}
	return i.write()
}

// record puts the record of the channel that is done.
func (i *importer) record() {
	if i.channel != nil {
		key := channelKey(i.channel.id)
		i.put(change{channelsBucket, key, encodeRecord(key, i.channel)})
	}
}

func (i *importer) put(c change) {
	i.changes = append(i.changes, c)
	i.size += c.size()
}

// write writes what was read. The record of the last channel is as of now.
func (i *importer) write() error {
	i.record()
	err := i.file.update(i.changes)
	i.changes, i.size = nil, 0
	if err != nil {
		return writeError(i.file.path, err)
	}
	return nil
}
