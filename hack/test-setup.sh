#!/bin/sh
# Makes ready what the tests run that Go does not build: QEMU from the distribution, and, downloaded and unpacked into
# this clone's ignored .cache, never installed, Debian's cloud kernel for sandbox/vm, and Alertmanager, whose command
# cannot be built from its Go module. Run it as often as you like: a second run does nothing.
# It needs a Debian-like machine with apt, and root or sudo for the one package it installs.
set -eu

cache="$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/.cache"

fail() {
	echo "test-setup: $*" >&2
	exit 1
}

# need_apt fails unless the tools are there that fetch what is missing.
need_apt() {
	for tool in apt-get apt-cache dpkg-deb; do
		command -v "$tool" >/dev/null 2>&1 || fail "missing: $1, and $tool to fetch it"
	done
}

# as_root runs its arguments with the rights that apt-get install and update need.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		fail "missing: root or sudo, to run: $*"
	fi
}

# refresh brings apt's lists up to date, once in a run: a fresh machine or container has none, and old ones name
# versions that the mirror has since replaced.
refreshed=no
refresh() {
	[ "$refreshed" = no ] || return 0
	refreshed=yes
	as_root apt-get update -qq >/dev/null || fail "apt-get update failed: is a package mirror reachable?"
}

# twice tries a command, and again after refreshing apt's lists. Its output is kept for the case that both fail.
twice() {
	"$@" >"$log" 2>&1 && return 0
	refresh
	"$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

# kernel_package prints the real package behind the linux-image-cloud-amd64 meta-package.
kernel_package() {
	apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

install_packages() {
	missing=""
	command -v qemu-system-x86_64 >/dev/null 2>&1 || missing="$missing qemu-system-x86"
	command -v mke2fs >/dev/null 2>&1 || [ -x /sbin/mke2fs ] || missing="$missing e2fsprogs"
	[ -n "$missing" ] || return 0
	need_apt "${missing# }"
	[ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1 || fail "missing:$missing, and root or sudo to install it"
	echo "test-setup: installing$missing"
	# shellcheck disable=SC2086 # one word a package is meant
	twice as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing ||
		fail "missing:$missing, and apt-get could not install it"
}

# unpack FOLDER PACKAGE NAME downloads a package and unpacks it into .cache/FOLDER/NAME; .cache/FOLDER/.ready then names
# it. What was cut off in the middle is done again.
unpack() {
	echo "test-setup: downloading $2"
	rm -rf "$cache/$1"
	mkdir -p "$cache/$1/download" "$cache/$1/$3"
	cd "$cache/$1/download"
	# apt drops to the user _apt to download, who may not write here when root owns the folder.
	twice apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$2" || fail "missing: $2, and apt-get could not download it"
	dpkg-deb -x "$2"_*.deb "$cache/$1/$3"
	cd "$cache"
	rm -rf "$cache/$1/download"
	echo "$2" >"$cache/$1/.ready"
}

unpack_kernel() {
	[ ! -e "$cache/vm/.ready" ] || return 0
	need_apt "a Debian cloud kernel in .cache/vm/kernel"
	package="$(kernel_package)"
	if [ -z "$package" ]; then
		refresh
		package="$(kernel_package)"
	fi
	[ -n "$package" ] || fail "missing: a package linux-image-cloud-amd64 in apt's lists (only Debian on amd64 has it)"
	unpack vm "$package" kernel
}

unpack_alertmanager() {
	[ ! -e "$cache/alertmanager/.ready" ] || return 0
	need_apt "Debian's prometheus-alertmanager in .cache/alertmanager"
	unpack alertmanager prometheus-alertmanager root
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "missing: Linux on x86_64, this is $(uname -sm)"
mkdir -p "$cache"
log="$cache/test-setup.log"
install_packages
unpack_kernel
unpack_alertmanager
rm -f "$log"
echo "test-setup: ready: $(qemu-system-x86_64 --version | head -n 1), $(cat "$cache/vm/.ready"), $(cat "$cache/alertmanager/.ready")"
