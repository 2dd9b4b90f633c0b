package limit

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func mustParse(t testing.TB, cidrs ...string) Proxies {
	t.Helper()
	p, err := ParseProxies(cidrs)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func xff(lines ...string) http.Header       { return http.Header{"X-Forwarded-For": lines} }
func forwarded(lines ...string) http.Header { return http.Header{"Forwarded": lines} }

func both(a, b http.Header) http.Header {
	h := maps.Clone(a)
	maps.Copy(h, b)
	return h
}

// TestClient: 10.0.0.0/8, 192.0.2.1 and fd00::/8 are trusted.
func TestClient(t *testing.T) {
	p := mustParse(t, "10.0.0.0/8", "192.0.2.1", "fd00::/8")
	const proxy, stranger = "10.0.0.1:80", "203.0.113.9:4711"
	long := strings.Repeat("1.1.1.1, ", 10_000)
	for _, c := range []struct {
		name   string
		remote string
		header http.Header
		want   string // "" if there is none
	}{
		{"nobody between", stranger, nil, "203.0.113.9"},
		{"a stranger's word", stranger, xff("1.1.1.1"), "203.0.113.9"},
		{"a stranger's word, standard", stranger, forwarded("for=1.1.1.1"), "203.0.113.9"},
		{"a stranger names a proxy", stranger, xff("10.0.0.1"), "203.0.113.9"},
		{"IPv6", "[2001:db8::9]:4711", xff("1.1.1.1"), "2001:db8::9"},
		{"IPv6 with a zone", "[fe80::9%eth0]:4711", nil, "fe80::9"},
		{"IPv4 in IPv6", "[::ffff:203.0.113.9]:4711", nil, "203.0.113.9"},
		{"an address without a port", "203.0.113.9", nil, "203.0.113.9"},
		{"a Unix socket", "@", xff("1.1.1.1"), ""},
		{"a Unix socket without a name", "", xff("1.1.1.1"), ""},
		{"a Unix socket's path", "/run/a.sock", forwarded("for=1.1.1.1"), ""},
		{"not an address", "example.com:80", xff("1.1.1.1"), ""},

		{"a proxy says nothing", proxy, nil, "10.0.0.1"},
		{"a proxy's word", proxy, xff("203.0.113.9"), "203.0.113.9"},
		{"of a single address", "192.0.2.1:1", xff("203.0.113.9"), "203.0.113.9"},
		{"of its neighbour", "192.0.2.2:1", xff("203.0.113.9"), "192.0.2.2"},
		{"of a proxy by IPv6", "[fd00::1%eth0]:1", xff("203.0.113.9"), "203.0.113.9"},
		{"of a proxy by IPv4 in IPv6", "[::ffff:10.0.0.1]:1", xff("203.0.113.9"), "203.0.113.9"},
		{"two proxies", proxy, xff("203.0.113.9, 10.1.1.1"), "203.0.113.9"},
		{"two proxies, two lines", proxy, xff("203.0.113.9", "10.1.1.1"), "203.0.113.9"},
		{"three proxies, two lines", proxy, xff("203.0.113.9,fd00::2\t", " 10.1.1.1 , 10.1.1.2"), "203.0.113.9"},
		{"proxies only", proxy, xff("10.2.2.2, 10.1.1.1"), "10.2.2.2"},
		{"a proxy by IPv4 in IPv6 on the way", proxy, xff("203.0.113.9, ::ffff:10.1.1.1"), "203.0.113.9"},
		{"the client put one before", proxy, xff("1.1.1.1, 203.0.113.9"), "203.0.113.9"},
		{"the client put a line before", proxy, xff("1.1.1.1", "203.0.113.9"), "203.0.113.9"},
		{"the client put a proxy before", proxy, xff("10.3.3.3, 203.0.113.9, 10.1.1.1"), "203.0.113.9"},
		{"the client put rubbish before", proxy, xff("\x00\", \\, 203.0.113.9"), "203.0.113.9"},
		{"the client opened a quote before", proxy, xff(`"1.1.1.1, 203.0.113.9, 10.1.1.1`), "203.0.113.9"},
		{"the client put much before", proxy, xff(long + "203.0.113.9, 10.1.1.1"), "203.0.113.9"},
		{"the client put one long one before", proxy, xff(strings.Repeat("1", 1<<20) + ",203.0.113.9"), "203.0.113.9"},
		{"ports", proxy, xff("203.0.113.9:4711, [fd00::1]:80, [fd00::1], 10.0.0.1:1"), "203.0.113.9"},
		{"rubbish behind the client", proxy, xff("203.0.113.9, rubbish"), "10.0.0.1"},
		{"rubbish between proxies", proxy, xff("203.0.113.9, rubbish, 10.1.1.1"), "10.1.1.1"},
		{"unknown", proxy, xff("1.1.1.1, unknown, 10.1.1.1"), "10.1.1.1"},
		{"an empty one", proxy, xff("1.1.1.1,, 10.1.1.1"), "10.1.1.1"},
		{"an empty line", proxy, xff("1.1.1.1", "", "10.1.1.1"), "10.1.1.1"},
		{"an empty header", proxy, xff(""), "10.0.0.1"},
		{"a comma at the end", proxy, xff("1.1.1.1,"), "10.0.0.1"},
		{"a network", proxy, xff("1.1.1.0/24"), "10.0.0.1"},
		{"no port behind the colon", proxy, xff("1.1.1.1:"), "10.0.0.1"},
		{"too long a port", proxy, xff("1.1.1.1:123456"), "10.0.0.1"},
		{"IPv4 in brackets", proxy, xff("[1.1.1.1]:1"), "10.0.0.1"},
		{"a bracket that stays open", proxy, xff("[2001:db8::1"), "10.0.0.1"},
		{"something behind a bracket", proxy, xff("[2001:db8::1]1"), "10.0.0.1"},
		{"zeros before", proxy, xff("010.1.1.1"), "10.0.0.1"},
		{"a zone", proxy, xff("fe80::9%eth0"), "fe80::9"},

		{"standard", proxy, forwarded("for=203.0.113.9"), "203.0.113.9"},
		{"standard, all there is", proxy, forwarded(`By="[fd00::1]:80"; FOR="[2001:db8::17]:4711" ;proto=https;host="a,b;for=1.1.1.1"`), "2001:db8::17"},
		{"standard, two proxies", proxy, forwarded(`for=1.1.1.1, for="203.0.113.9:_p", for=10.1.1.1;by=10.0.0.1`), "203.0.113.9"},
		{"standard, two lines", proxy, forwarded("for=1.1.1.1", `for=203.0.113.9`, `for="[fd00::1]"`), "203.0.113.9"},
		{"standard, escapes", proxy, forwarded(`for=1.1.1.1, for="203\.0.113.9";x="\"", for=10.1.1.1;x="a\\"`), "203.0.113.9"},
		{"standard, escapes before commas", proxy, forwarded(`for=1.1.1.1, for=203.0.113.9;x="\\\",\",\\"`), "203.0.113.9"},
		{"standard, no quotes where there should be", proxy, forwarded("for=[2001:db8::17]:4711"), "2001:db8::17"},
		{"standard, empty pairs", proxy, forwarded(";;for=203.0.113.9;;"), "203.0.113.9"},
		{"standard, the client opened a quote", proxy, forwarded(`for="1.1.1.1, for=203.0.113.9;x="a,b"`), "203.0.113.9"},
		{"standard, the client opened a quote and escaped", proxy, forwarded(`for="1.1.1.1\, for=203.0.113.9`), "203.0.113.9"},
		{"standard, the client put much before", proxy, forwarded(strings.Repeat("for=1.1.1.1,", 10_000) + "for=203.0.113.9"), "203.0.113.9"},
		{"standard, unknown", proxy, forwarded("for=1.1.1.1, for=unknown, for=10.1.1.1"), "10.1.1.1"},
		{"standard, obfuscated", proxy, forwarded(`for=1.1.1.1, for="_SEVKISEK"`), "10.0.0.1"},
		{"standard, nothing for", proxy, forwarded("for=1.1.1.1, proto=https;by=10.0.0.1"), "10.0.0.1"},
		{"standard, twice for", proxy, forwarded("for=1.1.1.1;for=203.0.113.9"), "10.0.0.1"},
		{"standard, only in a quote", proxy, forwarded(`host="x;for=1.1.1.1"`), "10.0.0.1"},
		{"standard, a quote that stays open", proxy, forwarded(`for="1.1.1.1`), "10.0.0.1"},
		{"standard, an escape at the end", proxy, forwarded(`for="1.1.1.1\`), "10.0.0.1"},
		{"standard, something behind a quote", proxy, forwarded(`for="1.1.1.1"x`), "10.0.0.1"},
		{"standard, a pair behind a quote", proxy, forwarded(`for="1.1.1.1"x=1`), "10.0.0.1"},
		{"standard, a quote within", proxy, forwarded(`for=1.1.1.1;host=a"b`), "10.0.0.1"},
		{"standard, no equals sign", proxy, forwarded("1.1.1.1"), "10.0.0.1"},
		{"standard, no name", proxy, forwarded("=x;for=1.1.1.1"), "10.0.0.1"},
		{"standard, rubbish in a name", proxy, forwarded("secret;for=203.0.113.9;for=1.1.1.1"), "10.0.0.1"},
		{"standard, no port behind the colon", proxy, forwarded(`for="1.1.1.1:_"`), "10.0.0.1"},

		{"both", proxy, both(xff("203.0.113.9"), forwarded("for=1.1.1.1")), "203.0.113.9"},
		{"both, one of them rubbish", proxy, both(xff("rubbish"), forwarded("for=1.1.1.1")), "10.0.0.1"},
		{"both, one of them empty", proxy, both(xff(""), forwarded("for=1.1.1.1")), "10.0.0.1"},
		{"both, one of them ends", proxy, both(xff("10.1.1.1"), forwarded("for=1.1.1.1")), "10.1.1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.header.Clone()
			got := p.Client(&http.Request{RemoteAddr: c.remote, Header: c.header})
			want, _ := netip.ParseAddr(c.want)
			if got != want {
				t.Errorf("it is %v, not %q", got, c.want)
			}
			if !reflect.DeepEqual(c.header, before) {
				t.Error("the header was changed")
			}
		})
	}
}

// TestClientIsBounded: hops and bytes beyond what is looked at might as well not
// be there.
func TestClientIsBounded(t *testing.T) {
	p := mustParse(t, "10.0.0.0/8")
	client := func(h http.Header) string {
		return p.Client(&http.Request{RemoteAddr: "10.0.0.1:1", Header: h}).String()
	}
	proxies := func(n int) (list string) {
		for i := range n {
			list = fmt.Sprintf(", 10.1.0.%d", i) + list
		}
		return list
	}
	if got := client(xff("203.0.113.9" + proxies(31))); got != "203.0.113.9" {
		t.Errorf("behind 31 others: %v", got)
	}
	if got := client(xff("203.0.113.9" + proxies(32))); got != "10.1.0.31" {
		t.Errorf("behind 32 others: %v", got)
	}
	spaces := func(n int) string { return strings.Repeat(" ", n-len("10.1.1.1")) + "10.1.1.1" }
	fits := maxHeader - len("203.0.113.9") - 1
	for _, lines := range [][]string{
		{"203.0.113.9," + spaces(fits)},
		{"203.0.113.9", spaces(fits)},
		{"1.1.1.1,203.0.113.9", spaces(fits - 1)},
		{"203.0.113.9," + spaces(100), spaces(fits - 101)},
	} {
		if got := client(xff(lines...)); got != "203.0.113.9" {
			t.Errorf("4 KiB in %d lines: %v", len(lines), got)
		}
		lines[len(lines)-1] = lines[len(lines)-1] + " "
		if got := client(xff(lines...)); got != "10.1.1.1" {
			t.Errorf("a byte more in %d lines: %v", len(lines), got)
		}
	}
	for _, h := range []http.Header{
		xff(strings.Repeat(" ", maxHeader) + "203.0.113.9"),
		forwarded(`for=203.0.113.9;x="` + strings.Repeat(`"`, 1<<20)),
		forwarded(`for=203.0.113.9;x="` + strings.Repeat(`\`, 1<<20) + `"`),
	} {
		if got := client(h); got != "10.0.0.1" {
			t.Errorf("one that is too long: %v", got)
		}
	}
}

func TestUnixSockets(t *testing.T) {
	p := mustParse(t, "unix", "10.0.0.0/8")
	for _, c := range []struct {
		remote string
		header http.Header
		want   string
	}{
		{"@", xff("1.1.1.1, 203.0.113.9"), "203.0.113.9"},
		{"", forwarded("for=203.0.113.9"), "203.0.113.9"},
		{"/run/proxy.sock", xff("203.0.113.9, 10.0.0.1"), "203.0.113.9"},
		{"@", nil, "invalid IP"},
		{"@", xff("1.1.1.1, unix:"), "invalid IP"},
		{"203.0.113.9:1", xff("1.1.1.1"), "203.0.113.9"},
	} {
		if got := p.Client(&http.Request{RemoteAddr: c.remote, Header: c.header}); got.String() != c.want {
			t.Errorf("%q %v: %v, not %v", c.remote, c.header, got, c.want)
		}
	}
}

// TestRealConnections: what net/http says of them is understood.
func TestRealConnections(t *testing.T) {
	p := mustParse(t, "unix", "127.0.0.0/8", "::1")
	for network, address := range map[string]string{
		"tcp4": "127.0.0.1:0",
		"tcp6": "[::1]:0",
		"tcp":  ":0",
		"unix": filepath.Join(t.TempDir(), "a"),
	} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Logf("%s: %v", network, err)
			continue
		}
		got := make(chan netip.Addr, 1)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- p.Client(r) }))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 203.0.113.9\r\n\r\n")
		if a := <-got; a.String() != "203.0.113.9" {
			t.Errorf("%s: %v", network, a)
		}
		c.Close()
		srv.Close()
	}
}

func TestParseProxies(t *testing.T) {
	p := mustParse(t, "10.0.0.0/8", "::ffff:192.0.2.0/120", "::ffff:198.51.100.7", "2001:db8::/32", "0.0.0.0/32", "203.0.113.0/24", "203.0.113.0/24")
	for text, want := range map[string]bool{
		"10.255.255.255": true, "11.0.0.0": false, "192.0.2.255": true, "192.0.3.0": false, "198.51.100.7": true,
		"198.51.100.8": false, "2001:db8:ffff::": true, "2001:db9::": false, "0.0.0.0": true, "203.0.113.77": true,
	} {
		if got := p.trust(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is trusted: %v", text, got)
		}
	}
	if p := mustParse(t, "::/0"); p.trust(netip.MustParseAddr("203.0.113.9")) || !p.trust(netip.MustParseAddr("2001:db8::")) {
		t.Error("::/0 is not all of IPv6 and nothing else")
	}
	if (Proxies{}).trust(netip.Addr{}) || mustParse(t).trust(netip.MustParseAddr("127.0.0.1")) {
		t.Error("somebody is trusted by nobody")
	}
	for _, bad := range []string{
		"", " ", "*", "localhost", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "10.0.0.0-10.0.0.9", "10.0.0.1:80", "[::1]",
		" 10.0.0.1", "fe80::1%eth0", "fe80::%eth0/64", "::ffff:10.0.0.0/64", "/8", "10.0.0.0/", "Unix", "unix:",
	} {
		if _, err := ParseProxies([]string{"10.0.0.0/8", bad}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKey(t *testing.T) {
	for _, c := range []struct {
		address string
		bits    int
		want    string
	}{
		{"203.0.113.9", 0, "203.0.113.9/32"},
		{"203.0.113.9", 24, "203.0.113.9/32"},
		{"::ffff:203.0.113.9", 64, "203.0.113.9/32"},
		{"2001:db8:1:2:3:4:5:6", 0, "2001:db8:1:2::/64"},
		{"2001:db8:1:2:3:4:5:6", -1, "2001:db8:1:2::/64"},
		{"2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::/48"},
		{"2001:db8:1:2:3:4:5:6", 200, "2001:db8:1:2:3:4:5:6/128"},
		{"fe80::1%eth0", 64, "fe80::/64"},
	} {
		if got := Key(netip.MustParseAddr(c.address), c.bits); got != netip.MustParsePrefix(c.want) {
			t.Errorf("%s by %d bits: %v, not %s", c.address, c.bits, got, c.want)
		}
	}
	if got := Key(netip.Addr{}, 64); got != (netip.Prefix{}) {
		t.Errorf("of nothing: %v", got)
	}
}

// FuzzClientAddress: a client can say what it likes. Whoever isn't trusted is
// itself; and what a trusted proxy appends to a header is the client, whatever
// stands before it.
func FuzzClientAddress(f *testing.F) {
	for _, header := range []string{
		"", "203.0.113.9, 10.1.1.1", "1.1.1.1\n10.1.1.1,fd00::1", `"1.1.1.1, \"`, "unknown, 10.1.1.1", ",,", "[fd00::1]:80",
		"::ffff:10.1.1.1%eth0", strings.Repeat("10.1.1.1,", 40), strings.Repeat("\\\"", 3000),
	} {
		f.Add("10.0.0.1:1", header, false, false)
		f.Add("203.0.113.9:1", header, false, false)
		f.Add("@", header, true, true)
	}
	for _, header := range []string{
		`for=203.0.113.9, for=10.1.1.1`, `for="[fd00::1]:80";by="a,b"` + "\n" + `for=10.1.1.1;for=1.1.1.1`, `for="_x"`, `for="1.1.1.1\`,
	} {
		f.Add("10.0.0.1:1", header, true, false)
		f.Add("203.0.113.9:1", header, true, false)
		f.Add("@", header, true, true)
	}
	f.Fuzz(func(t *testing.T, remote, text string, standard, unix bool) {
		p := mustParse(t, "10.0.0.0/8", "192.0.2.1", "fd00::/8")
		p.unix = unix
		name, appended := "X-Forwarded-For", "198.51.100.77"
		if standard {
			name, appended = "Forwarded", `by="a\",b";for="198.51.100.77:1"`
		}
		lines := strings.Split(text, "\n")
		ask := func(lines ...string) netip.Addr {
			return p.Client(&http.Request{RemoteAddr: remote, Header: http.Header{name: lines}})
		}

		got, peer := ask(lines...), parseRemote(remote)
		if got.Zone() != "" || got.Is4In6() {
			t.Errorf("it is %v", got)
		}
		if !p.trust(peer) {
			if got != peer {
				t.Errorf("it is %v, although %v is not trusted", got, peer)
			}
			return
		}
		if !standard {
			if want := plainWalk(p, peer, lines); got != want && !strings.Contains(text, `"`) {
				t.Errorf("it is %v, not %v", got, want)
			}
		}
		last := lines[len(lines)-1]
		for what, header := range map[string][]string{
			"a line":            append(slices.Clone(lines), appended),
			"an element":        append(slices.Clone(lines[:len(lines)-1]), last+", "+appended),
			"one through a hop": append(slices.Clone(lines), appended, strings.Replace(appended, "198.51.100.77", "10.9.9.9", 1)),
		} {
			if a := ask(header...); a.String() != "198.51.100.77" {
				t.Errorf("with %s appended it is %v", what, a)
			}
		}
	})
}

// plainWalk does by splitting what Client does with X-Forwarded-For.
func plainWalk(p Proxies, client netip.Addr, lines []string) netip.Addr {
	elements := strings.Split(strings.Join(lines, ","), ",")
	slices.Reverse(elements)
	seen := 0
	for i, element := range elements {
		seen += len(element)
		if i == 32 || seen > 4<<10 {
			break
		}
		seen++ // the comma
		a, ok := parseNode(strings.Trim(element, " \t"))
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
