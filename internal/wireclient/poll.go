package wireclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// An Answer is the body of a poll's response.
type Answer struct {
	Items     []Item // ends, gaps and events
	Positions map[string]string
	Open      *Open
	Goodbye   *Reason
	Header    http.Header
	listed    bool
}

// PlainPoll asks once.
func PlainPoll(ctx context.Context, hc *http.Client, target string) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	return poll(hc, req)
}

// SessionPoll asks once, by the session protocol.
func SessionPoll(ctx context.Context, hc *http.Client, target string, h Hello) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(h.Frame()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return poll(hc, req)
}

func poll(hc *http.Client, req *http.Request) (*Answer, error) {
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var body struct {
		Events, Gaps, Ends []object
		Presence           []object
		Positions          map[string]string
		Open               *Open
		Close              *Reason
		Refresh            *Refresh
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return nil, err
	}
	a := &Answer{Positions: body.Positions, Open: body.Open, Goodbye: body.Close, Header: resp.Header}
	for _, o := range slices.Concat(body.Ends, body.Gaps, body.Presence, body.Events) {
		it, err := o.item()
		if err != nil {
			return nil, err
		}
		a.Items = append(a.Items, it)
	}
	if body.Refresh != nil {
		a.Items = append(a.Items, Item{Refresh: body.Refresh})
	}
	return a, nil
}

// Next implements [Stream]: what the answer holds, and then the positions that
// no item of it has.
func (a *Answer) Next() (Item, error) {
	if !a.listed {
		a.listed = true
		last := map[string]string{}
		for _, it := range a.Items {
			last[it.Channel] = it.Position
			if it.Gap != nil {
				last[it.Channel] = it.Gap.To
			}
		}
		for name, at := range a.Positions {
			if last[name] != at {
				a.Items = append(a.Items, Item{Channel: name, Position: at, Opening: true})
			}
		}
	}
	if len(a.Items) == 0 {
		return Item{}, io.EOF
	}
	it := a.Items[0]
	a.Items = a.Items[1:]
	return it, nil
}

// Close implements [Stream].
func (a *Answer) Close() {}

// A PollStream asks again and again. A channel's first position and those that
// move without an event come as openings.
type PollStream struct {
	ask    func(ctx context.Context, positions map[string]string) (*Answer, error)
	ctx    context.Context
	cancel context.CancelFunc
	answer *Answer
	before map[string]string // the positions that the last request presented
}

// NewPollStream returns a stream that asks with a function.
func NewPollStream(ctx context.Context, ask func(ctx context.Context, positions map[string]string) (*Answer, error)) *PollStream {
	ctx, cancel := context.WithCancel(ctx)
	return &PollStream{ask: ask, ctx: ctx, cancel: cancel}
}

// maxIdle is how many answers in a row may bring nothing: a server that does not
// wait would be asked for ever, and no time pass in a bubble.
const maxIdle = 1000

// Next implements [Stream].
func (s *PollStream) Next() (Item, error) {
	for range maxIdle {
		if s.answer != nil {
			if it, err := s.answer.Next(); err == nil {
				if it.Opening && s.before[it.Channel] == it.Position {
					continue
				}
				return it, nil
			}
			if why := s.answer.Goodbye; why != nil {
				s.answer.Goodbye = nil
				return Item{Close: why}, nil
			}
			s.before = s.answer.Positions
		}
		var err error
		if s.answer, err = s.ask(s.ctx, s.before); err != nil {
			return Item{}, err
		}
	}
	return Item{}, fmt.Errorf("%d answers in a row brought nothing", maxIdle)
}

// Close implements [Stream].
func (s *PollStream) Close() { s.cancel() }
