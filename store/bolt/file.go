package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	err := measure(path, timeout)
	if errors.Is(err, os.ErrNotExist) {
		err = create(path)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	return openUnmeasured(path, until, maxSize)
}

// create makes a file, with the first pages of bbolt, unless somebody else does
// it first. It has its name only when they are on the disk: a file that is not
// whole was not left by a crash, or a full disk, of a first start.
func create(path string) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*")
	if err != nil {
		return err
	}
	name := temporary.Name()
	defer func() {
		if gone := os.Remove(name); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	if err := temporary.Close(); err != nil {
		return err
	}
	db, err := openSafely(name, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	err = os.Link(name, path)
	if err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	// A file system without links.
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return os.Rename(name, path)
}

// openNew opens a file that is not there yet, or is empty. It may be left with
// less than its first pages.
func openNew(path string, maxSize int64) (*file, error) {
	return openUnmeasured(path, time.Now().Add(time.Second), maxSize)
}

// openUnmeasured opens a file, and makes one of one that is not there, or empty.
func openUnmeasured(path string, until time.Time, maxSize int64) (*file, error) {
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

// measure fails if a file is shorter than its first pages say.
// They are read without the others.
func measure(path string, timeout time.Duration) (err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a folder, not a file")
	case info.Size() == 0:
		return empty(path)
	}
	var opened *os.File
	db, err := openSafely(path, &bbolt.Options{ReadOnly: true, Timeout: timeout, OpenFile: noting(&opened)})
	if err != nil {
		return tooSmall(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		// Of the file that was opened: another may have its name by now.
		if info, err = opened.Stat(); err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return cut(path, info.Size(), tx.Size())
		}
		return nil
	})
}

// errPage is the cause of an error about a page.
var errPage = errors.New("a page is damaged or missing")

// errCut is the cause of an error about a file that was cut short.
var errCut = errors.New("it was cut short")

func cut(path string, has, of int64) error {
	return &FileError{
		kind: ErrCorrupt, path: path, do: keepIt,
		cause: fmt.Errorf("%w: it has %d bytes of at least %d", errCut, has, of),
	}
}

// tooSmall turns bbolt's error about a file that has a good first page and not
// the second one into that about a file that was cut short. It returns others as
// they are.
func tooSmall(path string, err error) error {
	const pages = 4 // that a file begins with
	start := make([]byte, 28)
	f, failed := os.Open(path)
	if failed != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, failed := f.Stat()
	if failed != nil {
		return err
	}
	if _, failed = io.ReadFull(f, start); failed != nil {
		return err
	}
	// The size of a page, as the first page has it. bbolt has found that good, or
	// has an error of its own.
	size := int64(binary.NativeEndian.Uint32(start[24:]))
	if info.Size() >= 2*size || errors.Is(err, bberrors.ErrInvalid) || errors.Is(err, bberrors.ErrChecksum) || errors.Is(err, bberrors.ErrVersionMismatch) || errors.Is(err, bberrors.ErrTimeout) {
		return err
	}
	return cut(path, info.Size(), pages*size)
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
			*err = &FileError{kind: ErrCorrupt, path: path, do: keepIt, cause: fmt.Errorf("%w (%v)", errPage, p)}
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
