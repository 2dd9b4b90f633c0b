package conformance

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/throughline/throughline/internal/wireclient"
)

// An httpAnswer is what a request was answered with.
type httpAnswer struct {
	status int
	header http.Header
	text   string
}

// request makes a request below the base of a site; headers are names, each
// followed by its value. The response's body is the caller's, who has to read it
// within the time of the context.
func (s *site) request(ctx context.Context, hc *http.Client, method, path, body string, headers ...string) (*http.Response, error) {
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.base+path, content)
	if err != nil {
		return nil, err
	}
	for h := range slices.Chunk(headers, 2) {
		r.Header.Add(h[0], h[1])
	}
	return hc.Do(r)
}

// tryAsk is askAt for the goroutines of a clause.
func (s *site) tryAsk(ctx context.Context, hc *http.Client, method, path, body string, headers ...string) (httpAnswer, error) {
	r, err := s.request(ctx, hc, method, path, body, headers...) //nolint:bodyclose // readAnswer closes it
	if err != nil {
		return httpAnswer{}, err
	}
	return readAnswer(r)
}

// readAnswer reads a response to its end.
func readAnswer(r *http.Response) (httpAnswer, error) {
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	return httpAnswer{r.StatusCode, r.Header, string(text)}, err
}

// ask makes a request whose answer ends by itself, and has to come.
func (c *serverCheck) ask(hc *http.Client, method, path, body string, headers ...string) httpAnswer {
	return c.askAt(c.site, hc, method, path, body, headers...)
}

func (c *serverCheck) askAt(s *site, hc *http.Client, method, path, body string, headers ...string) httpAnswer {
	ctx, cancel := context.WithTimeout(c.ctx, c.patience())
	defer cancel()
	a, err := s.tryAsk(ctx, hc, method, path, body, headers...)
	if err != nil {
		c.fatalf("%s %.100s of %.100q was not answered within %s: %v, after %d %.200q", method, path, body, c.waited(), err, a.status, a.text)
	}
	return a
}

// begin posts a body, and returns the response to be read.
func (c *serverCheck) begin(ctx context.Context, hc *http.Client, path, body string, headers ...string) *http.Response {
	r, err := c.request(ctx, hc, http.MethodPost, path, body, headers...)
	if err != nil {
		c.fatalf("POST %.100s of %.100q was not answered: %v", path, body, err)
	}
	return r
}

var codeText = regexp.MustCompile(`^[a-z0-9_]{1,50}$`)

// refusal reads the answer to a request that has to be refused, and checks its
// form (P8.1).
func (c *serverCheck) refusal(what string, a httpAnswer) (why wireclient.Reason) {
	var body struct {
		Error map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.text), &body); err != nil || body.Error == nil || a.status < 400 {
		c.errorf("%s was answered with %d and %.200q, not with a refusal: %v", what, a.status, a.text, err)
		return why
	}
	text, _ := json.Marshal(body.Error)
	if err := json.Unmarshal(text, &why); err != nil || !codeText.MatchString(why.Code) || !slices.Contains([]string{"now", "later", "never"}, why.Class) {
		c.errorf("%s: the refusal %.200s has no code and class as they should be: %v", what, text, err)
	}
	_, hasAfter := body.Error["after"]
	retry := a.header.Get("Retry-After")
	if later := why.Class == "later"; hasAfter != later || (retry != "") != later {
		c.errorf("%s: the refusal %.200s has Retry-After %q; only class later has a delay, and it is said by both", what, text, retry)
	} else if seconds, err := strconv.ParseInt(retry, 10, 64); later && (err != nil || seconds*1000 < why.After || seconds > 1 && (seconds-1)*1000 >= why.After) {
		c.errorf("%s: the refusal says after %d ms, and Retry-After %q", what, why.After, retry)
	}
	return why
}

// refusedAs checks status, code and class of a refusal.
func (c *serverCheck) refusedAs(what string, a httpAnswer, status int, code, class string) wireclient.Reason {
	why := c.refusal(what, a)
	if why.Code != "" && (a.status != status || why.Code != code || why.Class != class) {
		c.errorf("%s was refused with %d %q, class %q, not with %d %q, class %q", what, a.status, why.Code, why.Class, status, code, class)
	}
	return why
}

// refusedInWords is refusedAs for refusals of the server's own, which say what is
// wrong.
func (c *serverCheck) refusedInWords(what string, a httpAnswer, status int, code, class string) wireclient.Reason {
	why := c.refusedAs(what, a, status, code, class)
	if why.Code == code && why.Message == "" {
		c.errorf("%s was refused with %d %.200q, without a message", what, a.status, a.text)
	}
	return why
}
