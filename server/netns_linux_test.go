package server_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A far is a client's network and a server's, with a router between them that
// can stop to forward, in either direction and without a word: a black hole.
// Each is a network namespace of a thread of this process, so that nothing of
// them outlives it, and nothing of the machine's own network is touched.
type far struct {
	*testing.T
	server, router, client *namespace
}

// newFar skips the test if the kernel lets nobody have a namespace; then the
// bubbles have to do, which know pings and no kernel. In CI nothing may be
// missing.
func newFar(t *testing.T) *far {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		const missing = "missing: ip, install with: apt-get install iproute2"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	f := &far{T: t, server: enter(t), router: enter(t), client: enter(t)}
	f.link(f.server, "10.77.1.1", "10.77.1.2")
	f.link(f.client, "10.77.2.1", "10.77.2.2")
	f.forward(true)
	return f
}

// link joins a namespace to the router.
func (f *far) link(end *namespace, address, gateway string) {
	f.Helper()
	name := "r" + strings.Split(address, ".")[2]
	f.router.ip(f.T, "link add %s type veth peer name out netns %d", name, end.thread)
	f.router.ip(f.T, "addr add %s/24 dev %s", gateway, name)
	f.router.ip(f.T, "link set %s up", name)
	end.ip(f.T, "addr add %s/24 dev out", address)
	end.ip(f.T, "link set out up")
	end.ip(f.T, "route add default via %s", gateway)
}

// forward has the router do its work, or not.
func (f *far) forward(on bool) {
	f.Helper()
	value := "0"
	if on {
		value = "1"
	}
	f.router.do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0); err != nil {
			f.Error(err)
		}
	})
}

// listen returns a listener in the server's network.
func (f *far) listen() (l net.Listener) {
	f.Helper()
	f.server.do(func() {
		var err error
		if l, err = net.Listen("tcp4", "10.77.1.1:0"); err != nil {
			f.Error(err)
		}
	})
	if f.Failed() {
		f.FailNow()
	}
	return l
}

// dial connects from the client's network.
func (f *far) dial(addr string) (c net.Conn, err error) {
	f.client.do(func() { c, err = net.Dial("tcp4", addr) })
	return c, err
}

// A namespace is a network of its own, that of one thread: a socket belongs to
// the network of the thread that made it.
type namespace struct {
	thread int
	work   chan func()
}

func enter(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{work: make(chan func())}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and the network with it
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.thread = unix.Gettid()
		entered <- err
		for do := range n.work {
			do()
		}
	}()
	t.Cleanup(func() { close(n.work) })
	switch err := <-entered; {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		if os.Getenv("CI") == "true" {
			t.Fatalf("missing: a network namespace (%v); run as root, on a kernel that has them", err)
		}
		t.Skipf("this kernel gives us no network namespace (%v), so packets can't be lost here; TestDeadWebSocketIsNoticed loses bytes in a bubble", err)
	case err != nil:
		t.Fatal(err)
	}
	return n
}

// do runs a function on the namespace's thread.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// ip runs the program of that name. It is started from the thread, so it
// inherits the network.
func (n *namespace) ip(t *testing.T, format string, args ...any) {
	t.Helper()
	n.do(func() {
		command := fmt.Sprintf(format, args...)
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", command, err, out)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}
