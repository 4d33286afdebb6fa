#!/bin/sh
# Runs every fuzz test of both modules, one after the other: hack/fuzz.sh [TIME] [PATTERN]. TIME is for each, ten minutes by
# default; PATTERN is a part of "package/FuzzName". What a fuzzer finds is kept beside the test, in testdata/fuzz, and is a
# test case from then on.
set -eu
cd "$(dirname -- "$0")/.."
time="${1:-10m}"
pattern="${2:-}"
failed=""
for module in . sandbox; do
	for file in $(cd "$module" && grep -rl --include='*_test.go' '^func Fuzz' . | grep -v '^./sandbox/' | sort); do
		package="$(dirname "$file")"
		for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$module/$file"); do
			case "$module/$package/$name" in *"$pattern"*) ;; *) continue ;; esac
			echo "$package $name, $time"
			# Minimizing an input takes a minute otherwise, of each that is new.
			(cd "$module" && go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 5x "$package") ||
				failed="$failed $package/$name"
		done
	done
done
[ -z "$failed" ] || { echo "found something:$failed" >&2; exit 1; }
