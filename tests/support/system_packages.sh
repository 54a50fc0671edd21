#!/bin/sh
# Install what is not on PyPI, where this user may; else say what is missing and what that means.
# Usage: system_packages.sh sandbox|radosgw|browser|bench|aarch64...|compiler PYTHON|venv PYTHON
#
# Never fails: what needs a missing program says so itself (and a test that cannot run is skipped).
set -u
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin" # dpkg needs them
export PATH DEBIAN_FRONTEND=noninteractive

apt_updated=

# The prefix that makes a command root's, or failure.
root_prefix() {
    if [ "$(id -u)" = 0 ]; then
        echo env
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo "sudo -n env DEBIAN_FRONTEND=noninteractive"
    else
        return 1
    fi
}

# apt_install PACKAGE...: quietly; the log is shown when it fails.
apt_install() {
    command -v apt-get >/dev/null || return 1
    prefix=$(root_prefix) || return 1
    log=$(mktemp)
    echo "installing $*"
    # The lists may be there and current; an update costs 10 to 30 s, so it is made when it is needed.
    if $prefix apt-get install -qq -y --no-install-recommends "$@" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    if [ -z "$apt_updated" ]; then
        apt_updated=yes
        $prefix apt-get update -qq >>"$log" 2>&1
        if $prefix apt-get install -qq -y --no-install-recommends "$@" >>"$log" 2>&1; then
            rm -f "$log"
            return 0
        fi
    fi
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
}

# need PROGRAM... -- PACKAGES -- CONSEQUENCE
need() {
    programs=$1 packages=$2 consequence=$3
    missing=
    for program in $programs; do
        case $program in
        *.so.*) ldconfig -p 2>/dev/null | grep -q "[[:space:]]$program " || missing="$missing $program" ;;
        *) command -v "$program" >/dev/null || missing="$missing $program" ;;
        esac
    done
    [ -z "$missing" ] && return 0
    # shellcheck disable=SC2086 # a list of words
    apt_install $packages && return 0
    echo "missing:$missing ($consequence); as root: apt-get install -y --no-install-recommends $packages" >&2
}

for group in "$@"; do
    case $group in
    sandbox)
        need "bwrap libseccomp.so.2 setpriv prlimit" "bubblewrap libseccomp2 util-linux" \
            "publishing needs them, and so do most tests"
        ;;
    radosgw)
        need "radosgw radosgw-admin ceph ceph-mon ceph-osd monmaptool" \
            "radosgw ceph-mon ceph-osd ceph-common" "S3 is tested against moto only"
        ;;
    browser)
        need "chromium" "chromium" "pages are not looked at in a browser"
        ;;
    bench)
        need "ip fusermount3" "iproute2 fuse3" "the benchmarks need them"
        ;;
    aarch64)
        need "aarch64-linux-gnu-gcc qemu-aarch64-static" \
            "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static" "aarch64 is not tested"
        ;;
    compiler)
        include=$("$2" -c 'import sysconfig; print(sysconfig.get_path("include"))')
        headers=$("$2" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')
        [ -e "$include/Python.h" ] && headers=
        need "cc" "gcc libc6-dev $headers" "extension modules of the tests' own cannot be built"
        [ -z "$headers" ] || [ -e "$include/Python.h" ] || apt_install "$headers"
        exit
        ;;
    venv)
        python=$2
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$version-venv" || apt_install python3-venv
        exit
        ;;
    *)
        echo "system_packages.sh: no group $group" >&2
        exit 2
        ;;
    esac
done
exit 0
