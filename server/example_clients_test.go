package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// users are the logins that the program has already: by the value of a cookie.
var users = map[string]string{"c00k1e-of-ada": "ada", "c00k1e-of-bob": "bob"}

// The program's own cookie says who is asking. A stranger is let in as nobody;
// to keep strangers out, return an error.
func ExampleOptions_authenticate() {
	srv, err := server.New(server.Options{
		Authenticate: func(r *http.Request) (server.Identity, error) {
			cookie, err := r.Cookie("login")
			if errors.Is(err, http.ErrNoCookie) {
				return server.Identity{}, nil
			}
			user, known := users[cookie.Value]
			if !known {
				return server.Identity{}, errors.New("this login has ended")
			}
			return server.Identity{Subject: user}, nil
		},
		Authorize: func(_ context.Context, who server.Identity, _ server.Action, _ server.Channel) error {
			if who.Subject == "" {
				return errors.New("strangers have to log in first")
			}
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	for _, cookie := range []string{"", "login=c00k1e-of-ada", "login=forged"} {
		r := httptest.NewRequest("GET", "/realtime/poll?channel=news", nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		fmt.Printf("%q: %d\n", cookie, w.Code)
	}
	// Output:
	// "": 403
	// "login=c00k1e-of-ada": 200
	// "login=forged": 401
}

// Everybody has a channel of his own, at every connection, without his page
// asking for it, and nobody else may name it: what OnConnect gives needs no
// right, and the default rights keep names with "$" for those who are given
// them.
func ExampleOptions_onConnect() {
	srv, err := server.New(server.Options{
		Authenticate: func(r *http.Request) (server.Identity, error) {
			user, _, _ := r.BasicAuth()
			return server.Identity{Subject: user}, nil
		},
		// To begin it with what was before (after: "last=50") is a right of its own.
		Namespaces: map[string]server.Namespace{
			"": {Rules: map[string]server.Rule{"$user:*": {Allow: []server.Action{server.History}}}},
		},
		OnConnect: func(_ context.Context, who server.Client) (server.Welcome, error) {
			if who.Subject == "" {
				return server.Welcome{}, nil
			}
			return server.Welcome{Channels: []string{"$user:" + who.Subject}}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	for _, user := range []string{"ada", "bob"} {
		r := httptest.NewRequest("POST", "/realtime/poll", strings.NewReader(
			`{"hello":{"version":1,"line":1,"channels":[{"channel":"$user:ada","after":"last=50"}]}}`))
		r.SetBasicAuth(user, "")
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		var answer struct {
			Positions map[string]string
			Ends      []struct{ Channel string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			panic(err)
		}
		_, has := answer.Positions["$user:"+user]
		fmt.Println(user, "has the own channel:", has, "- refused:", answer.Ends)
	}
	// Output:
	// ada has the own channel: true - refused: []
	// bob has the own channel: true - refused: [{$user:ada}]
}

// Any part of a service publishes, without a client: it needs the server, a
// channel and a context.
func ExampleServer_Publish() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	type orders struct{ realtime *server.Server }
	ship := func(ctx context.Context, o orders, user string, order int) error {
		data, err := json.Marshal(map[string]int{"order": order})
		if err != nil {
			return err
		}
		_, err = o.realtime.Publish(ctx, "$user:"+user, server.Message{Type: "shipped", Data: data})
		return err
	}
	fmt.Println(ship(context.Background(), orders{srv}, "ada", 7))

	page, err := srv.Last(context.Background(), server.Channel{Name: "$user:ada"}, 10)
	for _, e := range page.Events {
		fmt.Println(e.Type, string(e.Data), err)
	}
	// Output:
	// <nil>
	// shipped {"order":7} <nil>
}

// What clients publish passes OnPublish, which says who the author is, whatever
// the client claimed.
func ExampleOptions_onPublish() {
	srv, err := server.New(server.Options{
		Authenticate: func(r *http.Request) (server.Identity, error) {
			user, _, _ := r.BasicAuth()
			return server.Identity{Subject: user}, nil
		},
		Namespaces: map[string]server.Namespace{
			"": {Rules: map[string]server.Rule{"room:*": {Allow: []server.Action{server.Subscribe, server.Publish}}}},
		},
		OnPublish: func(_ context.Context, p *server.Publication) error {
			for i := range p.Messages {
				var said struct {
					Text   string `json:"text"`
					Author string `json:"author"`
				}
				if err := json.Unmarshal(p.Messages[i].Data, &said); err != nil || said.Text == "" {
					return transport.Refuse("no_text", "say something in the member text")
				}
				said.Author = p.Client.Subject
				p.Messages[i].Data, _ = json.Marshal(said)
			}
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	for _, body := range []string{`{"text":"hello","author":"the queen"}`, `{}`} {
		r := httptest.NewRequest("POST", "/realtime/publish?channel=room:1", strings.NewReader(body))
		r.SetBasicAuth("ada", "")
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	page, _ := srv.Last(context.Background(), server.Channel{Name: "room:1"}, 10)
	fmt.Println(string(page.Events[0].Data))
	// Output:
	// 200
	// 400
	// {"text":"hello","author":"ada"}
}

// A call is a request with a reply, over whatever carries the client. In a page:
//
//	import { call } from "/realtime/call.js"
//	const sum = await call(client, "add", [1, 2])
func ExampleOptions_onCall() {
	srv, err := server.New(server.Options{
		Namespaces: map[string]server.Namespace{
			"": {Rules: map[string]server.Rule{"add": {Allow: []server.Action{server.Call}}}}, // a call's right is by its name
		},
		OnCall: func(_ context.Context, r server.Request) (server.Payload, error) {
			switch r.Name {
			case "add":
				var numbers []float64
				if err := json.Unmarshal(r.Data, &numbers); err != nil {
					return server.Payload{}, transport.Refuse("not_numbers", "add takes a list of numbers")
				}
				sum := 0.0
				for _, n := range numbers {
					sum += n
				}
				data, err := json.Marshal(sum)
				return server.Payload{Data: data}, err
			}
			return server.Payload{}, transport.Refuse(transport.CodeNotFound, "there is no call of this name")
		},
	})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	for _, call := range []string{`{"id":1,"name":"add","data":[1,2]}`, `{"id":2,"name":"add","data":"x"}`} {
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest("POST", "/realtime/up", strings.NewReader(`{"up":{"version":1},"call":`+call+`}`)))
		fmt.Print(w.Body)
	}
	// Output:
	// {"answer":{"id":1,"data":3}}
	// {"answer":{"id":2,"error":{"code":"not_numbers","class":"never","message":"add takes a list of numbers"}}}
}

// A service ends somebody's connections wherever they are: all the servers that
// share a log hear of it. That he stays out is Authenticate's to say.
func ExampleServer_Disconnect() {
	srv, err := server.New(server.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close()

	ada := server.Target{Subject: "ada"}
	fmt.Println(srv.Subscribe(context.Background(), ada, "news"))
	fmt.Println(srv.Unsubscribe(context.Background(), ada, "news"))
	fmt.Println(srv.Disconnect(context.Background(), ada, transport.Reason{}))
	fmt.Println(srv.Disconnect(context.Background(), server.Target{}, transport.Reason{}) != nil)
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// true
}
