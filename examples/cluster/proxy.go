package main

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
)

// proxy sends each request to the next node that is there, whatever it is, and
// whoever asked which node before: what proxies call stickiness there is none.
func (c *cluster) proxy() http.Handler {
	to := &http.Transport{DisableKeepAlives: true} // so that a node that is gone is one that can't be dialed
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetXForwarded()
			r.Out.Host = r.In.Host // it is that of the page
		},
		Transport:     &roundRobin{cluster: c, to: to},
		FlushInterval: -1, // streams go on at once
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seat := &seat{cluster: c}
		defer seat.leave()
		p.ServeHTTP(w, r.WithContext(withSeat(r.Context(), seat)))
	})
}

var errNoNode = errors.New("no node is up")

// roundRobin asks one node after the other until one takes the request.
type roundRobin struct {
	cluster *cluster
	to      http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (rr *roundRobin) RoundTrip(r *http.Request) (*http.Response, error) {
	seat := seatOf(r.Context())
	err := errNoNode
	for _, n := range rr.cluster.turn() {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host = "http", seat.take(n)
		if r.Body != nil && r.Body != http.NoBody {
			out.Body = io.NopCloser(r.Body) // another may need it
		}
		var answer *http.Response
		answer, err = rr.to.RoundTrip(out)
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			return answer, err
		}
		seat.leave()
	}
	return nil, err
}
