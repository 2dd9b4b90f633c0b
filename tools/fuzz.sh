#!/usr/bin/env bash
# Runs each fuzz target of these packages for a while: fuzz.sh 2s ./a ./b …
#
# Each package is built once for all its targets. Inputs that reach new code are
# kept where go test -fuzz keeps them.
#
# Before Go 1.27 the fuzzer sometimes fails with nothing but "context deadline
# exceeded" when its own time is over (golang/go#75804). That alone is no
# finding; a finding names a failing input or panics, and fails.
set -euo pipefail
time=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz
log=$work/log

for package in "$@"; do
	read -r dir path < <(go list -f '{{.Dir}} {{.ImportPath}}' "$package")
	grep -qs '^func Fuzz' "$dir"/*_test.go || continue
	go test -c -fuzz Fuzz -o "$work/test" "$package"
	for target in $(cd "$dir" && "$work/test" -test.list '^Fuzz'); do
		code=0
		(cd "$dir" && "$work/test" -test.run XXX -test.fuzz "^$target\$" -test.fuzztime "$time" -test.fuzzcachedir "$cache/$path") >"$log" 2>&1 || code=$?
		if [ "$code" != 0 ] && ! { grep -q '^ *context deadline exceeded$' "$log" && ! grep -qiE 'failing input|panic|_test.go:' "$log"; }; then
			cat "$log"
			exit 1
		fi
		echo "$package $target: $(grep -oE 'execs: [0-9]+' "$log" | tail -n 1)"
	done
done
