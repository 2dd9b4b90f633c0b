package bolt

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// Open opens the log in a file, and makes one if there is none. One Log at
// a time has a file. The errors are [ErrLocked], [ErrReadOnly], [ErrFull] and
// [ErrCorrupt], or what the system says.
func Open(path string, o Options) (*Log, error) {
	o = o.withDefaults()
	f, err := openFile(path, o.LockTimeout, o.MaxFileSize)
	if err != nil {
		return nil, err
	}
	// What a compaction left that did not come to its end.
	if err := os.Remove(compactionPath(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(openError(path, err), f.close())
	}
	if o.hooks.opened != nil {
		o.hooks.opened(f)
	}
	l := newLog(f, o)
	if err := l.load(time.Now().Round(0).UTC()); err != nil {
		return nil, errors.Join(openError(path, err), f.close())
	}
	go l.run()
	return l, nil
}

func newLog(f *file, o Options) *Log {
	l := &Log{
		options:  o,
		path:     f.path,
		file:     f,
		leases:   session.NewMemory(o.Leases),
		queue:    newQueue(o.MaxQueued),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
		copies:   make(chan *copying),
		copied:   make(chan *copying),
		channels: make(map[eventlog.Channel]*channel),
		watchers: make(map[eventlog.Channel][]*watcher),
	}
	l.producers = newProducers()
	l.unborn = make(map[eventlog.Channel]*channel)
	l.empty = make(map[*channel]struct{})
	l.alarm = alarm{time.NewTimer(time.Until(never)), never}
	return l
}

// load reads all but the events.
func (l *Log) load(now time.Time) error {
	if err := l.found(now); err != nil {
		return err
	}
	c, err := readContents(l.file)
	if err != nil {
		return err
	}
	l.generation, l.secret = c.generation, c.secret
	for _, ch := range c.channels {
		ch.retention = l.options.retention(ch.name)
		l.channels[ch.name] = ch
		l.bytes += ch.next.bytes()
		l.lastID = max(l.lastID, ch.id)
		l.follow(ch)
	}
	for _, p := range c.producers {
		l.producers.add(p)
	}
	l.deleted = true // perhaps before the file was opened
	return nil
}

// found makes what a new file has to have.
func (l *Log) found(now time.Time) error {
	isNew := false
	err := l.file.view(func(tx *bbolt.Tx) error { isNew = isFresh(tx); return nil })
	if err != nil || !isNew {
		return err
	}
	return l.file.found(firstChanges(now))
}

// isFresh reports whether bbolt has made the first pages of a file, and nobody
// wrote to it.
func isFresh(tx *bbolt.Tx) bool {
	k, _ := tx.Cursor().First()
	return k == nil && tx.Size() == 4*int64(tx.DB().Info().PageSize)
}

// contents is what is in a file beside events.
type contents struct {
	generation generation
	secret     []byte
	channels   map[uint64]*channel
	producers  []*producer // the one whose last append was first comes first
}

func readContents(f *file) (*contents, error) {
	c := &contents{channels: make(map[uint64]*channel)}
	return c, f.view(func(tx *bbolt.Tx) error { return c.read(f.path, tx, nil) })
}

// onDamage is told of damage, and the one who met it goes on. Without one, damage
// is an error.
type onDamage func(error)

func (d onDamage) met(err error) error {
	if d == nil {
		return err
	}
	d(err)
	return nil
}

// read reads the contents.
func (c *contents) read(path string, tx *bbolt.Tx, damaged onDamage) (err error) {
	meta := tx.Bucket(metaBucket)
	if meta == nil && isFresh(tx) {
		return nil
	} else if meta == nil {
		return corrupt(path, "it is a bbolt file, but of another program")
	}
	if v := meta.Get(formatKey); string(v) != format {
		return corrupt(path, "its format is %q, and this program knows %q", v, format)
	}
	for _, read := range []func(string, *bbolt.Tx, onDamage) error{c.readMeta, c.readChannels, c.readProducers} {
		if err := read(path, tx, damaged); err != nil {
			return err
		}
	}
	return nil
}

func (c *contents) readMeta(path string, tx *bbolt.Tx, damaged onDamage) (err error) {
	meta := tx.Bucket(metaBucket)
	if c.generation, err = decodeGeneration(generationKey, meta.Get(generationKey)); err != nil {
		if err := damaged.met(corrupt(path, "generation: %v", err)); err != nil {
			return err
		}
	}
	secret, err := unseal(secretKey, meta.Get(secretKey))
	if err != nil {
		return damaged.met(corrupt(path, "secret: %v", err))
	}
	c.secret = slices.Clone(secret)
	return nil
}

func (c *contents) readChannels(path string, tx *bbolt.Tx, damaged onDamage) error {
	names := make(map[eventlog.Channel]uint64)
	return eachOf(path, tx, channelsBucket, damaged, func(k, v []byte) error {
		ch, err := decodeRecord(k, v)
		if err != nil {
			return corrupt(path, "record of channel %x: %v", k, err)
		}
		if twin, found := names[ch.name]; found {
			return corrupt(path, "channels %d and %d are both %v", twin, ch.id, ch.name)
		}
		names[ch.name], c.channels[ch.id] = ch.id, ch
		return nil
	})
}

func (c *contents) readProducers(path string, tx *bbolt.Tx, damaged onDamage) error {
	err := eachOf(path, tx, producersBucket, damaged, func(k, v []byte) error {
		id, p, err := decodeProducer(k, v)
		if err == nil && c.channels[id] == nil {
			err = errors.New("its channel is not there")
		}
		if err != nil {
			return corrupt(path, "producer %x: %v", k, err)
		}
		p.channel = c.channels[id]
		c.producers = append(c.producers, p)
		return nil
	})
	slices.SortStableFunc(c.producers, func(a, b *producer) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
	return err
}

// eachOf visits what is in a bucket. An error of the visit is damage, after which
// it goes on; after a page that is damaged it can't.
func eachOf(path string, tx *bbolt.Tx, bucket []byte, damaged onDamage, visit func(k, v []byte) error) error {
	var stopped error
	walk := func() (err error) {
		defer recovered(path, &err)()
		b := tx.Bucket(bucket)
		if b == nil {
			return corrupt(path, "it has no %s", bucket)
		}
		cursor := b.Cursor()
		for k, v := cursor.First(); k != nil && stopped == nil; k, v = cursor.Next() {
			if err := visit(k, v); err != nil {
				stopped = damaged.met(err)
			}
		}
		return nil
	}
	if err := walk(); err != nil {
		return damaged.met(fmt.Errorf("%w (in its %s)", err, bucket))
	}
	return stopped
}
