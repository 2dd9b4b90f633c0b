# `make` alone is what a change has to pass. Every target installs what it
# needs, or says what is missing and how to install it.

SHELL := bash
.SHELLFLAGS := -o pipefail -ec

GO      ?= go
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint
GOTEST  := $(GO) test
FUZZ    ?= 2s
SEEDS   ?= 500

.PHONY: all fmt lint test unit client e2e conformance fuzz bench bench-quick load chaos screenshots build

all: lint test

fmt: ## format the Go code
	$(LINT) fmt

lint: ## vet, golangci-lint, module files
	$(GO) mod tidy -diff
	$(LINT) run
	cd bench && $(GO) mod tidy -diff && $(GO) vet ./...

# Everything that needs no minute-long run. Under 5 minutes.
test: unit client e2e

unit: ## Go tests, but for those that need a browser or nginx
	$(GOTEST) -race $$($(GO) list ./... | grep -v /e2e)
	cd bench && $(GOTEST) ./...

client: client-js/node_modules ## the JavaScript client: types, tests, size, and that the committed bundle is its own
	cd client-js && npm run --silent check && npm test --silent && npm run --silent size && npm run --silent verify

client-js/node_modules: client-js/package-lock.json
	@command -v npm >/dev/null || { echo "missing: npm, install with: apt-get install npm (Node 20 or newer)"; exit 1; }
	cd client-js && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

build: client-js/node_modules ## write the client's bundles into server/
	cd client-js && npm run --silent build

e2e: ## real Chromium, real nginx
	sh e2e/setup.sh
	$(GOTEST) -count=1 ./e2e

conformance: ## the suites, clause by clause, with what is n/a
	$(GOTEST) -count=1 -v -run 'Conformance|TestLog|TestStore|TestContract|TestSuite' ./conformance ./eventlog ./session ./sse ./ws ./longpoll | grep -E '^ *--- (FAIL|PASS|SKIP)|n/a|MUST|SHOULD|^(ok|FAIL|PASS)'

fuzz: ## each fuzz target for $(FUZZ)
	tools/fuzz.sh $(FUZZ) $$($(GO) list ./... | grep -v /e2e)

bench: ## against a bare write and centrifuge; about 3 minutes
	cd bench && $(GO) run .

bench-quick: ## the same in under a minute
	cd bench && $(GO) run . -quick

load: bench ## what takes minutes: the benchmark in full, and $(SEEDS) random schedules
	$(GOTEST) -count=1 -timeout 20m -run TestNothingIsLostWhateverHappens ./server -seeds $(SEEDS)

chaos: ## random schedules of cuts, carriers, trims and stalls, under the race detector
	$(GOTEST) -race -count=1 -timeout 30m -run TestNothingIsLostWhateverHappens ./server -seeds $(SEEDS)

screenshots: ## redo the pictures of the chat in docs/
	sh e2e/setup.sh
	node examples/chat/screenshots.mjs
