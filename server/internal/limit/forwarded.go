package limit

import (
	"net/netip"
	"strings"
)

// maxHeader is how many bytes of a header are looked at, from its end.
const maxHeader = 4 << 10

// hops are the elements of a list in a header, from the last to the first.
//
// They are cut off at the end, as whoever wrote the beginning must not be able
// to spoil what a proxy appended: with a quote that stays open, or with length.
type hops struct {
	lines []string // the header's own, not to be changed
	line  string   // what is left of the one that was begun
	begun bool
	seen  int // bytes
	parse func(element string) (netip.Addr, bool)
}

// last takes off the last element. It fails if there is none, if it has no
// address or if it is too much to look at.
//
// An empty element is one without an address, and not ignored as in other
// lists: some proxies write it for whom they don't know, and what stands before
// it was told by that one.
func (h *hops) last() (netip.Addr, bool) {
	if !h.begun {
		if len(h.lines) == 0 {
			return netip.Addr{}, false
		}
		end := len(h.lines) - 1
		h.line, h.lines = h.lines[end], h.lines[:end]
	}
	comma, ok := lastComma(h.line, maxHeader-h.seen)
	if !ok {
		return netip.Addr{}, false
	}
	element := h.line[comma+1:]
	h.line, h.begun = h.line[:max(comma, 0)], comma >= 0
	h.seen += len(element) + 1
	return h.parse(trim(element))
}

// lastComma is where the last comma is that is not in quotes, -1 if nowhere. It
// fails if it had to look at more than most bytes. Backwards, a quote with a
// backslash before it begins no string, as an equals sign stands before those.
func lastComma(line string, most int) (place int, ok bool) {
	quoted := false
	for i := len(line) - 1; i >= 0; i-- {
		switch {
		case len(line)-i > most:
			return 0, false
		case line[i] == '"' && quoted && i > 0 && line[i-1] == '\\': // a part of the string
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ',' && !quoted:
			return i, true
		}
	}
	return -1, true
}

// parseForwarded reads the address of an element of Forwarded, like
//
//	for="[2001:db8::17]:4711";proto=https;by=203.0.113.43
//
// (RFC 7239 §4). Spaces around pairs, and values that should have been quoted,
// are taken as they are meant.
func parseForwarded(element string) (netip.Addr, bool) {
	node, found := "", false
	for rest := strings.TrimLeft(element, "; \t"); rest != ""; rest = strings.TrimLeft(rest, "; \t") {
		var name, value string
		var ok bool
		name, value, rest, ok = cutPair(rest)
		if !ok {
			return netip.Addr{}, false
		}
		if strings.EqualFold(name, "for") {
			if found { // one of them is not the proxy's
				return netip.Addr{}, false
			}
			node, found = value, true
		}
	}
	return parseNode(node)
}

// cutPair takes the first of a list of pairs like for=192.0.2.1 or for="_x".
func cutPair(text string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(text, "=")
	if !ok || name == "" || strings.ContainsAny(name, "; \t\"") {
		return "", "", "", false
	}
	if strings.HasPrefix(rest, `"`) {
		value, rest, ok = cutQuoted(rest[1:])
		rest = trim(rest)
		return name, value, rest, ok && (rest == "" || rest[0] == ';')
	}
	value, rest, _ = strings.Cut(rest, ";")
	value = trim(value)
	return name, value, rest, !strings.ContainsAny(value, " \t\"")
}

// cutQuoted takes what is left of a quoted string (RFC 9110 §5.6.4), and fails
// if that doesn't end.
func cutQuoted(text string) (value, rest string, ok bool) {
	var unescaped []byte
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return string(unescaped), text[i+1:], true
		case '\\':
			if i++; i == len(text) {
				return "", "", false
			}
		}
		unescaped = append(unescaped, text[i])
	}
	return "", "", false
}

// parseNode reads an address, with or without a port: an IPv6 address with one
// stands in brackets. It has no zone, and is IPv4 if it is that in IPv6.
// "unknown" and obfuscated names like _x (RFC 7239 §6) are none.
func parseNode(text string) (netip.Addr, bool) {
	host, port := text, ""
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if host, port, ok = strings.Cut(inner, "]"); !ok || !strings.Contains(host, ":") {
			return netip.Addr{}, false
		}
	} else if strings.Count(text, ":") == 1 {
		colon := strings.IndexByte(text, ':')
		host, port = text[:colon], text[colon:]
	}
	if port != "" && !isPort(port) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(host)
	return a.WithZone("").Unmap(), err == nil
}

// isPort reports whether text is a port behind a colon: a number, or something
// obfuscated that begins with an underscore.
func isPort(text string) bool {
	port, ok := strings.CutPrefix(text, ":")
	if obfuscated, is := strings.CutPrefix(port, "_"); is {
		return ok && obfuscated != ""
	}
	return ok && port != "" && len(port) <= 5 && strings.Trim(port, "0123456789") == ""
}

func trim(text string) string { return strings.Trim(text, " \t") }
