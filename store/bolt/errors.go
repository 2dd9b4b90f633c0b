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
// wrapped with the name of the file and what to do about it.
var (
	// ErrLocked: another process, or another Log of this one, has the file open.
	ErrLocked = fmt.Errorf("%w: the file is open elsewhere", eventlog.ErrUnavailable)
	// ErrReadOnly: the file can't be opened for writing.
	ErrReadOnly = fmt.Errorf("%w: the file can't be written", eventlog.ErrUnavailable)
	// ErrFull: the disk is full, or the file has reached Options.MaxFileSize.
	// What was read before can be read on, and appends are taken again as soon
	// as there is room.
	ErrFull = fmt.Errorf("%w: there is no room for more", eventlog.ErrUnavailable)
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

// corrupt is the error for what should be in the file and isn't.
func corrupt(path, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s; stop the program, keep a copy of the file, and ask `eventsdb check` what is left", ErrCorrupt, path, fmt.Sprintf(format, args...))
}

// openError says why a file could not be opened.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, eventlog.ErrUnavailable):
		return err
	case errors.Is(err, bberrors.ErrTimeout):
		return fmt.Errorf("%w: %s: one process at a time may have it; end the other, or wait longer (Options.LockTimeout)", ErrLocked, path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %s: %w; a log needs to write to the file and its directory", ErrReadOnly, path, err)
	case full(err):
		return fmt.Errorf("%w: %s: %w", ErrFull, path, err)
	case errors.Is(err, bberrors.ErrInvalid), errors.Is(err, bberrors.ErrChecksum), errors.Is(err, bberrors.ErrVersionMismatch):
		return corrupt(path, "it is no log, or its first pages are damaged (%v)", err)
	}
	return fmt.Errorf("%w: %s: %w", eventlog.ErrUnavailable, path, err)
}

// writeError says why a commit failed.
func writeError(path string, err error) error {
	switch {
	case errors.Is(err, eventlog.ErrUnavailable):
		return err
	case errors.Is(err, bberrors.ErrMaxSizeReached):
		return fmt.Errorf("%w: %s has reached Options.MaxFileSize: let it be larger, or keep less (Options.Retain)", ErrFull, path)
	case full(err):
		return fmt.Errorf("%w: %s: %w: make room on the disk, or keep less (Options.Retain)", ErrFull, path, err)
	}
	return fmt.Errorf("%w: %s: %w: close the log and open it again, which reads what the disk really has", ErrFailed, path, err)
}

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, bberrors.ErrMaxSizeReached) || quota(err)
}
