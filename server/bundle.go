package server

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

// The JavaScript client, as its build writes it (client-js).
var (
	//go:embed client.js
	clientModule []byte
	//go:embed call.js
	callModule []byte
	//go:embed presence.js
	presenceModule []byte
	//go:embed auth.js
	authModule []byte
	//go:embed history.js
	historyModule []byte
	//go:embed client.global.js
	clientGlobal []byte
)

// A bundle is a file of the client, with an ETag that changes with it.
type bundle struct {
	content []byte
	etag    string
}

var bundles = map[string]bundle{
	"client.js":        newBundle(clientModule),
	"call.js":          newBundle(callModule),
	"presence.js":      newBundle(presenceModule),
	"auth.js":          newBundle(authModule),
	"history.js":       newBundle(historyModule),
	"client.global.js": newBundle(clientGlobal),
}

func newBundle(content []byte) bundle {
	sum := sha256.Sum256(content)
	return bundle{content, `"` + hex.EncodeToString(sum[:8]) + `"`}
}

func (b bundle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("ETag", b.etag)
	h.Set("Cache-Control", "no-cache")        // kept, but asked about each time
	h.Set("Access-Control-Allow-Origin", "*") // it holds no secret
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.content))
}
