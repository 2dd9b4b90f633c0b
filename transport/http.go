package transport

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the adapters share because each of them begins as an HTTP request. The
// engine uses none of it.

// statuses are those of PROTOCOL P8.3; other codes are 400, or 503 with class
// Later.
var statuses = map[string]int{
	CodeTooLarge:      http.StatusRequestEntityTooLarge,
	CodeBadEncoding:   http.StatusUnsupportedMediaType,
	CodeUnauthorized:  http.StatusUnauthorized,
	CodeExpired:       http.StatusUnauthorized,
	CodeForbidden:     http.StatusForbidden,
	CodeForeignOrigin: http.StatusForbidden,
	CodeNotFound:      http.StatusNotFound,
	CodeStale:         http.StatusConflict,
	CodeBusy:          http.StatusServiceUnavailable,
	CodeSlowConsumer:  http.StatusServiceUnavailable,
	CodeBrokenCarrier: http.StatusServiceUnavailable,
	CodeRateLimited:   http.StatusTooManyRequests,
	CodeUnavailable:   http.StatusServiceUnavailable,
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
	} else if r.Class == Later {
		status = http.StatusServiceUnavailable
	}
	WriteRefusalStatus(w, status, r)
}

// WriteRefusalStatus is WriteRefusal with a status other than the usual one of
// the code.
func WriteRefusalStatus(w http.ResponseWriter, status int, r *Refusal) {
	if r.Class == Later {
		seconds := (r.After.Truncate(time.Millisecond) + time.Second - 1) / time.Second // of what the body says
		w.Header().Set("Retry-After", strconv.Itoa(int(max(seconds, 1))))
	}
	WriteJSON(w, status, append(AppendReasonJSON([]byte(`{"error":`), r.Reason), "}\n"...))
}

// WriteJSON answers a request with JSON that nobody may keep.
func WriteJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Cache-Control", "no-store")
	WriteBody(w, status, body)
}

// WriteBody answers a request with JSON, as the headers say that are set.
func WriteBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell
}

// PlainHello reads the query of a plain request: its channels and filter. All of
// them begin after the same, which is usually the query's "after". Errors are
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
	filter, err := filterOf(r.URL.Query()).parse()
	if err != nil {
		return Hello{}, err
	}
	var h Hello
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return Hello{}, Refuse(CodeBadRequest, "channel %.40q is named twice", name)
		}
		h.Channels = append(h.Channels, Subscription{Channel: name, After: at, Start: start, Filter: filter})
	}
	return h, nil
}

// ReadHello reads the body of a session request: a hello. Errors are *Refusals.
func ReadHello(w http.ResponseWriter, r *http.Request, limit int64, within time.Duration) (Hello, error) {
	body, err := ReadBody(w, r, limit, "MaxFrame", within)
	if err != nil {
		return Hello{}, err
	}
	return ParseHello(body)
}

// ReadBody reads a request's body, of at most so many bytes, as the option says
// that is named, and within so long. Errors are *Refusals.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, option string, within time.Duration) ([]byte, error) {
	if err := checkEncoding(w, r); err != nil {
		return nil, err
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(within)) // without it, the server's own bounds it
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, bodyRefusal(err, option, within)
	}
	_ = rc.SetReadDeadline(time.Time{})
	return body, nil
}

// checkEncoding refuses bodies that are compressed: their bound would say
// nothing of what they unpack to. RFC 9110 §12.5.3 has the answer say what
// is taken.
func checkEncoding(w http.ResponseWriter, r *http.Request) error {
	for _, coding := range r.Header.Values("Content-Encoding") {
		if !strings.EqualFold(coding, "identity") {
			w.Header().Set("Accept-Encoding", "identity")
			return Refuse(CodeBadEncoding, "a body comes as it is, without the Content-Encoding %.40q", coding)
		}
	}
	return nil
}

func bodyRefusal(err error, option string, within time.Duration) *Refusal {
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Refuse(CodeTooLarge, "the body is longer than %d bytes (Options.%s)", over.Limit, option)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Refuse(CodeBadRequest, "the body did not come within %v (Options.HelloTimeout)", within)
	}
	return Refuse(CodeBadRequest, "the body could not be read")
}
