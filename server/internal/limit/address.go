package limit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are those whose word about the address of a client is taken. The zero
// value is none. They may be used concurrently.
type Proxies struct {
	prefixes []netip.Prefix
	unix     bool // whoever comes without an address is one
}

// ParseProxies reads addresses ("10.0.0.7", "2001:db8::7"), networks
// ("10.0.0.0/8", "2001:db8::/32") and "unix", which is whoever connects without
// an IP address, that is by a Unix socket. IPv4 is not within "::/0". The error
// names the bad entry.
func ParseProxies(cidrs []string) (Proxies, error) {
	var p Proxies
	for _, text := range cidrs {
		if text == "unix" {
			p.unix = true
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			return Proxies{}, fmt.Errorf("%q is neither an IP address, nor a network like 10.0.0.0/8, nor unix: %w", text, err)
		}
		p.prefixes = append(p.prefixes, prefix)
	}
	return p, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		if a.Zone() != "" { // it would be trusted on every interface
			return netip.Prefix{}, errors.New("zones are not looked at")
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if prefix.Masked() != prefix { // one of the two numbers is a mistake
		return netip.Prefix{}, fmt.Errorf("it has bits behind its length, unlike %v", prefix.Masked())
	}
	if a := prefix.Addr(); a.Is4In6() {
		return netip.PrefixFrom(a.Unmap(), prefix.Bits()-96), nil
	}
	return prefix, nil
}

// trust reports whether an address is that of a proxy. Without an address it is
// whoever came by a Unix socket.
func (p Proxies) trust(a netip.Addr) bool {
	if !a.IsValid() {
		return p.unix
	}
	return slices.ContainsFunc(p.prefixes, func(in netip.Prefix) bool { return in.Contains(a) })
}

// maxHops is how many proxies in a row are believed.
const maxHops = 32

// Client is the address of the client that a request is of: whoever connected,
// unless that is a trusted proxy. Then it is the last address that a trusted
// proxy tells and that is not one itself. What stands before that may be made
// up, and isn't looked at.
//
// Where a proxy says nothing that can be read as an address, or where more than
// 32 hops or 4 KiB had to be looked at, the client is who told last, or the
// last who was told; so it is a proxy only if nobody else is known. The address
// is not valid (the zero value) if whoever connected has none (a Unix socket)
// and is not trusted, or tells none.
//
// X-Forwarded-For is what counts, and Forwarded (RFC 7239) only in a request
// without any X-Forwarded-For: nearly every proxy writes that and lets pass a
// Forwarded that the client made up. The other way round, a proxy that writes
// only Forwarded has to remove X-Forwarded-For. And one that writes neither must
// not be trusted.
func (p Proxies) Client(r *http.Request) netip.Addr {
	client := parseRemote(r.RemoteAddr)
	if !p.trust(client) {
		return client
	}
	told := hops{lines: r.Header["X-Forwarded-For"], parse: parseNode}
	if len(told.lines) == 0 {
		told = hops{lines: r.Header["Forwarded"], parse: parseForwarded}
	}
	for range maxHops {
		a, ok := told.last()
		if !ok {
			break
		}
		client = a
		if !p.trust(a) {
			break
		}
	}
	return client
}

// parseRemote reads what net/http says of a connection, or a middleware without
// a port. A Unix socket has no address: it is "", "@" or a path.
func parseRemote(text string) netip.Addr {
	a, _ := parseNode(text)
	return a
}

// Key is what a client is limited by: its address, if that is IPv4, and the
// network of v6bits bits (default: 64) if it is IPv6, of which everybody has
// that many addresses. It is not valid (the zero value) if the address isn't.
func Key(a netip.Addr, v6bits int) netip.Prefix {
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() && v6bits > 0 {
		bits = min(v6bits, bits)
	} else if a.Is6() {
		bits = 64
	}
	key, _ := a.Prefix(bits)
	return key
}
