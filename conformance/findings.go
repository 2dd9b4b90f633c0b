package conformance

import (
	"fmt"
	"sync"
)

// maxFindings is how many failures of a clause are told.
const maxFindings = 10

// findings are how a clause failed. A check keeps them to itself, so that the
// suite can be run against parts that must fail.
type findings struct {
	findingsMu sync.Mutex
	failures   []string // guarded by findingsMu
}

func (f *findings) errorf(format string, args ...any) {
	f.findingsMu.Lock()
	defer f.findingsMu.Unlock()
	if len(f.failures) < maxFindings {
		f.failures = append(f.failures, fmt.Sprintf(format, args...))
	}
}

// fatalf ends the clause. It must be called by the goroutine that runs it.
func (f *findings) fatalf(format string, args ...any) {
	f.errorf(format, args...)
	panic(endOfCheck)
}

// endOfCheck is what fatalf panics with.
var endOfCheck = new(int)
