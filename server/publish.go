package server

import (
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// Bounds of an Idempotency-Key (PROTOCOL P7.3).
const (
	minIdempotencyKey = 16
	maxIdempotencyKey = 256
)

// servePublish appends one message (PROTOCOL §7).
func (s *Server) servePublish(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	s.answer(w, &peer, "publish", func() ([]byte, error) { return s.publish(w, r, peer) })
}

func (s *Server) publish(w http.ResponseWriter, r *http.Request, peer transport.Peer) ([]byte, error) {
	query := r.URL.Query()
	if !query.Has("channel") {
		return nil, transport.Refuse(transport.CodeBadRequest, "say which channel to publish to: ?channel=NAME")
	}
	ch := Channel{Namespace: peer.Namespace, Name: query.Get("channel")}
	if err := ch.Check(); err != nil {
		return nil, transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	producer, err := producerOf(r, peer)
	if err != nil {
		return nil, err
	}
	body, err := transport.ReadBody(w, r, int64(s.o.MaxMessage), "MaxMessage", s.o.HelloTimeout)
	if err != nil {
		return nil, err
	}
	at, duplicate, _, err := s.engine.Publish(r.Context(), peer, &Publication{
		Client:   Client{Identity: identityOf(peer), Connection: peer.Connection, Addr: peer.Addr},
		Channel:  ch,
		Messages: []Message{{Type: query.Get("type"), Kind: kindOf(r.Header.Get("Content-Type"), body), Data: body}},
		Producer: producer.ID,
		Number:   producer.Seq,
	}, producer)
	if err != nil {
		r, _ := s.engine.PublishRefusal(err)
		return nil, r
	}
	return json.Marshal(struct {
		Position   Position `json:"position"`
		Duplicate  bool     `json:"duplicate,omitempty"`
		Remembered int64    `json:"remembered"`
	}{at, duplicate, s.info.ProducersRemembered.Milliseconds()})
}

// producerOf reads Idempotency-Key and Producer-Seq. The key is joined with the
// subject, so that nobody who learns it can use up somebody else's numbers.
func producerOf(r *http.Request, peer transport.Peer) (eventlog.Producer, error) {
	key := r.Header.Get("Idempotency-Key")
	seq := r.Header.Get("Producer-Seq")
	if key == "" {
		if seq != "" {
			return eventlog.Producer{}, transport.Refuse(transport.CodeBadRequest, "Producer-Seq needs an Idempotency-Key")
		}
		return eventlog.Producer{}, nil
	}
	if len(key) < minIdempotencyKey || len(key) > maxIdempotencyKey {
		return eventlog.Producer{}, transport.Refuse(transport.CodeBadRequest,
			"an Idempotency-Key has %d to %d characters, and should be random", minIdempotencyKey, maxIdempotencyKey)
	}
	number := uint64(1)
	if seq != "" {
		var err error
		if number, err = strconv.ParseUint(seq, 10, 64); err != nil || number == 0 {
			return eventlog.Producer{}, transport.Refuse(transport.CodeBadRequest, "Producer-Seq is a number from 1, not %.40q", seq)
		}
	}
	owner := peer.Subject
	if owner == "" {
		owner = peer.Addr
	}
	id := strconv.Itoa(len(peer.Subject)) + ":" + peer.Subject + key
	return eventlog.Producer{Owner: owner, ID: id, Seq: number}, nil
}

// kindOf tells what a body is (PROTOCOL P7.1).
func kindOf(contentType string, body []byte) eventlog.Kind {
	media, _, _ := mime.ParseMediaType(contentType)
	switch {
	case media == "application/json" || strings.HasSuffix(media, "+json"):
		return JSON
	case strings.HasPrefix(media, "text/"):
		return Text
	case contentType != "" && media != "application/x-www-form-urlencoded":
		return Binary
	case json.Valid(body) && utf8.Valid(body):
		return JSON
	case utf8.Valid(body):
		return Text
	}
	return Binary
}
