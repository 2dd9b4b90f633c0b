package redis

import "testing"

func TestOldRedisIsRefused(t *testing.T) {
	for info, old := range map[string]bool{
		"# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n": true,
		"# Server\r\nredis_version:7.0.15\r\n":                          false,
		"# Server\r\nredis_version:10.1\r\n":                            false,
		"":                                                              false,
	} {
		if isOld(info) != old {
			t.Errorf("%q: %v", info, !old)
		}
	}
}
