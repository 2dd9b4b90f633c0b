package redis

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// TestOldRedisIsRefused: one before 7.0 says of our scripts that they can't be compiled,
// and whoever opens the log hears why.
func TestOldRedisIsRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer listener.Close()
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { old(conn) })
		}
	})
	client := goredis.NewClient(&goredis.Options{Addr: listener.Addr().String(), Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	defer client.Close()
	_, err = Open(t.Context(), client, Options{Buckets: 16})
	if err == nil || !strings.Contains(err.Error(), "7.0 or newer is needed") {
		t.Errorf("%v", err)
	}
}

// old answers each command by the word that tells which it is.
func old(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer := map[string]string{
			"hello":   "-ERR unknown command\r\n",
			"hsetnx":  ":0\r\n",
			"hmget":   "*2\r\n$2\r\n16\r\n$1\r\n1\r\n",
			"evalsha": "-NOSCRIPT No matching script\r\n",
			"script":  "-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n",
		}[strings.ToLower(lines.Text())]
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}
