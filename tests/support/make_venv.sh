#!/bin/sh
# Make a virtual environment with pip. Usage: make_venv.sh PYTHON FOLDER
set -eu
python=$1 folder=$2
support=$(dirname "$0")

if ! command -v "$python" >/dev/null; then
    echo "no $python here: install Python 3.10 or newer, or say which: make PYTHON=/path/to/python3 ..." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "$python is $("$python" -V), 3.10 or newer is needed: make PYTHON=python3.12 ..." >&2
    exit 1
fi
# Debian and Ubuntu have venv, but its ensurepip is a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null && ! "$support/system_packages.sh" venv "$python"; then
    echo "$python cannot make virtual environments; as root: apt-get install -y python3-venv" >&2
    exit 1
fi
rm -rf "$folder"
"$python" -m venv "$folder"
