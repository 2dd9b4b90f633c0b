package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// tickEvery is how often a number is published.
	tickEvery = 100 * time.Millisecond
	// answerWithin is how long a node may take to say that it has one.
	answerWithin = 5 * time.Second
	// againAfter is how soon a number is sent again that nobody has answered for.
	againAfter = 100 * time.Millisecond
)

// publish has numbers published, by whatever node the proxy chooses for each.
func (c *cluster) publish(base string) {
	p := &numbers{cluster: c, base: base + "realtime/", key: rand.Text(), client: &http.Client{Timeout: answerWithin}}
	c.work.Go(func() { p.publish(c.ctx) })
}

// numbers are published one after the other, each until a node says that it is in the
// log. That it is there once is the log's doing: each has its number as a producer's.
type numbers struct {
	cluster *cluster
	base    string
	key     string // of the producer
	client  *http.Client
}

// A tick is an event's data.
type tick struct {
	N uint64 `json:"n"`
}

func (p *numbers) publish(ctx context.Context) {
	first := p.until(ctx, p.last) + 1
	for n := first; ctx.Err() == nil; n++ {
		next := time.After(tickEvery)
		p.until(ctx, func(ctx context.Context) (uint64, error) { return n, p.send(ctx, n, n-first+1) })
		p.cluster.mu.Lock()
		p.cluster.published = n
		p.cluster.mu.Unlock()
		select {
		case <-next:
		case <-ctx.Done():
		}
	}
}

// until does something until it is done.
func (p *numbers) until(ctx context.Context, do func(context.Context) (uint64, error)) uint64 {
	for {
		n, err := do(ctx)
		if err == nil || ctx.Err() != nil {
			return n
		}
		p.cluster.mu.Lock()
		p.cluster.repeats++
		p.cluster.mu.Unlock()
		select {
		case <-time.After(againAfter):
		case <-ctx.Done():
		}
	}
}

func (p *numbers) send(ctx context.Context, n, number uint64) error {
	data, _ := json.Marshal(tick{n})
	_, err := p.ask(ctx, http.MethodPost, "publish?channel="+ticks, data, http.Header{
		"Content-Type":    {"application/json"},
		"Idempotency-Key": {p.key},
		"Producer-Seq":    {strconv.FormatUint(number, 10)},
	})
	return err
}

// last returns the last number that the log has: a Redis that was there may have some
// of before.
func (p *numbers) last(ctx context.Context) (uint64, error) {
	text, err := p.ask(ctx, http.MethodGet, "history?channel="+ticks+"&last=1", nil, http.Header{})
	if err != nil {
		return 0, err
	}
	var page struct {
		Events []struct{ Data tick }
	}
	if err := json.Unmarshal(text, &page); err != nil || len(page.Events) == 0 {
		return 0, err
	}
	return page.Events[0].Data.N, nil
}

func (p *numbers) ask(ctx context.Context, method, path string, body []byte, header http.Header) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = header
	r.Header.Set("Authorization", "Bearer "+p.cluster.orders.Secret)
	answer, err := p.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return text, err
}
