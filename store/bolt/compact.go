package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
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

var errRecord = errors.New("more was appended in the meantime than is kept for it")

// A compaction writes what is in the file to another, without what is free, and
// puts that in its place. Nobody waits while everything is copied, piece by
// piece, by a goroutine. What the writer commits in the meantime is recorded,
// and written again in its order after the copy: so it doesn't matter which of
// it the copy has already.
type compaction struct {
	stop  chan struct{} // closed by Close
	asked []chan error  // who wants to know how it ended. Of the writer
	to    *file         // of the goroutine, and then of the writer
	err   error         // the same

	mu       sync.Mutex
	recorded []change
	size     int64
	over     bool // more was recorded than is allowed
}

// Compact gives free room in the file back to the disk, which happens by itself
// as Options.MaxFree says. It returns when that is done. Others can use the log
// meanwhile. It needs room for a second file.
func (l *Log) Compact(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case l.compact <- answer:
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
		l.startCompaction(nil)
	}
}

// mayCompact reports whether the file may have to be compacted.
func (l *Log) mayCompact() bool {
	return l.options.MaxFree > 0 && l.deleted && len(l.litter) == 0 && l.compacting == nil && l.broken == nil
}

// startCompaction has a goroutine copy the file.
func (l *Log) startCompaction(asked chan error) {
	if l.compacting == nil {
		l.compacting = &compaction{stop: make(chan struct{})}
		l.compacts = time.Now().Add(compactionGap)
		c := l.compacting
		l.others.Go(func() {
			c.err = c.copy(l)
			select {
			case l.copied <- c:
			case <-c.stop:
				c.discard(l.path)
			}
		})
	}
	if asked != nil {
		l.compacting.asked = append(l.compacting.asked, asked)
	}
}

// record notes what was committed.
func (c *compaction) record(changes []change) {
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
func (c *compaction) rest() (changes []change, size int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil, 0, errRecord
	}
	changes, size = c.recorded, c.size
	c.recorded, c.size = nil, 0
	return changes, size, nil
}

// copy writes all but the little that was recorded last.
func (c *compaction) copy(l *Log) (err error) {
	if c.to, err = openFile(compactionPath(l.path), time.Second, l.options.MaxFileSize); err != nil {
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
		changes, size, err := c.rest()
		if err == nil {
			err = c.to.update(changes)
		}
		if err != nil {
			return err
		}
		if size < fewBytes {
			break
		}
	}
	l.options.hooks.at("copied")
	return c.to.sync() // now, so that the last sync, for which appends wait, is short
}

// copyBucket copies a bucket, a piece at a time.
func (c *compaction) copyBucket(l *Log, bucket []byte) error {
	var next []byte
	for {
		select {
		case <-c.stop:
			return errClosed
		default:
		}
		var piece []change
		var err error
		if piece, next, err = readPiece(l.file, bucket, next); err != nil {
			return err
		}
		if err := c.to.update(piece); err != nil || next == nil {
			return err
		}
	}
}

// readPiece reads some of a bucket from a key on. next is the first key that is
// left, or nil.
func readPiece(f *file, bucket, from []byte) (piece []change, next []byte, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		cursor, size := tx.Bucket(bucket).Cursor(), 0
		for k, v := cursor.Seek(from); k != nil; k, v = cursor.Next() {
			if size > copyBytes {
				next = bytes.Clone(k)
				break
			}
			size += len(k) + len(v)
			piece = append(piece, change{bucket, bytes.Clone(k), bytes.Clone(v)})
		}
		return nil
	})
	return piece, next, err
}

// finishCompaction puts the copy in the place of the file.
func (l *Log) finishCompaction(c *compaction) {
	l.compacting = nil
	err := c.err
	if err == nil {
		err = l.swap(c)
	}
	if err != nil {
		c.discard(l.path)
		err = fmt.Errorf("%w: %s could not be compacted, and goes on as it is: %w", eventlog.ErrUnavailable, l.path, err)
		l.options.Logger.Warn("event log was not compacted", "file", l.path, "error", err)
	}
	for _, asked := range c.asked {
		asked <- err
	}
}

// swap writes the last changes to the copy and renames it.
func (l *Log) swap(c *compaction) error {
	changes, _, err := c.rest()
	if err != nil {
		return err
	}
	if err := c.to.update(changes); err != nil { // synced
		return err
	}
	l.options.hooks.at("before rename")
	if err := os.Rename(compactionPath(l.path), l.path); err != nil {
		return err
	}
	l.options.hooks.at("renamed")
	err = syncFolder(l.path)
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
func (c *compaction) discard(path string) {
	if c.to == nil {
		return
	}
	_ = c.to.close() // it is removed
	_ = os.Remove(compactionPath(path))
	c.to = nil
}
