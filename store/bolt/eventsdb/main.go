package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

//go:embed doc.go
var source string

// usage is the comment of the package.
func usage() string {
	comment, _, _ := strings.Cut(source, "package main")
	var text strings.Builder
	for line := range strings.Lines(comment) {
		text.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "//"), " "))
	}
	return text.String()
}

const short = "usage: eventsdb check|export|import|compact FILE; eventsdb -h says more"

// run is main with its streams. It returns the status to end with.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	command, path, salvage, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(out, usage())
		return 0
	}
	if err != nil {
		fmt.Fprintln(errs, "eventsdb:", err)
		fmt.Fprintln(errs, short)
		return 2
	}
	switch command {
	case "check":
		err = check(path, out)
	case "export":
		if salvage {
			err = bolt.Salvage(path, out, func(lost string) { fmt.Fprintf(errs, "eventsdb: %s: %s\n", path, lost) })
		} else {
			err = export(path, out)
		}
	case "import":
		err = bolt.Import(path, in)
	case "compact":
		err = compact(path, out)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(errs, "eventsdb:", words(err))
	return 1
}

// parse reads a command line.
func parse(args []string) (command, path string, salvage bool, err error) {
	if len(args) == 0 {
		return "", "", false, errors.New("there is no command")
	}
	command = args[0]
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	switch command {
	case "check", "import", "compact":
	case "export":
		flags.BoolVar(&salvage, "salvage", false, "")
	case "-h", "-help", "--help", "help":
		return "", "", false, flag.ErrHelp
	default:
		return "", "", false, fmt.Errorf("there is no command %q", command)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return "", "", false, err
	}
	if flags.NArg() != 1 {
		return "", "", false, fmt.Errorf("%s is for one file, and its flags come before that", command)
	}
	return command, flags.Arg(0), salvage, nil
}

// words are what an error says to people.
func words(err error) string {
	if about, ok := errors.AsType[*bolt.FileError](err); ok {
		return about.Plain()
	}
	return strings.TrimPrefix(err.Error(), eventlog.ErrUnavailable.Error()+": ")
}

func check(path string, out io.Writer) error {
	err := whole(path, out)
	if err == nil {
		fmt.Fprintln(out, path, "is whole")
	}
	return err
}

// export says what to do about damage, if there is something.
func export(path string, out io.Writer) error {
	err := bolt.Export(path, out)
	if errors.Is(err, bolt.ErrCorrupt) && bolt.Salvage(path, io.Discard, func(string) {}) == nil {
		return fmt.Errorf("%s; `eventsdb check` says what is left, and `eventsdb export -salvage` writes it", words(err))
	}
	return err
}

// whole fails if something is wrong with a file, and writes what.
func whole(path string, out io.Writer) error {
	problems := 0
	err := bolt.Check(path, func(problem string) {
		problems++
		fmt.Fprintln(out, problem)
	})
	if err != nil || problems == 0 {
		return err
	}
	s := "s"
	if problems == 1 {
		s = ""
	}
	return fmt.Errorf("%s: %d problem%s; keep a copy of the file; `eventsdb export -salvage` writes what is whole", path, problems, s)
}

// compact opens the log so that it changes nothing else.
func compact(path string, out io.Writer) error {
	before, err := os.Stat(path)
	if err != nil {
		return err
	}
	// A copy has what can be read. So the file stays as it is if that isn't all.
	if err := whole(path, out); err != nil {
		return fmt.Errorf("not compacted: %w", err)
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
