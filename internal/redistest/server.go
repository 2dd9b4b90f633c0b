package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Bounds of what a server may take, in real time.
const (
	startTimeout = 10 * time.Second
	stopTimeout  = 5 * time.Second
)

// ErrMissing is wrapped by the error of a [Run] on a machine without Redis.
var ErrMissing = errors.New("missing: redis-server, install with: apt-get install redis-server")

// Options say how a server runs. The zero value is a primary that keeps nothing
// on disk.
type Options struct {
	// AppendOnly keeps what is written in a file, from which a [Server.Restart]
	// reads it.
	AppendOnly bool
	// AppendFsync is when that file is synced: always, everysec or no. Default:
	// everysec.
	AppendFsync string
	// ReplicaOf is the address of the primary, or of a [Link] to it.
	ReplicaOf string
	// MaxMemory is in the words of redis.conf: 64mb. Default: no bound.
	MaxMemory string
	// MinReplicasToWrite is how many replicas must have been heard of within
	// MinReplicasMaxLag seconds (default: 10) for a write to be taken.
	MinReplicasToWrite, MinReplicasMaxLag int
	// Password is asked of clients and replicas, and given to the primary.
	Password string
	// Config are further lines of redis.conf. They come last, so they win.
	Config []string
	// Sentinel are lines of sentinel.conf. If there are any, it is a sentinel, and
	// nothing else of these options counts.
	Sentinel []string
}

func (o *Options) lines(dir string, port int) []string {
	lines := []string{"bind 127.0.0.1", fmt.Sprint("port ", port), fmt.Sprintf("dir %q", dir), `logfile "redis.log"`}
	if len(o.Sentinel) > 0 {
		return append(lines, o.Sentinel...)
	}
	lines = append(lines,
		`save ""`, "repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "enable-debug-command yes",
	)
	add := func(given bool, format string, args ...any) {
		if given {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(o.AppendOnly, "appendonly yes")
	add(o.AppendFsync != "", "appendfsync %s", o.AppendFsync)
	host, at, _ := net.SplitHostPort(o.ReplicaOf)
	add(o.ReplicaOf != "", "replicaof %s %s", host, at)
	add(o.MaxMemory != "", "maxmemory %s", o.MaxMemory)
	add(o.MinReplicasToWrite > 0, "min-replicas-to-write %d", o.MinReplicasToWrite)
	add(o.MinReplicasMaxLag > 0, "min-replicas-max-lag %d", o.MinReplicasMaxLag)
	add(o.Password != "", "requirepass %[1]s\nmasterauth %[1]s", o.Password)
	return append(lines, o.Config...)
}

// A Server is a redis-server. Its methods may be called concurrently; those
// that start and stop it wait for each other.
type Server struct {
	// Static after Run.
	options Options
	dir     string
	port    int

	mu sync.Mutex

	// Guarded by mu.
	process *os.Process
	exited  chan struct{} // closed when process has; nil: it was never started
}

// Start runs a server until the test ends. Without Redis on the machine the test
// fails where CI is true, and is skipped elsewhere.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Run(o)
	switch {
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && testing.Verbose() {
			t.Logf("the log of the server at %s:\n%s", s.Addr(), s.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Run starts a server on a free port of 127.0.0.1 and returns when it answers.
// Close ends it.
func Run(o Options) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrMissing
	}
	var err error
	for range 5 { // somebody else may take the port before the server does
		var s *Server
		if s, err = runOnce(o); err == nil {
			return s, nil
		}
	}
	return nil, err
}

func runOnce(o Options) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, dir: dir, port: port}
	conf := strings.Join(o.lines(dir, port), "\n") + "\n"
	if err = os.WriteFile(s.path("redis.conf"), []byte(conf), 0o600); err == nil {
		s.mu.Lock()
		err = s.start()
		s.mu.Unlock()
	}
	if err != nil {
		_ = s.Close() // err says more
		return nil, err
	}
	return s, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// Addr is where the server listens, also after a Restart.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Log is what the server has logged so far.
func (s *Server) Log() string {
	text, _ := os.ReadFile(s.path("redis.log")) // none: it said nothing
	return string(text)
}

// Options are for a client of the server, in real time. Whoever wants others
// changes them: they are a fresh copy.
func (s *Server) Options() *goredis.Options {
	return &goredis.Options{
		Addr:     s.Addr(),
		Password: s.options.Password,
		Protocol: 2,
		// Servers of hosted Redis announce that they move. These don't.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		DisableIdentity:          true,
		ContextTimeoutEnabled:    true,
	}
}

// Client returns a client of the server that is closed when the test ends.
func (s *Server) Client(t testing.TB) *goredis.Client {
	client := goredis.NewClient(s.Options())
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// start runs the process and waits until it answers. Callers hold mu.
func (s *Server) start() error {
	cmd := exec.Command("redis-server", s.path("redis.conf"))
	if len(s.options.Sentinel) > 0 {
		cmd.Args = append(cmd.Args, "--sentinel")
	}
	cmd.SysProcAttr = dieWithUs()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.process, s.exited = cmd.Process, exited
	go func() { // ends with the process
		_ = cmd.Wait()
		close(exited)
	}()
	if err := s.answers(); err != nil {
		log := s.Log()
		return fmt.Errorf("redis-server on port %d: %w\n%s", s.port, err, log[max(0, len(log)-2000):])
	}
	return nil
}

// answers waits until the process answers that was started, and no other one
// that has got the port.
func (s *Server) answers() error {
	o := s.Options()
	o.MaxRetries, o.DialerRetries, o.PoolSize = -1, 1, 1
	client := goredis.NewClient(o)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		info, err := "", s.dial()
		if err == nil { // else go-redis would try again after a second only
			info, err = client.Info(ctx, "server", "persistence").Result()
		}
		if err == nil && !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", s.process.Pid)) {
			return errors.New("another server has the port")
		}
		if err == nil && !strings.Contains(info, "loading:1\r\n") { // a sentinel loads nothing
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it has ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", errors.Join(err, ctx.Err()))
		case <-again.C:
		}
	}
}

func (s *Server) dial() error {
	c, err := net.DialTimeout("tcp", s.Addr(), startTimeout)
	if err != nil {
		return err
	}
	return c.Close()
}

// Stop ends the server in good order. One that is down already stays so.
func (s *Server) Stop() error { return s.end(terminate) }

// Kill ends the server as a crash does: without another instruction.
func (s *Server) Kill() error { return s.end((*os.Process).Kill) }

func (s *Server) end(how func(*os.Process) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked(how)
}

func (s *Server) endLocked(how func(*os.Process) error) error {
	if s.exited == nil {
		return nil
	}
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	if err := how(s.process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-patience.C:
		_ = s.process.Kill()
		<-s.exited
		return fmt.Errorf("redis-server on port %d had to be killed", s.port)
	}
}

// Restart ends the server in good order, if it is up, and starts it again on
// its port. What it kept on disk it reads again if keepData is true: without
// AppendOnly that is nothing.
func (s *Server) Restart(keepData bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.endLocked(terminate); err != nil {
		return err
	}
	if !keepData {
		for _, name := range []string{"appendonlydir", "dump.rdb"} {
			if err := os.RemoveAll(s.path(name)); err != nil {
				return err
			}
		}
	}
	return s.start()
}

// Pause stops the process where it is: it keeps its connections, its port is
// open, and it says nothing. So does a machine that swaps, or a network that
// swallows.
func (s *Server) Pause() error { return s.signal(pause) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signal(resume) }

func (s *Server) signal(how func(*os.Process) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exited == nil {
		return os.ErrProcessDone
	}
	return how(s.process)
}

// Close ends the server and deletes what it kept. It may be called again.
func (s *Server) Close() error {
	return errors.Join(s.Stop(), os.RemoveAll(s.dir))
}
