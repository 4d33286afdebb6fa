#!/bin/sh
# What golangci-lint cannot see: the size of files, the names of packages, the number of make targets. Every rule has
# its reason on its own line, and no exceptions file.
set -eu
cd "$(dirname -- "$0")/.."

bad=0
# complain RULE, with the offenders on stdin: prints them under the rule and fails if there are any.
complain() {
	offenders="$(cat)"
	[ -n "$offenders" ] || return 0
	printf '%s\n' "$1" "$offenders" | sed '2,$s/^/  /' >&2
	return 1
}

# Tracked and new files alike, so that a rule speaks before the commit; deleted ones are gone from disk.
go_files() {
	git ls-files --cached --others --exclude-standard -- '*.go' | sort -u | while read -r file; do
		case "$file" in *zz_generated*) continue ;; esac
		[ ! -f "$file" ] || echo "$file"
	done
}

go_files | grep -v '_test\.go$' | while read -r file; do
	lines="$(wc -l <"$file")"
	[ "$lines" -le 500 ] || echo "$file: $lines lines"
done | complain "a file over 500 lines is two concepts; split it:" || bad=1

go_files | xargs -r -n 1 dirname | sort -u | grep -E '(^|/)(util|utils|common|helper|helpers|misc)$' |
	complain "a package is named by its concept, never util, common, helper or misc:" || bad=1

find cmd -name main.go 2>/dev/null | while read -r file; do
	lines="$(wc -l <"$file")"
	[ "$lines" -le 100 ] || echo "$file: $lines lines"
done | complain "main parses flags and runs a testable object; over 100 lines it does more:" || bad=1

go_files | xargs -r grep -nE '\bt\.Skip(Now)?\(\)' |
	complain "a skipped test prints its reason: t.Skip(\"why\") or t.Skipf, and never t.SkipNow:" || bad=1

git ls-files --cached --others --exclude-standard -- '*.md' | sort -u | while read -r file; do
	[ -f "$file" ] || continue
	grep -oE '\]\([^)#: ]+[)#]' "$file" | sed 's/^](//; s/[)#]$//' | while read -r link; do
		[ -e "$(dirname "$file")/$link" ] || echo "$file: $link"
	done
done | complain "a link in the documentation leads nowhere:" || bad=1

targets="$(grep -cE '^[a-z]+:.*## ' Makefile)"
[ "$targets" -le 10 ] || echo "$targets targets" | complain "make help has ten lines at most:" || bad=1

exit "$bad"
