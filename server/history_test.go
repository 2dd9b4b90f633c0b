package server_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

// A past is the answer to a request for history.
type past struct {
	Events []struct {
		Position, Type, Key string
		Data                json.RawMessage
		Time                int64
		Tags                []string
	}
	Next, First, Head string
	Done, Trimmed     bool
	Gap               *struct{ From, To, Reason string }
	header            http.Header
	size              int
}

// data are the events' data, joined by spaces.
func (p past) data() string {
	var all []string
	for _, e := range p.Events {
		all = append(all, string(e.Data))
	}
	return strings.Join(all, " ")
}

// history asks for a page, which has to be given.
func (w *world) history(query string, headers ...string) (p past) {
	w.Helper()
	r := w.do("GET", "/history?channel="+query, "", headers...)
	defer r.Body.Close()
	raw, err := io.ReadAll(r.Body)
	body := io.Reader(strings.NewReader(string(raw)))
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, err = gzip.NewReader(body)
	}
	if err == nil {
		err = json.NewDecoder(body).Decode(&p)
	}
	if err != nil || r.StatusCode != http.StatusOK {
		w.Fatalf("history of %s: %d %.300s: %v", query, r.StatusCode, raw, err)
	}
	p.header, p.size = r.Header, len(raw)
	return p
}

// TestHistoryPages join without hole or overlap, in both orders.
func TestHistoryPages(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		want := ""
		for i := range 25 {
			w.publish("r", fmt.Sprint(i))
			want += fmt.Sprint(i, " ")
		}
		got := ""
		for q := "r&limit=10"; ; {
			p := w.history(q)
			got += p.data() + " "
			if p.Done {
				break
			}
			q = "r&limit=10&after=" + p.Next
		}
		expect(t, "pages", got, want)
		p := w.history("r&last=3")
		expect(t, "the last", p.data(), "24 23 22")
		expect(t, "those before", w.history("r&order=desc&limit=2&until="+p.Next).data(), "21 20")
	})
}

// maxHistory shows one bound of a page.
func maxHistory(o server.Options, query string, most int) func(t *testing.T) {
	return func(t *testing.T) {
		o.Authorize = allow
		inBubble(t, o, func(w *world) {
			for range 50 {
				w.publish("r", `"`+strings.Repeat("x", 250)+`"`)
			}
			p := w.history("r" + query)
			if n := len(p.Events); n > most || p.Done || n == 0 && query == "" {
				t.Errorf("%d events, done %v", n, p.Done)
			}
			if n := len(w.history("r" + query + "&after=" + p.Next).Events); n > most {
				t.Errorf("then %d events", n)
			}
		})
	}
}

// compressOver: what is longer comes as gzip, if it is wanted.
func compressOver(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, CompressOver: 3000, Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{"keys": {Secret: true}}}}}, func(w *world) {
		for _, c := range []struct {
			channel, accepts string
			n                int
			packed           bool
		}{{"a", "gzip", 5, false}, {"b", "gzip", 30, true}, {"c", "gzip;q=0, *", 30, false}, {"d", "*;q=0.1", 30, true}, {"e", "br", 30, false}, {"keys", "gzip", 30, false}} {
			for i := range c.n {
				w.publish(c.channel, fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", 100)))
			}
			p := w.history(c.channel, "Accept-Encoding", c.accepts)
			r := w.do("GET", "/poll?channel="+c.channel+"&after=earliest", "", "Accept-Encoding", c.accepts)
			if (p.header.Get("Content-Encoding") == "gzip") != c.packed || (r.Header.Get("Content-Encoding") == "gzip") != c.packed || len(p.Events) != c.n {
				t.Errorf("%s: history %v, poll %v, %d events", c.channel, p.header, r.Header, len(p.Events))
			}
			if c.packed {
				body, err := gzip.NewReader(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(body)
				if n := strings.Count(string(text), `"position"`); err != nil || n != c.n || !json.Valid(text) {
					t.Errorf("%s: %d events in a poll, %v: %.200s", c.channel, n, err, text)
				}
			}
		}
	})
}

// historyMaxAge: what never changes may be kept, for so long.
func historyMaxAge(t *testing.T, d time.Duration) {
	inBubble(t, server.Options{Authorize: allow, HistoryMaxAge: d}, func(w *world) {
		for i := range 3 {
			w.publish("r", fmt.Sprint(i))
		}
		open := w.history("r&limit=1")
		expect(t, "from the beginning", open.header.Get("Cache-Control"), "no-store")
		closed := w.history("r&limit=1&after=" + open.Next)
		expect(t, "between two events", closed.header.Get("Cache-Control"), fmt.Sprintf("private, max-age=%d, immutable", int(d.Seconds())))
	})
}

// TestHistoryIsClipped: whose grant begins later is told what is withheld, and
// gets the rest.
func TestHistoryIsClipped(t *testing.T) {
	var since time.Time
	o := server.Options{Authorize: allow, Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{"r": {
		From: func(context.Context, server.Identity, server.Channel) (time.Time, error) { return since, nil },
	}}}}}
	inBubble(t, o, func(w *world) {
		for i := range 6 {
			if i == 3 {
				time.Sleep(time.Hour)
				since = time.Now()
			}
			w.publish("r", fmt.Sprint(i))
		}
		for query, want := range map[string]string{
			"r":                     "3 4 5 withheld",
			"r&order=desc":          "5 4 3 withheld",
			"r&order=desc&limit=2":  "5 4",
			"r&since=0":             "3 4 5 withheld",
			"r&before=" + ms(since): " withheld",
			"r&since=" + ms(since):  "3 4 5",
		} {
			p := w.history(query)
			got := p.data()
			if p.Gap != nil {
				got += " " + p.Gap.Reason
				if p.header.Get("ETag") != "" {
					t.Errorf("%s: an answer with a gap may be kept", query)
				}
			}
			expect(t, query, got, want)
		}
	})
}

func ms(t time.Time) string { return fmt.Sprint(t.UnixMilli()) }

// TestHistoryOfTheProgram: the program reads with nobody's rights.
func TestHistoryOfTheProgram(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		for i := range 30 {
			w.publish("r", fmt.Sprint(i))
		}
		got := ""
		for e, err := range w.srv.History(w.ctx, server.Channel{Name: "r"}, server.Range{Backwards: true}, server.Limit{Bytes: 1, Events: 5}) {
			got += fmt.Sprint(string(e.Data), err, " ")
		}
		expect(t, "the last 5", got, "29<nil> 28<nil> 27<nil> 26<nil> 25<nil> ")
		if r := w.do("GET", "/history?channel=r", ""); r.StatusCode != http.StatusForbidden {
			t.Errorf("without the right: %d", r.StatusCode)
		}
	})
}

// A plainLog can't be read in parts.
type plainLog struct{ eventlog.Log }

// TestNoHistory: a log that has none says so.
func TestNoHistory(t *testing.T) {
	plain := func() eventlog.Log { return plainLog{eventlog.NewMemory(eventlog.MemoryOptions{})} }
	inBubbleWith(t, plain, server.Options{Authorize: allow}, func(w *world) {
		if got := w.refusedBy("history", w.do("GET", "/history?channel=r", "")); got.Code != "not_found" || !strings.Contains(got.Message, "log") {
			t.Errorf("%+v", got)
		}
		for _, err := range w.srv.History(w.ctx, server.Channel{Name: "r"}, server.Range{}, server.Limit{}) {
			if err == nil {
				t.Error("there is history where there is none")
			}
		}
	})
}

// TestHistoryIsRated: a page counts as a connection that goes on somewhere, once
// for its address and once for its subject.
func TestHistoryIsRated(t *testing.T) {
	slow := server.Rate{PerSecond: 0.001, Burst: 3}
	for name, o := range map[string]server.Options{
		"address": {AddressRates: server.Rates{Resumes: slow}},
		"subject": {IdentityRates: server.Rates{Resumes: slow}},
	} {
		o.Authorize = allow
		o.Authenticate = func(*http.Request) (server.Identity, error) { return server.Identity{Subject: "ann"}, nil }
		inBubble(t, o, func(w *world) {
			got := ""
			for range 4 {
				got += fmt.Sprint(w.do("GET", "/history?channel=r", "").StatusCode, " ")
			}
			expect(t, name, got, "200 200 200 429 ")
		})
	}
}

// TestHistoryBegins: who scrolls back to the end is told whether it is the beginning.
func TestHistoryBegins(t *testing.T) {
	small := func() eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 3} }})
	}
	inBubbleWith(t, small, server.Options{Authorize: allow}, func(w *world) {
		for n := 1; n <= 4; n++ {
			w.publish("r", fmt.Sprint(n))
			if p := w.history("r&order=desc"); !p.Done || p.Trimmed != (n == 4) {
				t.Errorf("after %d events, of which 3 are kept: done %v, trimmed %v", n, p.Done, p.Trimmed)
			}
		}
	})
}

// TestHistoryIsAskedForHeaders: HEAD is GET without the body.
func TestHistoryIsAskedForHeaders(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		after, until := w.publish("r", "1").String(), w.publish("r", "2").String()
		query := "/history?channel=r&after=" + after + "&until=" + until
		get, head := w.do("GET", query, ""), w.do("HEAD", query, "")
		defer get.Body.Close()
		defer head.Body.Close()
		for _, name := range []string{"ETag", "Cache-Control", "Content-Type", "Vary"} {
			if head.StatusCode != http.StatusOK || get.Header.Get(name) == "" || head.Header.Get(name) != get.Header.Get(name) {
				t.Errorf("%s: %d %q, and %q of a GET", name, head.StatusCode, head.Header.Get(name), get.Header.Get(name))
			}
		}
	})
}

// TestFilterOfAnotherForm refuses its channel, and no other.
func TestFilterOfAnotherForm(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		r := w.do("POST", "/poll", `{"hello":{"version":1,"line":1,"channels":[{"channel":"a","filter":{"types":"said"}},{"channel":"b","filter":7},{"channel":"c"}]}}`)
		defer r.Body.Close()
		var answer struct {
			Positions map[string]string
			Ends      []struct {
				Channel string
				End     struct{ Code, Message string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Ends) != 2 || answer.Ends[0].End.Code != "bad_request" || !strings.Contains(answer.Ends[1].End.Message, "lists of strings") || answer.Positions["c"] == "" || len(answer.Positions) != 1 {
			t.Errorf("%+v", answer)
		}
	})
}
