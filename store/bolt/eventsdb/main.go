// Command eventsdb looks after files of package bolt, while no program has them
// open:
//
//	eventsdb check FILE            read all of it, and say what is wrong
//	eventsdb export FILE > LINES   all events, as lines of JSON
//	eventsdb import FILE < LINES   a new file, in which positions are the same
//	eventsdb compact FILE          give free room back to the disk
//
// It ends with 1 if something failed or is wrong, and with 2 if it was not
// called so. docs/durable-log.md describes the lines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

const usage = "usage: eventsdb check|export|import|compact FILE"

// run is main with its streams. It returns the status to end with.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(errs, usage)
		return 2
	}
	var err error
	switch command, path := args[0], args[1]; command {
	case "check":
		err = check(path, out)
	case "export":
		err = bolt.Export(path, out)
	case "import":
		err = bolt.Import(path, in)
	case "compact":
		err = compact(path, out)
	default:
		fmt.Fprintln(errs, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(errs, "eventsdb:", err)
		return 1
	}
	return 0
}

func check(path string, out io.Writer) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	problems := 0
	err := bolt.Check(path, func(problem string) {
		problems++
		fmt.Fprintln(out, problem)
	})
	if err == nil && problems > 0 {
		err = fmt.Errorf("%s: %d problems", path, problems)
	}
	if err == nil {
		fmt.Fprintln(out, path, "is whole")
	}
	return err
}

// compact opens the log so that it changes nothing else.
func compact(path string, out io.Writer) error {
	before, err := os.Stat(path)
	if err != nil {
		return err
	}
	l, err := bolt.Open(path, bolt.Options{
		Retain:            func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: -1, Bytes: -1, Age: -1} },
		Generation:        math.MaxInt64,
		RememberProducers: 100 * 365 * 24 * time.Hour,
		MaxFree:           -1,
	})
	if err != nil {
		return err
	}
	if err := errors.Join(l.Compact(context.Background()), l.Close()); err != nil {
		return err
	}
	after, err := os.Stat(path)
	if err == nil {
		fmt.Fprintf(out, "%s had %d bytes and has %d\n", path, before.Size(), after.Size())
	}
	return err
}
