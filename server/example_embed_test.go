package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"

	"github.com/throughline/throughline/server"
)

// The handler is mounted under any prefix, and not told which.
func ExampleServer_netHTTP() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the page") })
	try(mux, "/realtime")
	// Output: 200 {"events":[],"positions":…
}

// With gorilla/mux the prefix is a PathPrefix, and its middleware applies.
func ExampleServer_gorillaMux() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	router := mux.NewRouter()
	router.PathPrefix("/api/{version}/realtime/").Handler(srv)
	router.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the page") })
	try(router, "/api/v2/realtime")
	// Output: 200 {"events":[],"positions":…
}

// With any other router it is a handler like all others: with chi it is mounted.
// A middleware that wraps the http.ResponseWriter needs an Unwrap method, as
// http.ResponseController asks for one: chi's have it.
func ExampleServer_chi() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	router := chi.NewRouter()
	router.Mount("/realtime", srv)
	router.Get("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the page") })
	try(router, "/realtime")
	// Output: 200 {"events":[],"positions":…
}

// try polls a channel below a prefix.
func try(h http.Handler, prefix string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", prefix+"/poll?channel=news", nil))
	body, _ := io.ReadAll(w.Body)
	begin, _, _ := strings.Cut(string(body), "{\"news\"")
	fmt.Println(w.Code, begin+"…")
}
