package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/throughline/throughline/transport"
)

// origins are those whose pages may use a server beside its own.
type origins map[string]bool

func parseOrigins(list []string) (origins, error) {
	allowed := make(origins, len(list))
	for _, text := range list {
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != text {
			return nil, fmt.Errorf("server: Options.AllowedOrigins: %q is not an origin like https://app.example.com", text)
		}
		allowed[strings.ToLower(text)] = true
	}
	return allowed, nil
}

// admit refuses requests of foreign pages, and lets those of allowed ones read
// the answer (CORS, WHATWG Fetch §3.2).
//
// Sec-Fetch-Site tells best, as proxies leave it alone; where a browser sends
// none (WebSocket handshakes), Origin is held against Host. A request with
// neither is not of a page, or a GET of the same origin, which has no effect.
func (allowed origins) admit(w http.ResponseWriter, r *http.Request) error {
	origin := r.Header.Get("Origin")
	h := w.Header()
	h.Add("Vary", "Origin, Sec-Fetch-Site")
	if origin != "" && allowed[strings.ToLower(origin)] {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "Retry-After")
		return nil
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return nil
	case "":
		if origin == "" || sameHost(origin, r.Host) {
			return nil
		}
	}
	return transport.Refuse(transport.CodeForeignOrigin,
		"pages of %s may not use this server, which was asked for as %.60q: either a proxy on the way has to pass the Host header on, or Options.AllowedOrigins has to name the origin",
		originName(origin), r.Host)
}

func originName(origin string) string {
	if origin == "" {
		return "another origin"
	}
	return fmt.Sprintf("%.60q", origin)
}

func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// preflight answers an OPTIONS request of an origin that was admitted.
func preflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Producer-Seq")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
}
