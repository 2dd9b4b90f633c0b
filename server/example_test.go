package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/throughline/throughline/server"
)

// A service that has something to say, and pages that hear it.
func Example() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()
	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)

	at, err := srv.Publish(context.Background(), "news", server.Message{Type: "headline", Data: []byte(`{"text":"it works"}`)})
	fmt.Println(!at.IsZero(), err)
	// Output: true <nil>
}

// Who may do what is the program's to say.
func ExampleOptions_authorize() {
	srv, err := server.New(server.Options{
		Authenticate: func(r *http.Request) (server.Identity, error) {
			name, _, _ := r.BasicAuth() // or a session cookie, or whatever the program has
			return server.Identity{Subject: name}, nil
		},
		Authorize: func(_ context.Context, who server.Identity, what server.Action, ch server.Channel) error {
			if what == server.Publish && who.Subject == "" {
				return fmt.Errorf("strangers may not publish to %s", ch)
			}
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	for _, name := range []string{"", "ada"} {
		r := httptest.NewRequest("POST", "/realtime/publish?channel=room", strings.NewReader("hello"))
		if name != "" {
			r.SetBasicAuth(name, "")
		}
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		fmt.Printf("%q: %d\n", name, w.Code)
	}
	// Output:
	// "": 403
	// "ada": 200
}

// Anything that speaks HTTP can read, and go on where it was.
func ExampleServer_ServeHTTP() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()
	ctx := context.Background()
	first, _ := srv.Publish(ctx, "room:42", server.Message{Data: []byte(`"one"`)})
	_, _ = srv.Publish(ctx, "room:42", server.Message{Type: "said", Data: []byte(`"two"`)})

	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest("GET", "/realtime/poll?channel=room:42&after="+first.String(), nil))
	body, _ := io.ReadAll(w.Body)
	fmt.Println(w.Code, strings.Contains(string(body), `"type":"said","data":"two"`), strings.Contains(string(body), `"one"`))
	// Output: 200 true false
}
