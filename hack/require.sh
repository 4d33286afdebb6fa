#!/bin/sh
# Says in one line what this machine lacks, before a build fails less clearly half way through.
set -eu
cd "$(dirname -- "$0")/.."

want="$(sed -n 's/^go //p' go.mod)"
missing=""
add() { missing="$missing${missing:+; }$1"; }

if ! command -v go >/dev/null 2>&1; then
	add "Go $want or later"
else
	have="$(GOTOOLCHAIN=local go env GOVERSION)"
	have="${have#go}"
	oldest="$(printf '%s\n%s\n' "$want" "${have%% *}" | sort -V | head -n 1)"
	[ "$oldest" = "$want" ] || [ "$(go env GOTOOLCHAIN)" != local ] || add "Go $want or later (this is $have)"
fi
command -v gcc >/dev/null 2>&1 || add "gcc and libc headers (the race detector and the NVML helper need cgo; Debian: apt-get install gcc libc6-dev)"
command -v git >/dev/null 2>&1 || add "git (Debian: apt-get install git)"

[ -z "$missing" ] || { echo "missing: $missing" >&2; exit 1; }
