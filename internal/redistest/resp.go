package redistest

import (
	"bytes"
	"strconv"
	"strings"
)

// messageSize returns how many bytes of b the first message takes, in RESP2 or
// RESP3, or 0 if it isn't complete.
func messageSize(b []byte) int {
	size := 0
	for left := 1; left > 0; left-- {
		line := bytes.Index(b[size:], []byte("\r\n"))
		if line < 1 {
			return 0
		}
		head := b[size : size+line]
		size += line + 2
		n, _ := strconv.Atoi(string(head[1:])) // of other kinds it isn't used
		switch head[0] {
		case '$', '!', '=':
			if n >= 0 {
				size += n + 2
			}
		case '*', '~', '>':
			left += max(n, 0)
		case '%':
			left += 2 * n
		case '|': // attributes, and then what they are of
			left += 2*n + 1
		}
		if size > len(b) {
			return 0
		}
	}
	return size
}

// words returns the first elements of a message that is an array of strings,
// as commands and what is published are: two at most, the first in lower case.
// n is how many there are.
func words(message []byte) (first [2]string, n int) {
	if len(message) == 0 || message[0] != '*' && message[0] != '>' {
		return first, 0
	}
	lines := bytes.SplitN(message, []byte("\r\n"), 6)
	n, _ = strconv.Atoi(string(lines[0][1:]))
	for i := range min(n, len(first)) {
		if at := 2 + 2*i; at < len(lines) && len(lines[at-1]) > 0 && lines[at-1][0] == '$' {
			first[i] = string(lines[at])
		}
	}
	first[0] = strings.ToLower(first[0])
	return first, n
}

// answersTo is how many messages answer a command.
func answersTo(command []byte) int {
	name, n := words(command)
	if strings.HasSuffix(name[0], "subscribe") {
		return max(n-1, 1) // one per channel
	}
	return 1
}

// published reports whether a message of a subscribed connection answers
// nothing.
func published(message []byte) bool {
	switch kind, _ := words(message); kind[0] {
	case "message", "pmessage", "smessage":
		return true
	}
	return false
}
