package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	bberrors "go.etcd.io/bbolt/errors"

	"github.com/throughline/throughline/eventlog"
)

// Errors a program can act on. Each wraps [eventlog.ErrUnavailable] and is
// wrapped in a [FileError], with the name of the file and what to do about it.
var (
	// ErrLocked: another process, or another Log of this one, has the file open.
	ErrLocked = fmt.Errorf("%w: the file is open elsewhere", eventlog.ErrUnavailable)
	// ErrReadOnly: the file can't be opened for writing.
	ErrReadOnly = fmt.Errorf("%w: the file can't be written", eventlog.ErrUnavailable)
	// ErrFull: the disk is full, or the file has reached Options.MaxFileSize.
	// What was read before can be read on, and appends are taken again as soon
	// as there is room.
	ErrFull = eventlog.ErrFull
	// ErrCorrupt: the file is damaged or cut short, or is not one of a Log. What
	// is whole in it can be read on.
	ErrCorrupt = fmt.Errorf("%w: the file is damaged", eventlog.ErrUnavailable)
	// ErrFailed: the disk refused a write in a way that leaves unknown what is on
	// it. Nothing is appended any more until the file is opened again.
	ErrFailed = fmt.Errorf("%w: the disk failed", eventlog.ErrUnavailable)
)

var (
	errClosed     = fmt.Errorf("%w: the log is closed", eventlog.ErrUnavailable)
	errOverloaded = fmt.Errorf("%w: too much waits to be written (Options.MaxQueued)", eventlog.ErrUnavailable)
)

// ended returns the error of a context that has ended before anything was done.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.Cause(ctx))
}

// A FileError is an error about the file of a log. It wraps one of the errors
// above, or else [eventlog.ErrUnavailable], and what the system said.
type FileError struct {
	kind  error
	path  string
	what  string // may be empty if there is a cause
	do    string // what a program, or who runs it, can do about it
	cause error
}

// Error is for the log of a program.
func (e *FileError) Error() string {
	text := e.kind.Error() + ": " + e.Plain()
	if e.do != "" {
		text += "; " + e.do
	}
	return text
}

// Plain is for people at a command line: the file and what is wrong with it,
// without what a program could do.
func (e *FileError) Plain() string {
	text := e.path
	if e.what != "" {
		text += ": " + e.what
	}
	if e.cause == nil {
		return text
	}
	cause := e.cause.Error()
	var about *FileError
	var system *fs.PathError
	switch {
	case errors.As(e.cause, &about):
		cause = about.Plain()
	case errors.As(e.cause, &system) && system.Path == e.path:
		cause = system.Err.Error()
	}
	return text + ": " + cause
}

// Unwrap returns what it is for [errors.Is].
func (e *FileError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// keepIt is what to do about a file that is damaged.
const keepIt = "stop the program, keep a copy of the file, and ask `eventsdb check` what is left"

// corrupt is the error for what should be in the file and isn't.
func corrupt(path, format string, args ...any) error {
	return &FileError{
		kind: ErrCorrupt, path: path, what: fmt.Sprintf(format, args...),
		do: keepIt,
	}
}

// empty is the error for a file without a byte.
func empty(path string) error {
	return &FileError{kind: ErrCorrupt, path: path, what: "it is empty: it was cut short, or is not ours; remove it to begin anew"}
}

// openError says why a file could not be opened.
func openError(path string, err error) error {
	e := &FileError{kind: eventlog.ErrUnavailable, path: path, cause: err}
	switch {
	case errors.Is(err, eventlog.ErrUnavailable):
		return err
	case errors.Is(err, bberrors.ErrTimeout):
		e.kind, e.what, e.cause = ErrLocked, "another process has it open, and one at a time may", nil
		e.do = "end the other, or wait longer (Options.LockTimeout)"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		e.kind, e.do = ErrReadOnly, "a log needs to write to the file and its directory"
	case full(err):
		e.kind, e.what = ErrFull, "there is no room for it"
	case errors.Is(err, bberrors.ErrInvalid), errors.Is(err, bberrors.ErrChecksum), errors.Is(err, bberrors.ErrVersionMismatch):
		return corrupt(path, "it is no log, or its first pages are damaged (%v)", err)
	}
	return e
}

// writeError says why a commit failed.
func writeError(path string, err error) error {
	e := &FileError{kind: ErrFull, path: path, cause: err}
	switch {
	case errors.Is(err, eventlog.ErrUnavailable):
		return err
	case errors.Is(err, bberrors.ErrMaxSizeReached):
		e.what, e.cause = "it has reached Options.MaxFileSize", nil
		e.do = "let it be larger, or keep less (Options.Retain)"
	case full(err):
		e.what, e.do = "there is no room for more", "make room on the disk, or keep less (Options.Retain)"
	default:
		e.kind, e.what = ErrFailed, "a write failed"
		e.do = "close the log and open it again, which reads what the disk really has"
	}
	return e
}

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, bberrors.ErrMaxSizeReached) || quota(err)
}
