#!/usr/bin/env bash
# Builds bin/roundhouse-controlplane: the kube-apiserver, etcd, kube-scheduler and
# kube-controller-manager that the sandbox and the tests run.
#
# A cold build takes about six minutes on two cores, so nothing is done when bin/
# already holds a binary of the same inputs: the command's source, the versions of
# the modules that are linked in, the Go release and the link flags. An edit
# elsewhere in the repository never changes those.
#
# There is no -trimpath: with it the compiler's cache could not be shared with
# `go vet` and `go test` in sandbox/, which would compile Kubernetes a second time.
#
# CGO_ENABLED is what the Makefile exports, for the same reason.
#
# The version that the components report comes from sandbox/go.mod and must be set at
# link time: a server that reports v0.0.0 is refused by kubectl and by every client
# that looks at the minor version.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/bin/roundhouse-controlplane
stamp=$root/bin/.roundhouse-controlplane.stamp
pkg=./cmd/roundhouse-controlplane
cd "$root/sandbox"
export CGO_ENABLED=0

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
major=${version#v} major=${major%%.*}
minor=${version#v*.} minor=${minor%%.*}
base=k8s.io/component-base/version
# The module proxy does not say which commit a version is, so gitCommit names the
# module: better a true name than an invented hash.
ldflags="-s -w -X $base.gitVersion=$version -X $base.gitMajor=$major -X $base.gitMinor=$minor"
ldflags+=" -X $base.gitCommit=module-$version -X $base.gitTreeState=clean"

inputs=$(
	go version
	echo "$ldflags CGO_ENABLED=$CGO_ENABLED"
	go list -deps -f '{{with .Module}}{{with .Replace}}{{.Path}} {{.Version}}{{else}}{{.Path}} {{.Version}}{{end}}{{end}}' "$pkg" | sort -u
	cat "$pkg"/main.go
)
want=$(printf '%s' "$inputs" | git hash-object --stdin)
if [[ -x $out && -f $stamp && $(<"$stamp") == "$want" ]]; then
	exit 0
fi

echo "building bin/roundhouse-controlplane (Kubernetes $version; about six minutes the first time)" >&2
mkdir -p "$root/bin"
# Linked beside its place and then moved, so that a running control plane keeps its
# file and an interrupted build leaves nothing half-written.
tmp=$(mktemp "$root/bin/.roundhouse-controlplane.XXXXXX")
trap 'rm -f "$tmp"' EXIT
go build -buildvcs=false -ldflags "$ldflags" -o "$tmp" "$pkg"
chmod 755 "$tmp"
mv -f "$tmp" "$out"
printf '%s\n' "$want" >"$stamp"
