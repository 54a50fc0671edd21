#!/bin/sh
# The whole way: publish a pinned requirements file to a folder, then import from there in an
# interpreter that has nothing but the runtime. Usage: demo.sh PYTHON, one with cloudimport[shelf].
set -eu
cd "$(dirname "$0")/../.."
case $1 in /*) python=$1 ;; *) python=$PWD/$1 ;; esac
demo=$PWD/.demo
rm -rf "$demo"
mkdir -p "$demo/app"
cp docs/demo/demo.py docs/demo/requirements.txt "$demo/app/"

say() { printf '\n== %s\n' "$*"; }

say "the curator: shelf publish -r requirements.txt"
started=$(date +%s)
"${python%/*}/shelf" publish -r "$demo/app/requirements.txt" --shelf "$demo/shelf" --lock "$demo/app/cloudimport.lock"
echo "published in $(($(date +%s) - started)) s; the shelf holds $(du -sh "$demo/shelf" | cut -f1)B"

say "the user: a new virtual environment with the runtime only"
"$python" -m venv --without-pip "$demo/user"
rm -rf build # what an earlier version left there would be installed too
# setuptools calls a table of pyproject.toml experimental: nothing that a user could act on.
PYTHONWARNINGS='ignore:`[tool.' \
    "$python" -m pip --no-input --disable-pip-version-check --python "$demo/user/bin/python" install --quiet .
"$python" -m pip --disable-pip-version-check --python "$demo/user/bin/python" list --format=freeze

# Nothing of this shell's environment, so that nothing else can have helped.
run() {
    env -i PATH=/usr/bin:/bin HOME="$demo" CLOUDIMPORT_SHELF="$demo/shelf" CLOUDIMPORT_CACHE="$demo/cache" \
        "$demo/user/bin/python" "$demo/app/demo.py"
}
say "first run: the cache is empty"
run
say "second run: the same cache"
run
say "third run: the shelf is gone"
mv "$demo/shelf" "$demo/shelf.away"
run
mv "$demo/shelf.away" "$demo/shelf"
