package server_test

import (
	"net/http"
	"net/http/httptest"
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
