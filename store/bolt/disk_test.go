package bolt

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	bbolt "go.etcd.io/bbolt"
)

// pageSize is how much a disk writes at once.
const pageSize = 4096

// A disk knows what would be left of a log's files if the power failed. It sees
// each write that bbolt makes, and each sync: bbolt syncs what it wrote before it
// writes one of the first two pages, and after that, unless it is told not to.
type disk struct {
	t      *testing.T
	random *rand.Rand
	path   string // of the log
	noSync bool   // a log that forgets to sync

	mu       sync.Mutex
	files    map[string]*image // by their names
	lasting  map[string]*image // by the names they have after a power failure
	moments  int               // how many there were
	crashAt  func(moment int, point string) bool
	crashed  string // the copy that the power failure left, once it failed
	onCrash  func() // called at that moment
	onPoint  func(point string)
	observed map[string]int // points
}

// An image is a file: what is on the disk for sure, and what was written since.
type image struct {
	synced  []byte
	written []pageWrite
}

type pageWrite struct {
	at   int64
	data []byte
}

func newDisk(t *testing.T, seed uint64) *disk {
	return &disk{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), path: filepath.Join(t.TempDir(), "events.db"),
		files: map[string]*image{}, lasting: map[string]*image{}, observed: map[string]int{},
	}
}

// hooks are what has a log tell the disk.
func (d *disk) hooks() hooks { return hooks{opened: d.opened, reached: d.reached} }

// opened looks at what is written to a file from now on.
func (d *disk) opened(f *file) {
	d.mu.Lock()
	defer d.mu.Unlock()
	content, err := os.ReadFile(f.path)
	if err != nil {
		d.t.Fatal(err)
	}
	img := &image{synced: content}
	d.files[f.path], d.lasting[f.path] = img, img
	db := f.db
	db.NoSync = d.noSync
	f.synced = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		img.sync()
	}
	writeAt := writesOf(db)
	write := *writeAt
	*writeAt = func(b []byte, at int64) (int, error) {
		d.mu.Lock()
		point := "write"
		if at < 2*pageSize {
			point = "between syncs"
			if !db.NoSync {
				img.sync()
			}
		}
		d.moment(point)
		for i := 0; i < len(b); i += pageSize {
			page := append([]byte(nil), b[i:min(i+pageSize, len(b))]...)
			img.written = append(img.written, pageWrite{at + int64(i), page})
		}
		d.mu.Unlock()
		return write(b, at)
	}
}

// writesOf returns what bbolt writes by: the hook of its own tests.
func writesOf(db *bbolt.DB) *func([]byte, int64) (int, error) {
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	return (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
}

// failWrites has writes fail until it is told otherwise.
func failWrites(db *bbolt.DB) (failing *bool) {
	failing = new(bool)
	*failing = true
	writeAt := writesOf(db)
	write := *writeAt
	*writeAt = func(b []byte, at int64) (int, error) {
		if *failing {
			return 0, syscall.EIO
		}
		return write(b, at)
	}
	return failing
}

func (img *image) sync() {
	for _, w := range img.written {
		img.synced = w.on(img.synced)
	}
	img.written = nil
}

func (w *pageWrite) on(content []byte) []byte {
	if missing := int(w.at) + len(w.data) - len(content); missing > 0 {
		content = append(content, make([]byte, missing)...)
	}
	copy(content[w.at:], w.data)
	return content
}

func (d *disk) reached(point string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch point {
	case "renamed":
		d.files[d.path] = d.files[compactionPath(d.path)]
		delete(d.files, compactionPath(d.path))
	case "folder synced":
		d.lasting = maps.Clone(d.files)
	}
	if d.onPoint != nil {
		d.onPoint(point)
	}
	d.moment(point)
}

// moment has the power fail, if it is to fail now.
func (d *disk) moment(point string) {
	d.moments++
	d.observed[point]++
	if d.crashed != "" || d.crashAt == nil || !d.crashAt(d.moments, point) {
		return
	}
	names := d.files
	if d.random.IntN(2) == 0 {
		names = d.lasting
	}
	folder := d.t.TempDir()
	for name, img := range names {
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), d.left(name, img), 0o600); err != nil {
			d.t.Error(err)
		}
	}
	d.crashed = filepath.Join(folder, filepath.Base(d.path))
	d.onCrash()
}

// left is what a power failure leaves of a file: what was synced, and some of
// the pages that were written since.
func (d *disk) left(name string, img *image) []byte {
	content := append([]byte(nil), img.synced...)
	some := []float64{0, 0.5, 0.9, 1}[d.random.IntN(4)]
	for _, w := range img.written {
		if d.random.Float64() < some {
			content = w.on(content)
		}
	}
	// bbolt syncs a file's new size before it writes there.
	if info, err := os.Stat(name); err == nil && int(info.Size()) > len(content) {
		content = append(content, make([]byte, int(info.Size())-len(content))...)
	}
	return content
}
