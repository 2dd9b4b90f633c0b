package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
)

const (
	// copyBytes is how much is copied in one transaction. None is long: while
	// one reads, bbolt can't map a file that grows.
	copyBytes = 1 << 20
	// fewBytes is how much may be left for the last round, in which appends
	// wait.
	fewBytes = 256 << 10
	// recordBytes is how much may be appended while everything is copied.
	recordBytes = 64 << 20
	// compactionGap is the least time between the beginnings of two compactions
	// that nobody asked for.
	compactionGap = time.Minute
)

// compactionPath is where the file is written that takes the place of another.
func compactionPath(path string) string { return path + ".compact" }

var (
	errRecord   = errors.New("more was appended in the meantime than is kept for it")
	errUnwanted = errors.New("nobody waits for it any more")
)

// A copying writes what is in the file to another, without what is free. Nobody
// waits while everything is copied, piece by piece, by a goroutine. What the
// writer commits in the meantime is recorded, and written again in its order
// after the copy: so it doesn't matter which of it the copy has already.
type copying struct {
	// Static.
	path   string                     // of the copy
	finish func(*Log, *copying) error // makes it what it is for. Called by the writer
	failed string                     // what to say if it isn't
	stop   chan struct{}              // closed by Close

	unwanted atomic.Bool // who asked for it waits no more

	asked []chan error // who wants to know how it ended. Of the writer
	to    *file        // of the goroutine, and then of the writer
	err   error        // the same

	mu       sync.Mutex
	recorded []change
	size     int64
	over     bool // more was recorded than is allowed
}

// compaction is a copy that takes the place of the file.
func (l *Log) compaction() *copying {
	return &copying{path: compactionPath(l.path), finish: (*Log).swap, failed: "could not be compacted, and goes on as it is"}
}

// Compact gives free room in the file back to the disk, which happens by itself
// as Options.MaxFree says. It returns when that is done. Others can use the log
// meanwhile. It needs room for a second file.
func (l *Log) Compact(ctx context.Context) error { return l.ask(ctx, l.compaction()) }

// Backup writes a copy of the log to a new file, with everything that was
// acknowledged when Backup was called and perhaps some of what was later, as it
// was at one moment: positions, producers and secrets, too. Open opens it, for
// example elsewhere. Others can use the log meanwhile. If the path is taken the
// error is [fs.ErrExist]; after any error nothing is left there.
func (l *Log) Backup(ctx context.Context, path string) error {
	taken, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := taken.Close(); err != nil {
		return err
	}
	c := &copying{path: path, finish: (*Log).keep, failed: "could not be backed up"}
	if err = l.ask(ctx, c); err != nil {
		c.unwanted.Store(true)
		_ = os.Remove(path) // also if its turn has not come
	}
	return err
}

// ask has the file copied, and waits until that is over.
func (l *Log) ask(ctx context.Context, c *copying) error {
	answer := make(chan error, 1)
	c.asked = []chan error{answer}
	select {
	case l.copies <- c:
	case <-l.done:
		return errClosed
	case <-ctx.Done():
		return ended(ctx)
	}
	select {
	case err := <-answer:
		return err
	case <-l.done:
		return errClosed
	case <-ctx.Done():
		return ended(ctx)
	}
}

// considerCompaction compacts the file if much of it is free.
func (l *Log) considerCompaction(now time.Time) {
	if !l.mayCompact() || now.Before(l.compacts) {
		return
	}
	l.deleted = false
	if free, size := l.file.free(); free > l.options.MaxFree && free > size/2 {
		l.start(l.compaction())
	}
}

// mayCompact reports whether the file may have to be compacted.
func (l *Log) mayCompact() bool {
	return l.options.MaxFree > 0 && l.deleted && len(l.litter) == 0 && l.copying == nil && l.broken == nil
}

// start has a goroutine copy the file. One copy is made at a time: who asks for
// one that is being made waits for it, and another one has to be asked for again.
func (l *Log) start(c *copying) {
	if at := l.copying; at != nil {
		if at.path == c.path {
			at.asked = append(at.asked, c.asked...)
			return
		}
		for _, asked := range c.asked {
			asked <- fmt.Errorf("%w: %s is being copied already, to %s: try again later", eventlog.ErrUnavailable, l.path, at.path)
		}
		return
	}
	l.copying, c.stop = c, make(chan struct{})
	l.compacts = time.Now().Add(compactionGap)
	l.others.Go(func() {
		c.err = c.copy(l)
		select {
		case l.copied <- c:
		case <-c.stop:
			c.discard()
		}
	})
}

// record notes what was committed.
func (c *copying) record(changes []change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range changes {
		c.size += changes[i].size()
	}
	if c.over = c.over || c.size > recordBytes; c.over {
		c.recorded = nil
		return
	}
	c.recorded = append(c.recorded, changes...)
}

// rest returns what was recorded since it was last asked.
func (c *copying) rest() (changes []change, size int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil, 0, errRecord
	}
	changes, size = c.recorded, c.size
	c.recorded, c.size = nil, 0
	return changes, size, nil
}

// catchUp writes what was recorded, and returns how much that was.
func (c *copying) catchUp() (size int64, err error) {
	changes, size, err := c.rest()
	if err != nil || len(changes) == 0 {
		return size, err
	}
	return size, c.to.update(changes)
}

// copy writes all but the little that was recorded last.
func (c *copying) copy(l *Log) (err error) {
	if c.to, err = openNew(c.path, l.options.MaxFileSize); err != nil {
		_ = os.Remove(c.path) // what was begun of it
		return err
	}
	if l.options.hooks.opened != nil {
		l.options.hooks.opened(c.to)
	}
	// It is of no use before it is whole: one sync at the end will do.
	c.to.db.NoSync = true
	if err := c.to.found(nil); err != nil {
		return err
	}
	for _, bucket := range buckets {
		if err := c.copyBucket(l, bucket); err != nil {
			return err
		}
	}
	for {
		if size, err := c.catchUp(); err != nil {
			return err
		} else if size < fewBytes {
			break
		}
	}
	l.options.hooks.at("copied")
	return c.to.sync() // now, so that the last sync, for which appends wait, is short
}

// copyBucket copies a bucket, a piece at a time.
func (c *copying) copyBucket(l *Log, bucket []byte) error {
	var next []byte
	for {
		select {
		case <-c.stop:
			return errClosed
		default:
		}
		if c.unwanted.Load() {
			return errUnwanted
		}
		var piece []change
		var err error
		if piece, next, err = readPiece(l.file, bucket, next); err != nil {
			return err
		}
		if err := c.to.update(piece); err != nil {
			return err
		}
		// Also now, so that what is recorded stays little.
		if _, err := c.catchUp(); err != nil || next == nil {
			return err
		}
	}
}

// readPiece reads some of a bucket from a key on. next is the first key that is
// left, or nil. What is damaged is not copied: it is an error.
func readPiece(f *file, bucket, from []byte) (piece []change, next []byte, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		cursor, size := tx.Bucket(bucket).Cursor(), 0
		for k, v := cursor.Seek(from); k != nil; k, v = cursor.Next() {
			if size > copyBytes {
				next = bytes.Clone(k)
				break
			}
			if _, err := unseal(k, v); err != nil && !bytes.Equal(k, formatKey) {
				return corrupt(f.path, "%s %x: %v", bucket, k, err)
			}
			size += len(k) + len(v)
			piece = append(piece, change{bucket, bytes.Clone(k), bytes.Clone(v)})
		}
		return nil
	})
	return piece, next, err
}

// finish makes a copy what it is for.
func (l *Log) finish(c *copying) {
	l.copying = nil
	err := c.err
	if err == nil {
		_, err = c.catchUp() // synced
	}
	if err == nil {
		err = c.finish(l, c)
	}
	if err != nil {
		c.discard()
		err = &FileError{kind: eventlog.ErrUnavailable, path: l.path, what: c.failed, cause: err}
		l.options.Logger.Warn("event log was not copied", "file", l.path, "copy", c.path, "error", err)
	}
	for _, asked := range c.asked {
		asked <- err
	}
}

// keep ends a backup.
func (l *Log) keep(c *copying) error {
	if c.unwanted.Load() {
		return errUnwanted
	}
	if err := errors.Join(c.to.close(), syncFolder(c.path)); err != nil {
		return err
	}
	c.to = nil
	return nil
}

// swap puts a copy in the place of the file.
func (l *Log) swap(c *copying) error {
	l.options.hooks.at("before rename")
	if err := os.Rename(c.path, l.path); err != nil {
		return err
	}
	l.options.hooks.at("renamed")
	err := syncFolder(l.path)
	if err == nil {
		l.options.hooks.at("folder synced")
	} else {
		// What is appended from now on would be in a file that may not be there
		// after a power failure.
		l.breakOff(fmt.Errorf("%w: %s: %w", ErrFailed, l.path, err))
	}
	old := l.file.replace(c.to)
	c.to = nil
	// Those who read it have ended. It is closed in the background: that frees
	// what it had on the disk, which may take long.
	l.others.Go(func() {
		if err := old.Close(); err != nil {
			l.options.Logger.Warn("event log's file of before was not closed", "file", l.path, "error", err)
		}
	})
	return nil
}

// discard removes the copy.
func (c *copying) discard() {
	if c.to == nil {
		return
	}
	_ = c.to.close() // it is removed
	_ = os.Remove(c.path)
	c.to = nil
}
