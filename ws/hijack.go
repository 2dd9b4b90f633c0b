package ws

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A hijacker hands the library a gate in place of the connection. The library
// writes the status 101 before it knows whether there is a connection to be had;
// this keeps it back until then, so that there is another answer if there is
// none, and writes it itself, as some middlewares never would.
type hijacker struct {
	http.ResponseWriter
	gate *gate

	refused bool // there is no connection, and nothing was answered
	silent  bool // what the library says of its own to that isn't said
}

// controlBuffer makes the library write each control frame (at most 127 bytes
// by RFC 6455 §5.5) in one call.
const controlBuffer = 128

// WriteHeader implements [http.ResponseWriter], as does Write.
func (h *hijacker) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols && !h.silent {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *hijacker) Write(b []byte) (int, error) {
	if h.silent {
		return len(b), nil
	}
	return h.ResponseWriter.Write(b)
}

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		h.refused, h.silent = true, true
		h.forget()
		return nil, nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(h.gate.timeout)) // in place of those of the server
	if err := h.switchProtocols(raw); err != nil {
		h.silent = true
		_ = raw.Close()
		return nil, nil, err
	}
	_ = raw.SetDeadline(time.Time{})
	h.gate.Conn = raw
	return h.gate, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.gate, controlBuffer)), nil
}

// switchProtocols answers the handshake (RFC 6455 §4.2.2).
func (h *hijacker) switchProtocols(raw net.Conn) error {
	w := bufio.NewWriter(raw)
	_, _ = fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", http.StatusSwitchingProtocols, http.StatusText(http.StatusSwitchingProtocols))
	_ = h.Header().Write(w)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// forget takes the library's headers back.
func (h *hijacker) forget() {
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Accept"} {
		h.Header().Del(name)
	}
}
