package conformance

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// A watcher is a line that watches the presence of channels, and what it knows.
type watcher struct {
	*reading
	rolls map[string]*roll
}

// A roll is what a client knows of who is in a channel.
type roll struct {
	version string
	total   int
	members map[string]wireclient.Member // nil if they are not known
	frames  int                          // how many came
}

// take takes a frame as P10.2 says.
func (r *roll) take(c *serverCheck, p *wireclient.Presence) {
	if p.Version == "" {
		c.errorf("a frame of presence has no version: %+v", *p)
	}
	r.version, r.total = p.Version, p.Total
	r.frames++
	switch {
	case p.Members != nil:
		r.members = make(map[string]wireclient.Member)
	case p.Joined == nil && p.Left == nil:
		r.members = nil
		return
	case r.members == nil:
		c.fatalf("a difference came to who knows no members: joined %+v, left %q", p.Joined, p.Left)
	}
	for _, m := range slices.Concat(p.Members, p.Joined) {
		if m.ID == "" {
			c.errorf("a member has no id: %+v", m)
		}
		r.members[m.ID] = m
	}
	for _, id := range p.Left {
		if _, there := r.members[id]; !there {
			c.errorf("%q left, who was not there", id)
		}
		delete(r.members, id)
	}
	if len(r.members) != r.total {
		c.errorf("the total is %d, and the members add up to %d", r.total, len(r.members))
	}
}

// subjects are those of the members, in order.
func (r *roll) subjects() string {
	list := []string{}
	for _, m := range r.members {
		list = append(list, m.Subject)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// ann is the id of ann's one session.
func (r *roll) ann(c *serverCheck) string {
	for id, m := range r.members {
		if m.Subject == "ann" {
			return id
		}
	}
	c.fatalf("ann is not present")
	return ""
}

// watch opens a line that watches channels.
func (c *serverCheck) watch(channels ...string) *watcher {
	h := helloOf(1)
	for _, name := range channels {
		h.Presence = append(h.Presence, wireclient.Watch{Channel: name})
	}
	return c.watchWith(c.form, c.site, c.as("watcher"), h)
}

func (c *serverCheck) watchWith(f form, s *site, hc *http.Client, h wireclient.Hello) *watcher {
	w := &watcher{rolls: map[string]*roll{}}
	for _, asked := range h.Presence {
		w.rolls[asked.Channel] = &roll{}
	}
	if f.carrier != "poll" {
		w.reading = c.lineOver(f, s, hc, h).reading
		return w
	}
	h.Presence, h.Channels = slices.Clone(h.Presence), slices.Clone(h.Channels)
	stream := wireclient.NewPollStream(c.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
		for i := range h.Channels {
			if p, ok := at[h.Channels[i].Channel]; ok {
				h.Channels[i].After = p
			}
		}
		a, err := wireclient.SessionPoll(ctx, hc, s.base+"/poll?wait=25s", h)
		if err == nil {
			asNext(&h, a)
		}
		return a, err
	})
	c.atEnd(stream.Close)
	w.reading = &reading{check: c, stream: stream, form: f}
	return w
}

// asNext has the next poll present what an answer said. What was refused isn't
// asked for again.
func asNext(h *wireclient.Hello, a *wireclient.Answer) {
	if a.Open != nil && a.Open.Token != "" {
		h.Token = a.Open.Token
	}
	for _, it := range a.Items {
		if it.Presence == nil {
			continue
		}
		for i := range h.Presence {
			if h.Presence[i].Channel == it.Channel {
				h.Presence[i].Seen = it.Presence.Version
			}
		}
		if it.Presence.End != nil {
			h.Presence = slices.DeleteFunc(h.Presence, func(w wireclient.Watch) bool { return w.Channel == it.Channel })
		}
	}
}

// take takes what comes next, and returns it.
func (w *watcher) take() wireclient.Item {
	it := w.any()
	if it.Presence != nil && it.Presence.End == nil {
		known := w.rolls[it.Channel]
		if known == nil {
			w.check.fatalf("%s: the presence of %q came, which is not watched", w.form.name, it.Channel)
		}
		known.take(w.check, it.Presence)
	}
	return it
}

// until reads on until a channel's members have these subjects, and returns how
// long that took.
func (w *watcher) until(channel string, subjects ...string) time.Duration {
	want := strings.Join(subjects, " ")
	began := time.Now()
	known := w.rolls[channel]
	for known.version == "" || known.members == nil || known.subjects() != want {
		w.take()
		if time.Since(began) > 10*time.Minute {
			w.check.fatalf("%s: after %v the members of %q are %q of %d, not %q", w.form.name, time.Since(began), channel, known.subjects(), known.total, want)
		}
	}
	return time.Since(began)
}

// member opens a line of a session in a channel.
func (c *serverCheck) member(subject, channel string) *sessionLine {
	return c.lineOver(c.aForm(sessionWS, sessionSSE), c.site, c.as(subject), helloOf(1, channel))
}

// within checks how long something took.
func (c *serverCheck) within(what string, took, least, most time.Duration) {
	if took < least || took > most+time.Second {
		c.errorf("%s after %v, not after %v to %v", what, took, least, most)
	}
}
