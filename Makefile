# `make` alone is what a change has to pass. Every target installs what it
# needs, or says what is missing and how to install it.

SHELL := bash
.SHELLFLAGS := -o pipefail -ec

GO      ?= go
LINT    := $(GO) tool -modfile=tools/go.mod golangci-lint
GOTEST  := $(GO) test
FUZZ    ?= 2s
SEEDS   ?= 500
# Hours of schedules, for which the race detector is too slow, and which it now and then
# ends with a fault of its own in a bubble (golang/go#78156).
HOURS := ^(TestNoHealthyReaderIsEvicted|TestReturnAfterAnHour)$$
# What proves the suites themselves: for make conformance.
SUITES := ^(TestSuiteCatches|TestSchedulesCatch|TestControlServers)
# Suites that make conformance runs, too: there without the race detector, with which
# they take minutes (make chaos).
TWICE := ^(TestServerConformance|TestConformance)$$
# Damaged files, on which the race detector ends the program.
DAMAGE := ^(TestDamage|TestPowerFailsWithoutSync)$$
RANDOM_SCHEDULES := ^(TestSchedules|TestUpstreamIsOnceInOrder|TestNoHealthyReaderIsEvicted|TestClientsByFacts)$$

.PHONY: all fmt lint test unit redis client e2e stores conformance fuzz bench bench-quick load load-quick chaos screenshots build

all: lint test

fmt: ## format the Go code
	$(LINT) fmt

lint: ## vet, also for macOS and Windows, golangci-lint, module files
	$(GO) mod tidy -diff
	$(LINT) run
	GOOS=darwin $(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	cd bench && $(GO) mod tidy -diff && $(GO) vet ./...
	cd load && $(GO) mod tidy -diff && $(GO) vet ./...
	cd docs/grafana && $(GO) mod tidy -diff && $(GOTEST) ./...

# Everything that needs no minute-long run. Under 6 minutes.
test: unit client stores e2e

unit: redis ## Go tests, but for those that need a browser or a proxy, and what proves the suites and the model (make conformance)
	@command -v ip >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq iproute2 >&2; } || echo "missing: ip, install with: apt-get install iproute2"
	$(GOTEST) -race -skip '$(HOURS)|$(SUITES)|$(TWICE)' $$($(GO) list ./... | grep -v -e /e2e -e /store/redis -e /examples/cluster -e /internal/redistest -e /model)
	$(GOTEST) -run '$(HOURS)' ./server
	$(GOTEST) -run '$(DAMAGE)' ./store/bolt
	cd bench && $(GOTEST) ./...
	cd load && $(GOTEST) ./...

redis: ## install Redis, where it is not there
	@command -v redis-server >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq redis-server >&2; } || echo "missing: redis-server, install with: apt-get install redis-server"

stores: redis ## what needs real Redis, but for the suites (make conformance): replay, trouble, failovers, and three nodes that are killed
	$(GOTEST) -race -count=1 -skip 'Conformance' ./store/redis ./e2e/cluster ./internal/redistest ./examples/cluster

client: client-js/node_modules ## the JavaScript client: types, tests, size, and that the committed bundle is its own
	cd client-js && npm run --silent check && npm test --silent && npm run --silent size && npm run --silent verify

client-js/node_modules: client-js/package-lock.json
	@command -v npm >/dev/null || { echo "missing: npm, install with: apt-get install npm (Node 20 or newer)"; exit 1; }
	cd client-js && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

build: client-js/node_modules ## write the client's bundles into server/
	cd client-js && npm run --silent build

e2e: ## real Chromium, real nginx and haproxy
	sh e2e/setup.sh
	$(GOTEST) -count=1 -parallel 4 ./e2e

# Broken parts meet all clauses with -all, and otherwise their own and one of each
# other group.
BITE ?= -all

conformance: redis ## the suites clause by clause, on the terminal and in build/conformance.html; parts broken on purpose; the model
	@mkdir -p build
	{ $(GOTEST) -count=1 -json -run 'Conformance|TestContract' ./store/redis ./conformance ./eventlog ./session ./sse ./ws ./longpoll ./store/bolt ./examples/ndjson || failed=1; \
	  $(GOTEST) -count=1 -json -timeout 20m -run '$(SUITES)' ./conformance $(BITE) || failed=1; \
	  $(GOTEST) -count=1 -json -run '^TestSchedules$$' ./conformance -seeds 1000 || failed=1; \
	  $(GOTEST) -count=1 -json -run '^TestPowerFails' ./store/bolt -crashes 200 || failed=1; \
	  $(GOTEST) -count=1 -json ./model || failed=1; \
	  exit $${failed:-0}; } | $(GO) run ./conformance/report -json build/conformance.json -html build/conformance.html

fuzz: ## each fuzz target for $(FUZZ)
	tools/fuzz.sh $(FUZZ) $$($(GO) list ./... | grep -v /e2e)

bench: redis ## against a bare write and centrifuge, and in Redis, about 6 minutes; the logs, in memory and in a file, another 4
	cd bench && $(GO) run .
	cd bench && $(GO) run . redis
	$(GOTEST) -run '^$$' -bench 'Retained|BenchmarkAppend|BenchmarkFile|BenchmarkChannels' ./eventlog ./store/bolt

bench-quick: redis ## the same in under a minute and a half
	cd bench && $(GO) run . -quick
	cd bench && $(GO) run . redis -quick

load: bench ## what takes minutes: the benchmark in full, 10,000 clients, 1000 beside bad ones, 10,000 of whom some are slow, and $(SEEDS) random schedules
	cd load && $(GO) run .
	$(GOTEST) -count=1 -timeout 20m -run '$(RANDOM_SCHEDULES)' ./breaker ./server ./conformance -seeds $(SEEDS)

load-quick: redis ## 2000 clients, also with their node killed, 1000 beside bad ones, and 2000 of whom some are slow, in 2 min
	cd load && $(GO) run . -quick

chaos: redis ## random schedules of cuts, carriers, trims and stalls, and many nodes on Redis for 3 min, under the race detector
	$(GOTEST) -race -count=1 -timeout 30m -run '$(RANDOM_SCHEDULES)' -skip '$(HOURS)' ./breaker ./server ./conformance -seeds $(SEEDS)
	$(GOTEST) -count=1 -timeout 30m -run '$(HOURS)' ./server -seeds $(SEEDS)
	$(GOTEST) -race -count=1 -timeout 30m -run 'Conformance' ./conformance ./store/redis
	$(GOTEST) -race -count=1 -v ./e2e/cluster -for 60s

screenshots: ## redo the pictures of the chat in docs/
	sh e2e/setup.sh
	node examples/chat/screenshots.mjs
