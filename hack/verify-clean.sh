#!/bin/sh
# Fails when the working tree differs from HEAD, and shows how. `make verify` runs it after regenerating, so that
# generated files are always those of the sources beside them.
set -eu
cd "$(dirname -- "$0")/.."

dirty="$(git status --porcelain --untracked-files=all)"
[ -z "$dirty" ] && exit 0
{
	echo "the working tree is dirty; commit what make generate wrote, or the rest of your change:"
	echo "$dirty"
	git --no-pager diff --stat
} >&2
exit 1
