package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	bbolt "go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

// format is the version of what is in the buckets.
const format = "throughline 1"

// The buckets.
var (
	metaBucket      = []byte("meta")
	channelsBucket  = []byte("channels")  // channel's number -> record
	eventsBucket    = []byte("events")    // channel's number, offset -> event
	producersBucket = []byte("producers") // channel's number, producer's id -> producer
	buckets         = [][]byte{metaBucket, channelsBucket, eventsBucket, producersBucket}
)

// The keys of meta.
var (
	formatKey     = []byte("format")
	generationKey = []byte("generation")
	secretKey     = []byte("secret") // of session.Store
)

// A change is one put or, without a value, one delete.
type change struct{ bucket, key, value []byte }

func (c *change) size() int64 { return int64(len(c.key) + len(c.value)) }

// A file is a bbolt file that turns what bbolt panics of into errors. A damaged
// page makes bbolt panic, and one that isn't there any more, since something cut
// the file short, is a fault of memory.
type file struct {
	path string

	mu sync.RWMutex // held for writing only while another file takes the place of db
	db *bbolt.DB

	wedged bool // bbolt panicked with its locks held: it can't be closed. Of the writer

	synced func() // a test's: all that was written is on the disk
}

// openFile opens a file, and creates it if it isn't there.
func openFile(path string, timeout time.Duration, maxSize int64) (*file, error) {
	until := time.Now().Add(timeout)
	if err := measure(path, timeout); err != nil {
		return nil, openError(path, err)
	}
	for {
		var opened *os.File
		db, err := openSafely(path, &bbolt.Options{
			Timeout:      max(time.Until(until), time.Millisecond),
			FreelistType: bbolt.FreelistMapType,
			MaxSize:      int(maxSize),
			OpenFile:     noting(&opened),
		})
		if err != nil {
			return nil, openError(path, err)
		}
		// While it waited for the lock, a compaction elsewhere may have put
		// another file in the place of this one.
		if same, err := isAt(opened, path); err != nil || !same {
			if closing := db.Close(); err != nil || closing != nil {
				return nil, openError(path, errors.Join(err, closing))
			}
			continue
		}
		if err := syncFolder(path); err != nil { // it may be new
			return nil, openError(path, errors.Join(err, db.Close()))
		}
		return &file{path: path, db: db}, nil
	}
}

// measure fails if a file that is there is shorter than its first pages say.
// They are read without the others.
func measure(path string, timeout time.Duration) (err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a folder, not a file", path)
	case info.Size() == 0:
		return nil
	}
	var opened *os.File
	db, err := openSafely(path, &bbolt.Options{ReadOnly: true, Timeout: timeout, OpenFile: noting(&opened)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		// Of the file that was opened: another may have its name by now.
		if info, err = opened.Stat(); err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return corrupt(path, "it was cut short: it has %d bytes of at least %d", info.Size(), tx.Size())
		}
		return nil
	})
}

// noting opens files for bbolt, and notes the last.
func noting(opened **os.File) func(string, int, os.FileMode) (*os.File, error) {
	return func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		*opened = f
		return f, err
	}
}

func openSafely(path string, o *bbolt.Options) (db *bbolt.DB, err error) {
	defer recovered(path, &err)()
	return bbolt.Open(path, 0o600, o)
}

// recovered turns a panic, or a fault of memory, into an error. It is used as
// `defer recovered(path, &err)()`.
func recovered(path string, err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = corrupt(path, "a page is damaged or missing (%v)", p)
		}
	}
}

func isAt(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	want, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, want), err
}

// view runs fn, which may read.
func (f *file) view(fn func(*bbolt.Tx) error) (err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	defer recovered(f.path, &err)()
	if err = f.db.View(fn); errors.Is(err, bberrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	return err
}

// update makes changes, all or none, and syncs them, but for a copy that is not
// whole yet.
func (f *file) update(changes []change) (err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	defer recovered(f.path, &err)()
	if f.wedged {
		return corrupt(f.path, "a write met a damaged page")
	}
	f.wedged = true
	err = f.db.Update(func(tx *bbolt.Tx) error { return apply(tx, changes) })
	f.wedged = false
	if err == nil && !f.db.NoSync {
		f.isSynced()
	}
	return err
}

// sync syncs what was written without.
func (f *file) sync() error {
	if err := f.db.Sync(); err != nil {
		return err
	}
	f.db.NoSync = false
	f.isSynced()
	return nil
}

func (f *file) isSynced() {
	if f.synced != nil {
		f.synced()
	}
}

// apply makes changes in a transaction.
func apply(tx *bbolt.Tx, changes []change) error {
	// Events of a channel come in order: pages are filled rather than halved.
	tx.Bucket(eventsBucket).FillPercent = 0.9
	for i := range changes {
		c := &changes[i]
		b := tx.Bucket(c.bucket)
		var err error
		if c.value == nil {
			err = b.Delete(c.key)
		} else {
			err = b.Put(c.key, c.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// free returns how many bytes of the file are free, and how many it has.
func (f *file) free() (free, size int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	stats := f.db.Stats()
	err := f.db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	if err != nil {
		return 0, 0
	}
	return int64(stats.FreePageN+stats.PendingPageN) * int64(f.db.Info().PageSize), size
}

// close closes the file, when those who read it have ended.
func (f *file) close() error {
	if f.wedged {
		return corrupt(f.path, "it stays open, and locked, until the program ends")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.db.Close()
}

// syncFolder makes names in the folder of a file last.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(syncDirectory(folder), folder.Close())
}

// found makes the buckets of a new file, and what is in them at first.
func (f *file) found(changes []change) (err error) {
	defer recovered(f.path, &err)()
	err = f.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return apply(tx, changes)
	})
	if err != nil {
		return writeError(f.path, err)
	}
	if !f.db.NoSync {
		f.isSynced()
	}
	return nil
}

// replace has another file take the place of this one, which it returns, when
// those who read it have ended.
func (f *file) replace(with *file) (old *bbolt.DB) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, f.db, f.synced = f.db, with.db, with.synced
	return old
}
