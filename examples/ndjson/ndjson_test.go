package ndjson_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/examples/ndjson"
	"github.com/throughline/throughline/transport"
)

// read is the client half: it asks, says what it is given to say, and hands over
// what comes.
func read(ctx context.Context, hc *http.Client, ask conformance.Ask, rest io.Reader, received func(conformance.Received)) error {
	var channels []string
	for _, name := range ask.Channels {
		quoted := transport.AppendStringJSON(nil, name)
		channels = append(channels, fmt.Sprintf(`{"channel":%s,"after":%q}`, quoted, ask.After))
	}
	hello := `{"hello":{"version":1,"line":1,"channels":[` + strings.Join(channels, ",") + "]}}\n"
	// A body of known length goes out at once. The end of another may still be on its way when
	// the server has answered and closes, and net/http takes that for a broken request.
	var body io.Reader = strings.NewReader(hello)
	if ask.Up != nil || rest != http.NoBody {
		body = io.MultiReader(body, &frames{up: ask.Up}, rest)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:1/ndjson", body)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		got, err := conformance.ParseReceived(lines.Bytes())
		if err != nil { // a *transport.Refusal, if the request was refused
			return err
		}
		received(got)
	}
	return lines.Err()
}

// frames are the body after the hello, a line each.
type frames struct {
	up   <-chan []byte
	text []byte // what is left of one
}

func (f *frames) Read(p []byte) (int, error) {
	if len(f.text) == 0 {
		if f.up == nil {
			return 0, io.EOF
		}
		frame, more := <-f.up
		if !more {
			return 0, io.EOF
		}
		f.text = append(frame, '\n')
	}
	n := copy(p, f.text)
	f.text = f.text[n:]
	return n, nil
}

func mount(engine transport.Engine) http.Handler {
	h := ndjson.New(engine)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Serve(w, r, transport.Peer{}) })
}

func TestConformance(t *testing.T) {
	for name, open := range map[string]bool{"one way": false, "both ways": true} {
		t.Run(name, func(t *testing.T) { conformance.TestTransport(t, ndjsonFor(open, 20*time.Second)) })
		t.Run("tcp/"+name, func(t *testing.T) {
			tr := ndjsonFor(open, 5*time.Millisecond)
			tr.TCP = true
			conformance.TestTransport(t, tr)
		})
	}
}

// ndjsonFor is what the suite proves: for a client whose body ends with the
// hello, or stays open for a while, for what it may say.
func ndjsonFor(open bool, while time.Duration) conformance.Transport {
	return conformance.Transport{
		Mount: mount,
		Up:    open,
		Client: func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
			if open && ask.Up == nil {
				return read(ctx, hc, ask, pause(while), received)
			}
			return read(ctx, hc, ask, http.NoBody, received)
		},
	}
}

// A pause is the rest of a body that stays open for a while. It ends, as
// a request of net/http that breaks is not over before its body is.
type pause time.Duration

func (p pause) Read([]byte) (int, error) {
	time.Sleep(time.Duration(p))
	return 0, io.EOF
}
