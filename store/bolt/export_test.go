package bolt

import (
	"testing"

	bbolt "go.etcd.io/bbolt"
)

// EventsInFile counts the events that are in the file, whether they can be read
// or not.
func EventsInFile(t *testing.T, l *Log) (n int) {
	t.Helper()
	err := l.file.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(eventsBucket).ForEach(func(_, _ []byte) error { n++; return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
