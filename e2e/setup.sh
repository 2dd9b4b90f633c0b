#!/bin/sh
# Makes sure that what the end-to-end tests run with is there: Chromium, nginx,
# haproxy, Redis and the driver's one package. Installs what it may, and says what it may not.
cd "$(dirname "$0")" || exit 1

have() { command -v "$1" >/dev/null || [ -x "/usr/bin/$1" ] || [ -x "/usr/sbin/$1" ]; }

missing=
for program in chromium nginx haproxy redis-server; do
    have "$program" || missing="$missing $program"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && have apt-get; then
    # Installed servers would be started, which nobody asked for.
    apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
fi

code=0
for program in chromium nginx haproxy redis-server; do
    have "$program" && continue
    echo "missing: $program, install with: apt-get install $program" >&2
    code=1
done

if ! have npm; then
    echo "missing: npm, install with: apt-get install npm" >&2
    code=1
elif ! cmp -s package-lock.json node_modules/.installed; then
    if npm ci --no-audit --no-fund --loglevel=error >&2; then
        cp package-lock.json node_modules/.installed
    else
        echo "missing: playwright-core, install with: npm --prefix e2e ci" >&2
        code=1
    fi
fi

# Without them the tests fail in CI, and are skipped elsewhere.
if [ $code != 0 ] && [ "$CI" != true ]; then
    echo "the end-to-end tests that need what is missing will be skipped" >&2
    exit 0
fi
exit $code
