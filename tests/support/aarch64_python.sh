#!/bin/sh
# Unpack Debian's Python for arm64 below FOLDER, without installing it; prints its version, as 3.11.
# Usage: aarch64_python.sh FOLDER. Fails where apt has no such packages.
set -eu
folder=$1
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root" "$folder/packages"
apt() {
    command=$1
    shift
    "apt-$command" -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" "$@"
}
apt get update
version=$(apt cache show --no-all-versions python3 | sed -n 's/^Version: \([0-9]*\.[0-9]*\)\..*/\1/p')
cd "$folder/packages"
# shellcheck disable=SC2046 # a list of names
apt get download "python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib" \
    "libpython$version-dev" $(apt cache depends --recurse --no-recommends --no-suggests --no-conflicts \
        --no-breaks --no-replaces --no-enhances "libpython$version-stdlib" "python$version-minimal" | grep -E '^(lib[a-z0-9.+-]*|zlib1g)$' |
        grep -Ev "^libpython" | sort -u)
for package in *.deb; do dpkg -x "$package" "$folder/root"; done
echo "$version"
