package conformance

import (
	"context"
	"slices"

	"github.com/throughline/throughline/internal/wireclient"
)

// A form is one way to read: a carrier, plainly or by the session protocol.
type form struct {
	name    string // of the subtest, "sse session"
	carrier string // "sse", "ws" or "poll"
	needs   Feature
	open    func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error)
}

// lacking returns why a form isn't run on a server.
func (f form) lacking(s Server) string {
	if why, lacks := s.Lacks[f.needs]; lacks {
		return string(f.needs) + ": " + why
	}
	return ""
}

// The six forms. Those that are spent after one answer ask again by
// themselves.
var (
	plainSSE = form{"plain sse", "sse", PlainSSE, func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error) {
		return wireclient.SSE(c.ctx, s.http, s.base+"/sse"+wireclient.Query(after, channel), "")
	}}
	plainWS = form{"plain ws", "ws", PlainWS, func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error) {
		return wireclient.WS(c.ctx, s.http, s.base+"/ws"+wireclient.Query(after, channel), nil)
	}}
	plainPoll = form{"plain poll", "poll", PlainPoll, func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error) {
		return wireclient.NewPollStream(c.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at[channel]; ok {
				after = p
			}
			return wireclient.PlainPoll(ctx, s.http, s.base+"/poll"+wireclient.Query(after, channel)+"&wait=25s")
		}), nil
	}}
	sessionSSE = form{"session sse", "sse", SessionSSE, func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error) {
		return wireclient.SSESession(c.ctx, s.http, s.base+"/sse", wireclient.HelloFor(after, channel))
	}}
	sessionWS = form{"session ws", "ws", SessionWS, func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error) {
		h := wireclient.HelloFor(after, channel)
		return wireclient.WS(c.ctx, s.http, s.base+"/ws", &h)
	}}
	sessionPoll = form{"session poll", "poll", SessionPoll, func(c *serverCheck, s *site, channel, after string) (wireclient.Stream, error) {
		return wireclient.NewPollStream(c.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at[channel]; ok {
				after = p
			}
			return wireclient.SessionPoll(ctx, s.http, s.base+"/poll?wait=25s", wireclient.HelloFor(after, channel))
		}), nil
	}}
)

var (
	plainForms   = []form{plainSSE, plainWS, plainPoll}
	sessionForms = []form{sessionSSE, sessionWS, sessionPoll}
	allForms     = slices.Concat(plainForms, sessionForms)
	streamForms  = []form{plainSSE, plainWS, sessionSSE, sessionWS} // that push
)
