package transport_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/throughline/throughline/transport"
)

// What a client says is read by one parser for all transports, and what is
// wrong with it has a code for programs and words for people.
func ExampleParseUp() {
	up, err := transport.ParseUp([]byte(`{"subscribe":[{"channel":"news"}]}`))
	fmt.Println(up.Frame.Channels[0].Channel, err)

	_, err = transport.ParseUp([]byte(`{"subscribe":[{"channel":}`))
	var refused *transport.Refusal
	fmt.Println(errors.As(err, &refused), refused.Code)
	// Output:
	// news <nil>
	// true bad_request
}

// A refusal is answered in the same form on every path.
func ExampleWriteRefusal() {
	w := httptest.NewRecorder()
	transport.WriteRefusal(w, transport.RefuseFor(2*time.Second, transport.CodeUnavailable, "the log does not answer"))
	fmt.Println(w.Code, w.Header().Get("Retry-After"))
	fmt.Print(w.Body)
	// Output:
	// 503 2
	// {"error":{"code":"unavailable","class":"later","after":2000,"message":"the log does not answer"}}
}
