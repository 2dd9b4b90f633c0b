// Package e2e holds the end-to-end tests: real pages in a real Chromium, the
// real server, and nginx between them. The tests are written and judged in Go;
// driver.mjs only moves the browser, and testdata/page.js is what the pages do.
//
// setup.sh says or installs what they need.
package e2e
