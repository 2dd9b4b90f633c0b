package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// historyName is how requests for history are called in logs and metrics.
const historyName = "history"

// serveHistory answers with a page of a channel's history (PROTOCOL §12).
func (s *Server) serveHistory(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = historyName
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{})
	write, err := s.history(r, peer)
	_ = rc.SetWriteDeadline(time.Now().Add(s.o.WriteTimeout))
	if err != nil {
		s.refused(&peer, historyName, err)
		transport.WriteRefusal(w, err)
	} else {
		write(w)
	}
	_ = rc.Flush() // under that deadline: what is left in buffers would be written without one
	_ = rc.SetWriteDeadline(time.Time{})
}

// history reads the page, and returns what writes the answer.
func (s *Server) history(r *http.Request, peer transport.Peer) (func(http.ResponseWriter), error) {
	if r.ContentLength != 0 {
		return nil, transport.Refuse(transport.CodeBadRequest, "a GET has no body")
	}
	q, err := transport.ParseHistory(r.URL.Query())
	if err != nil {
		return nil, err
	}
	if err := s.memory.admit(&transport.Hello{}); err != nil { // it can wait, as those can who are new
		return nil, err
	}
	tag := ""
	current := func(from time.Time) bool {
		tag = historyTag(r, peer.Namespace, from)
		opaque := strings.TrimPrefix(tag, "W/") // RFC 9110 §8.8.3.2: weakness is not compared
		return slices.ContainsFunc(r.Header.Values("If-None-Match"), func(line string) bool { return strings.Contains(line, opaque) })
	}
	page, err := s.engine.History(r.Context(), peer, &q, current)
	if err != nil {
		return nil, err
	}
	public := s.isPublic(Channel{Namespace: peer.Namespace, Name: q.Channel})
	if page == nil {
		return func(w http.ResponseWriter) {
			s.cacheable(w.Header(), tag, public)
			w.WriteHeader(http.StatusNotModified)
		}, nil
	}
	return func(w http.ResponseWriter) {
		h := w.Header()
		if page.Fixed {
			s.cacheable(h, tag, public)
		} else {
			h.Set("Cache-Control", "no-store")
			h.Add("Vary", "Accept-Encoding")
		}
		transport.WriteBody(w, http.StatusOK, s.historyBody(h, r, page))
	}, nil
}

// historyBody is the answer, compressed if that is wanted and worth it.
func (s *Server) historyBody(h http.Header, r *http.Request, page *transport.HistoryPage) []byte {
	codec := transport.HistoryCodec{}
	if page.Run.Secret || len(page.Run.As(codec).Bytes) <= s.o.CompressOver || !transport.AcceptsGzip(r.Header) {
		return append(transport.AppendHistoryJSON([]byte{'{'}, page), "}\n"...)
	}
	h.Set("Content-Encoding", "gzip")
	z := transport.NewGzip()
	z.Append([]byte(`{"events":[`))
	z.AppendRun(page.Run, codec)
	z.Append(append(transport.AppendHistoryEnd(nil, page), "}\n"...))
	return z.End()
}

// cacheable says for how long, and by whom, an answer may be kept that is the same
// whenever it is asked for.
func (s *Server) cacheable(h http.Header, tag string, public bool) {
	whose := "private"
	if public {
		whose = "public"
	}
	h.Set("Cache-Control", fmt.Sprintf("%s, max-age=%d, immutable", whose, int64(s.o.HistoryMaxAge/time.Second)))
	h.Add("Vary", "Authorization, Cookie, Accept-Encoding")
	h.Set("ETag", tag)
}

// historyTag is the validator of an answer that never changes: it is the question,
// and from when on the caller may read. It is weak, as it is the same for the answer
// compressed and not.
func historyTag(r *http.Request, namespace string, from time.Time) string {
	hash := fnv.New128a()
	for _, text := range []string{namespace, r.URL.Query().Encode()} {
		hash.Write(binary.AppendUvarint(nil, uint64(len(text))))
		hash.Write([]byte(text))
	}
	hash.Write(binary.AppendVarint(nil, from.UnixNano()))
	return fmt.Sprintf(`W/"%x"`, hash.Sum(nil))
}

// isPublic reports whether anybody may read all of a channel's history, whoever it
// is: what such a one was answered may be kept for others.
func (s *Server) isPublic(ch Channel) bool {
	r := s.ruleOf(ch)
	return s.o.Authenticate == nil && r.allows(History) && r.From == nil && !r.Secret
}

// History returns the events of a part of a channel, as [eventlog.History] reads
// them, page after page, with nobody's rights. The zero Range is all that is kept,
// oldest first. limit.Events is how many there are at most, and its other bounds
// are those of a page.
//
//	for event, err := range srv.History(ctx, room, server.Range{Backwards: true}, server.Limit{Events: 20}) {
//
// After an error there is nothing more. It is as those of [eventlog.History];
// [errors.ErrUnsupported] if the Log has no history.
func (s *Server) History(ctx context.Context, ch Channel, r Range, limit Limit) iter.Seq2[Event, error] {
	if s.past == nil {
		return func(yield func(Event, error) bool) {
			yield(Event{}, fmt.Errorf("server: the log can't be read in parts: %w", errors.ErrUnsupported))
		}
	}
	return eventlog.Events(ctx, s.past, ch, r, limit)
}
