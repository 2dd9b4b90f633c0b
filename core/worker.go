package core

import "sync/atomic"

// A worker runs one piece of work whenever it is asked to, never twice at
// once, on a goroutine that exists only meanwhile. Being asked while it works
// makes it work once more.
type worker struct {
	// Static after start.
	work   func()
	finish func()
	done   chan struct{} // closes after finish

	state atomic.Int32 // one of the constants below
	over  atomic.Bool
}

const (
	idle int32 = iota
	working
	askedAgain
)

// start makes w ready, without asking it to work. finish is called once, after
// work has returned for the last time.
func (w *worker) start(work, finish func()) {
	w.work = work
	w.finish = finish
	w.done = make(chan struct{})
}

// ask never blocks.
func (w *worker) ask() {
	for {
		switch w.state.Load() {
		case idle:
			if w.state.CompareAndSwap(idle, working) {
				go w.run()
				return
			}
		case working:
			if w.state.CompareAndSwap(working, askedAgain) {
				return
			}
		default:
			return
		}
	}
}

// end makes a running work the last one. It never blocks; done tells when all
// is over.
func (w *worker) end() {
	if !w.over.Swap(true) {
		w.ask()
	}
}

func (w *worker) run() {
	for {
		if w.over.Load() {
			w.finish()
			close(w.done)
			return // and stay in the state working, so that nobody runs again
		}
		w.work()
		if w.over.Load() {
			continue
		}
		if w.state.CompareAndSwap(working, idle) {
			return
		}
		w.state.Store(working)
	}
}
