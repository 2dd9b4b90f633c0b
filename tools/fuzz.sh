#!/usr/bin/env bash
# Runs each fuzz target of these packages for a while: fuzz.sh 2s ./a ./b …
#
# Before Go 1.27 the fuzzer sometimes fails with nothing but "context deadline
# exceeded" when its own time is over (golang/go#75804). That alone is no
# finding; a finding names a failing input or panics, and fails.
set -euo pipefail
time=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

for package in "$@"; do
	for target in $(go test -list '^Fuzz' "$package" | grep ^Fuzz || true); do
		code=0
		go test -run XXX -fuzz "^$target\$" -fuzztime "$time" "$package" >"$log" 2>&1 || code=$?
		if [ "$code" != 0 ] && ! { grep -q '^ *context deadline exceeded$' "$log" && ! grep -qiE 'failing input|panic|_test.go:' "$log"; }; then
			cat "$log"
			exit 1
		fi
		echo "$package $target: $(grep -oE 'execs: [0-9]+' "$log" | tail -n 1)"
	done
done
