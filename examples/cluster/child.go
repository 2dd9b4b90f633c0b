package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// startWithin bounds how long a process may take until it serves.
const startWithin = 10 * time.Second

// A child is a process that the program has started, and ends.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
}

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = apart()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, ended: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// kill is kill -9. It returns when the process is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

// end ends it in good order, or kills it if that takes long.
func (c *child) end() {
	if c.cmd.Process.Signal(syscall.SIGTERM) != nil {
		_ = c.cmd.Process.Kill()
	}
	select {
	case <-c.ended:
	case <-time.After(endWithin + time.Second):
		c.kill()
	}
}

// startNode starts this program as a node, and returns where it listens.
func startNode(ctx context.Context, name string, o orders) (c *child, address string, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(program, "-node", name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // stays open as long as this process lives
	if err != nil {
		return nil, "", err
	}
	out, said, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout = said
	c, err = startChild(cmd)
	_ = said.Close()
	if err != nil {
		return nil, "", err
	}
	if err = json.NewEncoder(in).Encode(o); err == nil {
		address, err = await(ctx, out)
	}
	if err != nil {
		c.kill()
		return nil, "", fmt.Errorf("%s does not start: %w", name, err)
	}
	return c, address, nil
}

// await reads where a node listens.
func await(ctx context.Context, out *os.File) (address string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = out.SetReadDeadline(time.Now()) })
	defer stop()
	_ = out.SetReadDeadline(time.Now().Add(startWithin))
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.TrimPrefix(line, addressPrefix)), nil
}

// A redisServer is a Redis that keeps nothing beyond its end.
type redisServer struct {
	*child
	dir     string
	address string
}

var errMissing = errors.New("missing: redis-server, install with: apt-get install redis-server")

func startRedis(ctx context.Context) (*redisServer, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errMissing
	}
	for range 5 { // somebody else may take the port first
		var s *redisServer
		if s, err = startRedisOnce(ctx, program); err == nil || ctx.Err() != nil {
			return s, err
		}
	}
	return nil, err
}

func startRedisOnce(ctx context.Context, program string) (s *redisServer, err error) {
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = l.Close()
	dir, err := os.MkdirTemp("", "cluster")
	if err != nil {
		return nil, err
	}
	s = &redisServer{dir: dir, address: address}
	log := filepath.Join(dir, "redis.log")
	cmd := exec.Command(program, "--bind", host, "--port", port, "--dir", dir, "--logfile", log, "--save", "", "--maxmemory", "256mb", "--maxmemory-policy", "noeviction")
	if s.child, err = startChild(cmd); err == nil {
		err = s.answers(ctx)
	}
	if err != nil {
		text, _ := os.ReadFile(log)
		s.end()
		return nil, fmt.Errorf("redis-server does not start: %w\n%s", err, text)
	}
	return s, nil
}

// answers waits until it does, and no other that has got the port.
func (s *redisServer) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	client := goredis.NewClient(&goredis.Options{Addr: s.address, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	for {
		info, err := "", dials(s.address)
		if err == nil {
			info, err = client.Info(ctx, "server").Result()
		}
		if err == nil && strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", s.cmd.Process.Pid)) {
			return nil
		}
		select {
		case <-s.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func dials(address string) error {
	c, err := net.DialTimeout("tcp", address, startWithin)
	if err == nil {
		err = c.Close()
	}
	return err
}

func (s *redisServer) end() {
	if s == nil {
		return
	}
	if s.child != nil {
		s.child.end()
	}
	_ = os.RemoveAll(s.dir)
}
