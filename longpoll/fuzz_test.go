package longpoll

import (
	"errors"
	"testing"

	"github.com/throughline/throughline/transport"
)

func FuzzParseWait(f *testing.F) {
	for _, seed := range []string{"", "25s", "7", "1500ms", "-1s", "1e9s", "99999999999", "2h45m", "s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseWait(text)
		var r *transport.Refusal
		if err != nil && (!errors.As(err, &r) || r.Code != transport.CodeBadRequest) {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil && d < 0 {
			t.Errorf("%q is %v", text, d)
		}
	})
}
