#!/bin/sh
# Makes ready what sandbox/vm boots: QEMU from the distribution, and Debian's cloud kernel, downloaded and unpacked
# into this clone's ignored .cache/vm, never installed. Run it as often as you like: a second run does nothing.
# It needs a Debian-like machine with apt, and root or sudo for the one package it installs.
set -eu

cache="$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/.cache/vm"
want=".ready"

fail() {
	echo "vm-setup: $*" >&2
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
	echo "vm-setup: installing$missing"
	# shellcheck disable=SC2086 # one word a package is meant
	twice as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing ||
		fail "missing:$missing, and apt-get could not install it"
}

unpack_kernel() {
	[ ! -e "$cache/$want" ] || return 0
	need_apt "a Debian cloud kernel in .cache/vm/kernel"
	package="$(kernel_package)"
	if [ -z "$package" ]; then
		refresh
		package="$(kernel_package)"
	fi
	[ -n "$package" ] || fail "missing: a package linux-image-cloud-amd64 in apt's lists (only Debian on amd64 has it)"
	echo "vm-setup: downloading $package"
	rm -rf "$cache/download" "$cache/kernel"
	mkdir -p "$cache/download" "$cache/kernel"
	cd "$cache/download"
	# apt drops to the user _apt to download, who may not write here when root owns the folder.
	twice apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$package" || fail "missing: $package, and apt-get could not download it"
	dpkg-deb -x "$package"_*.deb "$cache/kernel"
	cd "$cache"
	rm -rf "$cache/download"
	echo "$package" >"$cache/$want"
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "missing: Linux on x86_64, this is $(uname -sm)"
mkdir -p "$cache"
log="$cache/setup.log"
install_packages
unpack_kernel
rm -f "$log"
echo "vm-setup: ready: $(qemu-system-x86_64 --version | head -n 1), $(cat "$cache/$want")"
