package server_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"

	"github.com/throughline/throughline/server"
)

func TestForeignPagesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		headers []string
		want    bool
	}{
		{"a program", nil, true},
		{"same origin by Sec-Fetch-Site", []string{"Sec-Fetch-Site", "same-origin"}, true},
		{"same origin behind a proxy", []string{"Sec-Fetch-Site", "same-origin", "Origin", "https://app.example.com", "Host", "backend:8080"}, true},
		{"typed into the address bar", []string{"Sec-Fetch-Site", "none"}, true},
		{"same origin by Origin", []string{"Origin", "http://app.example.com:8080", "Host", "app.example.com:8080"}, true},
		{"allowed", []string{"Origin", "https://friend.example.com", "Sec-Fetch-Site", "cross-site"}, true},
		{"foreign by Sec-Fetch-Site", []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"a no-cors GET of a sibling", []string{"Sec-Fetch-Site", "same-site"}, false},
		{"foreign by Origin", []string{"Origin", "https://evil.example.com"}, false},
		{"another port", []string{"Origin", "http://app.example.com:81", "Host", "app.example.com:80"}, false},
		{"null", []string{"Origin", "null"}, false},
		{"a prefix of an allowed one", []string{"Origin", "https://friend.example.com.evil.com"}, false},
		{"Sec-Fetch-Site against a forged Origin", []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://127.0.0.1:1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := server.Options{Authorize: allow, AllowedOrigins: []string{"https://friend.example.com"}}
			inBubble(t, o, func(w *world) {
				upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
				for path, more := range map[string][]string{
					"GET /sse?channel=a":      nil,
					"GET /poll?channel=a":     nil,
					"GET /ws?channel=a":       upgrade,
					"POST /publish?channel=a": nil,
				} {
					method, path, _ := strings.Cut(path, " ")
					r := w.do(method, path, "", append(more, c.headers...)...)
					if admitted := r.StatusCode != http.StatusForbidden; admitted != c.want {
						t.Errorf("%s %s: %d", method, path, r.StatusCode)
					}
				}
			})
		})
	}
}

func TestPreflight(t *testing.T) {
	inBubble(t, server.Options{AllowedOrigins: []string{"https://friend.example.com"}}, func(w *world) {
		r := w.do("OPTIONS", "/publish?channel=a", "", "Origin", "https://friend.example.com", "Access-Control-Request-Method", "POST")
		if r.StatusCode != 204 || r.Header.Get("Access-Control-Allow-Origin") != "https://friend.example.com" ||
			!strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") {
			t.Errorf("%d %v", r.StatusCode, r.Header)
		}
		r = w.do("OPTIONS", "/publish?channel=a", "", "Origin", "https://evil.example.com", "Access-Control-Request-Method", "POST")
		if r.StatusCode != 403 || r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("foreign: %d %v", r.StatusCode, r.Header)
		}
	})
}

func TestAllowedOriginsAreChecked(t *testing.T) {
	for _, bad := range []string{"*", "app.example.com", "https://app.example.com/", "https://app.example.com/path", ""} {
		if _, err := server.New(server.Options{AllowedOrigins: []string{bad}}); err == nil || !strings.Contains(err.Error(), "AllowedOrigins") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestMountsAnywhere: no prefix or router has to be told to the server.
func TestMountsAnywhere(t *testing.T) {
	srv, err := server.New(server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	plain := http.NewServeMux()
	plain.Handle("/realtime/", srv)
	stripped := http.NewServeMux()
	stripped.Handle("/a/b/", http.StripPrefix("/a/b", srv))
	bare := http.NewServeMux()
	bare.Handle("/a/b/", http.StripPrefix("/a/b/", srv))
	gorilla := mux.NewRouter()
	gorilla.PathPrefix("/api/v1/live").Handler(srv)
	for name, c := range map[string]struct {
		h    http.Handler
		base string
	}{
		"root":           {srv, ""},
		"ServeMux":       {plain, "/realtime"},
		"StripPrefix":    {stripped, "/a/b"},
		"StripPrefix, /": {bare, "/a/b"},
		"gorilla/mux":    {gorilla, "/api/v1/live"},
	} {
		for path, want := range map[string]int{"/poll?channel=a": 200, "/client.js": 200, "/nothing": 404} {
			rec := httptest.NewRecorder()
			c.h.ServeHTTP(rec, httptest.NewRequest("GET", c.base+path, nil))
			if rec.Code != want {
				t.Errorf("%s: GET %s: %d, want %d", name, c.base+path, rec.Code, want)
			}
		}
	}
}

func TestClientIsServedWithETag(t *testing.T) {
	srv, err := server.New(server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	for _, name := range []string{"client.js", "client.global.js"} {
		rec := httptest.NewRecorder()
		srv.ServeHTTP(rec, httptest.NewRequest("GET", "/realtime/"+name, nil))
		etag := rec.Header().Get("ETag")
		if rec.Code != 200 || etag == "" || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/javascript") {
			t.Fatalf("%s: %d %v", name, rec.Code, rec.Header())
		}
		r := httptest.NewRequest("GET", "/realtime/"+name, nil)
		r.Header.Set("If-None-Match", etag)
		rec = httptest.NewRecorder()
		srv.ServeHTTP(rec, r)
		if rec.Code != 304 || rec.Body.Len() > 0 {
			t.Errorf("%s, asked again: %d, %d bytes", name, rec.Code, rec.Body.Len())
		}
	}
}

// TestOrigins: what a browser says of the page that asks decides on every path,
// before anything else is looked at, and the answer tells caches so.
func TestOrigins(t *testing.T) {
	const host = "app.example.com:8080"
	friends := []string{"https://friend.example.com", "http://[2001:db8::1]:8080", "https://xn--bcher-kva.example"}
	type origin struct {
		headers []string
		want    bool
	}
	of := func(text string, want bool) origin { return origin{[]string{"Origin", text}, want} }
	site := func(site, text string, want bool) origin {
		return origin{[]string{"Sec-Fetch-Site", site, "Origin", text}, want}
	}
	inBubble(t, server.Options{Authorize: allow, AllowedOrigins: friends, AddressRates: server.Unlimited}, func(w *world) {
		for name, c := range map[string]origin{
			"same":                       of("http://"+host, true),
			"same, in capitals":          of("HTTP://APP.Example.COM:8080", true),
			"same, of another scheme":    of("https://"+host, true), // a proxy may speak TLS for us
			"another port":               of("http://app.example.com:8081", false),
			"no port":                    of("http://app.example.com", false),
			"a subdomain":                of("http://www."+host, false),
			"a parent":                   of("http://example.com:8080", false),
			"a longer name":              of("http://evil-"+host, false),
			"a name after ours":          of("http://"+host+".evil.com", false),
			"ours as user":               of("http://"+host+"@evil.com", false),
			"ours as path":               of("http://evil.com/"+host, false),
			"ours as fragment":           of("http://evil.com#http://"+host, false),
			"null":                       of("null", false),
			"null in capitals":           of("NULL", false),
			"a list":                     of("http://"+host+" https://evil.com", false),
			"a list of friends":          of(friends[0]+", "+friends[0], false),
			"garbage":                    of("%%%", false),
			"only a host":                of(host, false),
			"a file":                     of("file://", false),
			"an extension":               of("chrome-extension://abcdefgh", false),
			"a star":                     of("*", false),
			"a friend":                   of(friends[0], true),
			"a friend in capitals":       of("HTTPS://FRIEND.example.com", true),
			"a friend's other scheme":    of("http://friend.example.com", false),
			"a friend's port":            of("https://friend.example.com:444", false),
			"a friend's subdomain":       of("https://a.friend.example.com", false),
			"a friend's slash":           of(friends[0]+"/", false),
			"IPv6":                       of(friends[1], true),
			"another IPv6":               of("http://[2001:db8::2]:8080", false),
			"IDN":                        of(friends[2], true),
			"IDN in its own script":      of("https://bücher.example", false), // browsers send it as above
			"one that looks like it":     of("https://friend.exаmple.com", false),
			"same-origin":                site("same-origin", "https://elsewhere.example", true),
			"typed in":                   site("none", "", true),
			"same-site":                  site("same-site", "http://"+host, false),
			"cross-site":                 site("cross-site", "http://"+host, false),
			"cross-site friend":          site("cross-site", friends[0], true),
			"a site of the future":       site("galaxy", "http://"+host, false),
			"a site in capitals":         site("Same-Origin", "", false),
			"cross-site without origin":  site("cross-site", "", false),
			"an image, by no-cors":       {[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, false},
			"an image of a subdomain":    {[]string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, false},
			"an image of ours":           {[]string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "no-cors"}, true},
			"a navigation from far away": {[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, false},
			"null by a sandbox":          site("cross-site", "null", false),
			"empty":                      of("", true), // as if there were none: not of a page
		} {
			for _, request := range []string{
				"GET /sse?channel=a", "POST /sse", "GET /poll?channel=a", "POST /poll", "GET /ws?channel=a", "GET /ws", "POST /publish?channel=a", "POST /up",
				"OPTIONS /sse", "OPTIONS /poll", "OPTIONS /publish", "OPTIONS /up",
			} {
				method, path, _ := strings.Cut(request, " ")
				r := w.do(method, path, "", append([]string{"Host", host}, c.headers...)...)
				if (r.StatusCode != http.StatusForbidden) != c.want {
					t.Errorf("%s: %s: %d", name, request, r.StatusCode)
				}
				w.readable(name+": "+request, r, c.want, c.headers, friends)
				_ = r.Body.Close()
			}
		}
	})
}

// readable checks what the answer lets a page read: a friend all, by its own
// name, anybody else nothing.
func (w *world) readable(name string, r *http.Response, admitted bool, headers, friends []string) {
	w.Helper()
	h := r.Header
	friend := ""
	for _, text := range headers {
		if slices.ContainsFunc(friends, func(f string) bool { return strings.EqualFold(f, text) }) {
			friend = text
		}
	}
	credentials := ""
	if friend != "" {
		credentials = "true"
	}
	if h.Get("Access-Control-Allow-Origin") != friend || h.Get("Access-Control-Allow-Credentials") != credentials {
		w.Errorf("%s: %v", name, h)
	}
	if !strings.Contains(h.Get("Vary"), "Origin") || !strings.Contains(h.Get("Vary"), "Sec-Fetch-Site") {
		w.Errorf("%s: caches aren't told: %v", name, h)
	}
	if !admitted {
		if got := w.refusedBy(name, r); got.Code != "foreign_origin" {
			w.Errorf("%s: %+v", name, got)
		}
	}
}
