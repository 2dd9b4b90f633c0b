package main

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// A poller tells which files can be read. It is used in place of the runtime's
// so that a thousand clients cost no goroutines, and as little as can be of the
// processors that they share with the server.
type poller struct {
	fd     int
	events [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd}, err
}

// add watches a file; token comes back from wait.
func (p *poller) add(fd, token int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(token)})
}

// wait appends the tokens of the files that can be read to ready.
func (p *poller) wait(patience time.Duration, ready []int) ([]int, error) {
	n, err := unix.EpollWait(p.fd, p.events[:], int(patience.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return ready, err
	}
	for i := range max(n, 0) {
		ready = append(ready, int(p.events[i].Fd))
	}
	return ready, nil
}
