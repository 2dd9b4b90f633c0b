package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// A frame is what the server sends: one of these (PROTOCOL §§2, 6).
type frame struct {
	Open     *struct{ Token string }
	Position string // of an opening or, with Data, an event
	Data     json.RawMessage
	Gap      *struct{ From, To, Reason string }
	End      *reason
	Close    *reason
}

// A reason says why something ended or was refused (PROTOCOL §8).
type reason struct {
	Code, Class, Message string
	After                int64 // in ms
}

func (r *reason) Error() string { return r.Code + ": " + r.Message }

// open opens a connection and says hello. What it returns returns frame by frame.
func (c *client) open(ctx context.Context) (next func() (frame, error), err error) {
	hc := &http.Client{Transport: &http.Transport{DialContext: c.tap.dial, DisableKeepAlives: true}}
	if c.carrier == "ws" {
		return c.openWebSocket(ctx, hc)
	}
	return c.openStream(ctx, hc)
}

func (c *client) openWebSocket(ctx context.Context, hc *http.Client) (func() (frame, error), error) {
	ws, _, err := websocket.Dial(ctx, c.demo.target+"ws", &websocket.DialOptions{HTTPClient: hc, HTTPHeader: http.Header{asWho: {c.name}}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = ws.CloseNow() })
	ws.SetReadLimit(1 << 20)
	if err := ws.Write(ctx, websocket.MessageText, c.hello()); err != nil {
		return nil, err
	}
	return func() (f frame, err error) {
		_, text, err := ws.Read(ctx)
		if err == nil {
			err = json.Unmarshal(text, &f)
		}
		return f, err
	}, nil
}

func (c *client) openStream(ctx context.Context, hc *http.Client) (func() (frame, error), error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.demo.target+"sse", bytes.NewReader(c.hello()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(asWho, c.name)
	answer, err := hc.Do(r)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		return nil, refused(answer)
	}
	lines := bufio.NewReader(answer.Body)
	return func() (f frame, err error) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return f, err
			}
			if data, ok := strings.CutPrefix(line, "data:"); ok {
				err = json.Unmarshal([]byte(data), &f)
				return f, err
			}
		}
	}, nil
}

// refused is what a refusal says.
func refused(answer *http.Response) error {
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	var body struct{ Error reason }
	if json.Unmarshal(text, &body) != nil || body.Error.Code == "" {
		return fmt.Errorf("the server answered %s", answer.Status)
	}
	return &body.Error
}
