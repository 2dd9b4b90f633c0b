package transport

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// What the adapters share because each of them begins as an HTTP request. The
// engine uses none of it.

// statuses are those of PROTOCOL P8.3; other codes are 400.
var statuses = map[string]int{
	CodeTooLarge:      http.StatusRequestEntityTooLarge,
	CodeUnauthorized:  http.StatusUnauthorized,
	CodeForbidden:     http.StatusForbidden,
	CodeForeignOrigin: http.StatusForbidden,
	CodeNotFound:      http.StatusNotFound,
	CodeStale:         http.StatusConflict,
	CodeBusy:          http.StatusServiceUnavailable,
	CodeUnavailable:   http.StatusServiceUnavailable,
	CodeSlowConsumer:  http.StatusServiceUnavailable,
	CodeShutdown:      http.StatusServiceUnavailable,
	CodeSuperseded:    http.StatusConflict,
	CodeDisconnected:  http.StatusForbidden,
}

// WriteRefusal answers a request with a refusal (PROTOCOL P8.1). An error that
// is no *Refusal is answered 500, without its text.
func WriteRefusal(w http.ResponseWriter, err error) {
	var r *Refusal
	status := http.StatusBadRequest
	if !errors.As(err, &r) {
		r = RefuseFor(time.Second, CodeUnavailable, "something went wrong here")
		status = http.StatusInternalServerError
	} else if s, ok := statuses[r.Code]; ok {
		status = s
	}
	WriteRefusalStatus(w, status, r)
}

// WriteRefusalStatus is WriteRefusal with a status other than the usual one of
// the code.
func WriteRefusalStatus(w http.ResponseWriter, status int, r *Refusal) {
	if r.Class == Later {
		seconds := (r.After + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.Itoa(int(max(seconds, 1))))
	}
	WriteJSON(w, status, append(AppendReasonJSON([]byte(`{"error":`), r.Reason), "}\n"...))
}

// WriteJSON answers a request with JSON that nobody may keep.
func WriteJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell
}

// PlainHello reads the query of a plain request: its channels. All of them
// begin after the same, which is usually the query's "after". Errors are
// *Refusals. most is how many channels the carrier takes.
func PlainHello(r *http.Request, most int, after string) (Hello, error) {
	names := r.URL.Query()["channel"]
	if r.ContentLength != 0 {
		return Hello{}, Refuse(CodeBadRequest, "a plain request has no body")
	}
	if len(names) == 0 {
		return Hello{}, Refuse(CodeBadRequest, "say which channel to read: ?channel=NAME")
	}
	if len(names) > most {
		return Hello{}, Refuse(CodeTooManyChannels,
			"this carrier takes %d channel(s) in a plain request; the session protocol (PROTOCOL.md section 6) takes more", most)
	}
	at, start, err := ParseAfter(after)
	if err != nil {
		return Hello{}, err
	}
	if !at.IsZero() && len(names) > 1 {
		return Hello{}, Refuse(CodeBadPosition, "one position does not fit %d channels", len(names))
	}
	var h Hello
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return Hello{}, Refuse(CodeBadRequest, "channel %.40q is named twice", name)
		}
		h.Channels = append(h.Channels, Subscription{Channel: name, After: at, Start: start})
	}
	return h, nil
}

// ReadHello reads the body of a session request: a hello. Errors are *Refusals.
func ReadHello(w http.ResponseWriter, r *http.Request, limit int64, within time.Duration) (Hello, error) {
	body, err := ReadBody(w, r, limit, within)
	if err != nil {
		return Hello{}, err
	}
	return ParseHello(body)
}

// ReadBody reads a request's body, of at most so many bytes and within so long.
// Errors are *Refusals.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, within time.Duration) ([]byte, error) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(within)) // without it, the server's own bounds it
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, bodyRefusal(err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	return body, nil
}

func bodyRefusal(err error) *Refusal {
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Refuse(CodeTooLarge, "the body is longer than %d bytes", over.Limit)
	}
	return Refuse(CodeBadRequest, "the body could not be read")
}
