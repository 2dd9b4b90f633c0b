package jwtauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

// An issuer has the keys of a JWKS. One goroutine fetches them; a request never
// does, so that one that is given up takes nothing from others. It has them
// fetched, though, and waits.
type issuer struct {
	// Static after newIssuer.
	url        string
	client     *http.Client
	algorithms []string
	interval   time.Duration // Options.RefreshInterval
	minRefetch time.Duration
	timeout    time.Duration
	maxBytes   int64
	log        *slog.Logger
	cancel     context.CancelFunc
	done       chan struct{} // closed when run has ended
	wake       chan struct{} // has run fetch at once; holds one

	mu sync.Mutex
	// Guarded by mu.
	set    keySet
	failed bool          // the last fetch did
	asked  time.Time     // when a token last had keys fetched
	flight chan struct{} // closed when the fetch that is under way ends; nil: none is
}

func newIssuer(o Options) (*issuer, error) {
	address, err := url.Parse(o.JWKS)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // without the address, which may hold a password
	}
	if err != nil {
		return nil, fmt.Errorf("jwtauth: JWKS is no address: %w", err)
	}
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("jwtauth: JWKS %s: %w", address.Redacted(), err)
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DisableKeepAlives:      true, // it is not used again for long
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &issuer{
		url:        o.JWKS,
		client:     &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect},
		algorithms: o.Algorithms,
		interval:   o.RefreshInterval,
		minRefetch: o.MinRefetch,
		timeout:    o.FetchTimeout,
		maxBytes:   o.MaxJWKS,
		log:        o.Logger,
		cancel:     cancel,
		done:       make(chan struct{}),
		wake:       make(chan struct{}, 1),
		flight:     make(chan struct{}), // who comes before the first fetch waits for it
	}
	go i.run(ctx)
	return i, nil
}

// checkAddress: what comes without TLS may be anybody's keys.
func checkAddress(u *url.URL) error {
	ip, _ := netip.ParseAddr(u.Hostname())
	switch {
	case u.User != nil:
		return errors.New("it holds a password, which logs would show")
	case u.Hostname() == "":
		return errors.New("it names no host")
	case u.Scheme == "https", u.Scheme == "http" && (u.Hostname() == "localhost" || ip.IsLoopback()):
		return nil
	}
	return errors.New("it is not https, nor http of a loopback host")
}

// checkRedirect is what http.Client asks before it follows one.
func checkRedirect(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) > 3:
		return errors.New("more than 3 redirects")
	case next.URL.Scheme != via[0].URL.Scheme:
		return errors.New("a redirect to another scheme")
	}
	return checkAddress(next.URL)
}

func (i *issuer) close() {
	i.cancel()
	<-i.done
}

// find returns the keys to try for a token. If its key isn't known, it waits for
// the fetch that is under way, or for one of its own if MinRefetch allows.
func (i *issuer) find(ctx context.Context, kid, alg string) ([]any, error) {
	i.mu.Lock()
	found, known := i.set.find(kid, alg)
	if !known {
		i.ask()
		flight := i.flight
		if i.failed && len(i.set.keys) > 0 {
			flight = nil // the issuer is away: who waits for it holds up others
		}
		i.mu.Unlock()
		i.wait(ctx, flight)
		i.mu.Lock()
		found, known = i.set.find(kid, alg)
	}
	none, failed := len(i.set.keys) == 0, i.failed || i.flight != nil
	i.mu.Unlock()
	switch {
	case len(found) > 0:
		return found, nil
	case known:
		return nil, errOtherAlgorithm
	case none:
		return nil, errNoKeys
	case failed:
		return nil, errMaybeNewKey
	}
	return nil, errUnknownKey
}

var (
	errNoKeys      = &refusal{kind: ErrUnavailable, why: "they were not to be fetched yet, or were all taken back"}
	errMaybeNewKey = &refusal{kind: ErrUnavailable, why: "the token's is not among those that were had, and may be new"}
)

// ask has the keys fetched, unless that is under way, or was asked for less than
// MinRefetch ago: whoever sends tokens with made-up kids must not be able to
// have the issuer flooded. mu must be held.
func (i *issuer) ask() {
	now := time.Now()
	if i.flight != nil || (!i.asked.IsZero() && now.Sub(i.asked) < i.minRefetch) {
		return
	}
	i.asked = now
	i.flight = make(chan struct{})
	i.wake <- struct{}{} // there is room: run empties it before a flight ends
}

// wait waits until a fetch ends, if there is one.
func (i *issuer) wait(ctx context.Context, flight chan struct{}) {
	if flight == nil {
		return
	}
	select {
	case <-flight:
	case <-ctx.Done():
	case <-i.done:
	}
}

// run fetches the keys, at once and then again and again.
func (i *issuer) run(ctx context.Context) {
	defer close(i.done)
	failures := 0
	for {
		err := i.refresh(ctx)
		if ctx.Err() != nil {
			return
		}
		failures = i.report(err, failures)
		timer := time.NewTimer(i.delay(failures))
		select {
		case <-timer.C:
		case <-i.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// delay is until the next fetch, after so many failures in a row.
func (i *issuer) delay(failures int) time.Duration {
	d := i.interval
	if failures > 0 {
		d = min(time.Second<<min(failures-1, 20), i.minRefetch, i.interval)
	}
	return d - rand.N(d/10+1)
}

// report logs the first failure of a row, and its end. It returns how many
// failures there were in a row.
func (i *issuer) report(err error, failures int) int {
	switch {
	case err != nil && failures == 0:
		i.log.Warn("keys not fetched", "url", i.url, "error", err)
	case err == nil && failures > 0:
		i.log.Info("keys fetched again", "url", i.url, "failures", failures)
	}
	if err != nil {
		return failures + 1
	}
	return 0
}

// refresh fetches the keys once, and puts them in place.
func (i *issuer) refresh(ctx context.Context) error {
	i.mu.Lock()
	if i.flight == nil {
		i.flight = make(chan struct{})
	}
	select {
	case <-i.wake: // asked for, and when the timer fired: one is enough
	default:
	}
	i.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	keys, err := i.fetch(ctx)

	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil {
		i.set = keySet{keys: keys}
		if len(keys) == 0 {
			err = errors.New("none of its keys can be used")
		}
	}
	i.failed = err != nil
	close(i.flight)
	i.flight = nil
	return err
}

// fetch returns the keys that the issuer has now, of those that can be used.
func (i *issuer) fetch(ctx context.Context) ([]key, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := i.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer answered %d, not 200", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, i.maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("its answer broke off: %w", err)
	}
	if int64(len(text)) > i.maxBytes {
		return nil, fmt.Errorf("its answer is longer than %d bytes", i.maxBytes)
	}
	return i.parse(text)
}

// parse reads a JWK Set. A key that can't be used is left out, whatever is wrong
// with it: it must not take the others with it (RFC 7517 §5).
func (i *issuer) parse(text []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("its answer is no JWK Set: %w", err)
	}
	if set.Keys == nil {
		return nil, errors.New("its answer is no JWK Set: there is no list of keys")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("its answer has %d keys, more than %d", len(set.Keys), maxKeys)
	}
	var keys []key
	for n, raw := range set.Keys {
		k, err := parseKey(raw, i.algorithms)
		if err != nil {
			i.log.Debug("key not used", "url", i.url, "number", n+1, "error", err)
			continue
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// parseKey reads a JWK, if it is a public key that verifies signatures by one of
// the algorithms.
func parseKey(raw json.RawMessage, names []string) (key, error) {
	var jwk jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return key{}, err
	}
	switch {
	case jwk.USE != "" && jwk.USE != jwkset.UseSig: // RFC 7517 §4.2
		return key{}, errors.New("its use is not sig")
	case jwk.KEYOPS != nil && !slices.Contains(jwk.KEYOPS, jwkset.KeyOpsVerify): // §4.3
		return key{}, errors.New("its key_ops don't hold verify")
	case jwk.KTY == jwkset.KtyOct || jwk.K != "":
		return key{}, errors.New("it is symmetric, so that all who see it can sign by it")
	case jwk.D != "":
		return key{}, errors.New("its private half is there, so that all who see it can sign by it")
	}
	if jwk.ALG != "" { // §4.4
		if !slices.Contains(names, string(jwk.ALG)) {
			return key{}, errors.New("its alg is not one of Algorithms")
		}
		names = []string{string(jwk.ALG)}
	}
	// Only the key itself is read. Certificates that come along are left out:
	// who the key is of is known from where it was fetched.
	bare := jwkset.JWKMarshal{KTY: jwk.KTY, CRV: jwk.CRV, X: jwk.X, Y: jwk.Y, N: jwk.N, E: jwk.E}
	parsed, err := jwkset.NewJWKFromMarshal(bare, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key{}, err
	}
	k, fits := newKey(jwk.KID, parsed.Key(), names)
	if !fits {
		return key{}, fmt.Errorf("it fits none of the algorithms: %s", describe(parsed.Key()))
	}
	return k, nil
}
