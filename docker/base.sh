#!/usr/bin/env bash
# base.sh IMAGE: a base for both images where no registry can be reached: Debian by mmdebstrap (root, apt), with its own
# Python 3 and, under /usr/local, this machine's Python 3.7 (PYTHON37=PROGRAM, python3.7 on PATH, or pyenv's).
set -euo pipefail
image=${1:?usage: base.sh IMAGE}
suite=bookworm
packages=(libbz2-1.0 libffi8 libgomp1 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 python3 python3-venv zlib1g)

fail() {
    echo "error: $1" >&2
    exit 1
}

# The folder that holds a Python 3.7 of its own: bin/python3.7, lib/python3.7, include/python3.7m.
prefix_of() {
    "$1" -I -c 'import sys; sys.exit(sys.version_info[:2] != (3, 7) or print(sys.base_prefix))' 2>/dev/null
}

find_python() {
    local candidate prefix
    for candidate in ${PYTHON37:+"$PYTHON37"} python3.7 ~/.pyenv/versions/3.7.*/bin/python3.7; do
        prefix=$(prefix_of "$candidate") && [ -d "$prefix/lib/python3.7" ] && echo "$prefix" && return
    done
    return 1
}

command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed; apt-get install mmdebstrap"
prefix=$(find_python) ||
    fail "no Python 3.7 on this machine (looked at PYTHON37, PATH and ~/.pyenv); name one with PYTHON37=PROGRAM, or give images that have it with BASE_IMAGE=... RUN_IMAGE=..."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mkdir -p "$scratch/python"
shared=("$prefix"/lib/libpython3.7*) # none where Python was built without --enable-shared
[ -e "${shared[0]}" ] || shared=()
tar -C "$prefix" --exclude=__pycache__ --exclude=site-packages --exclude=test --exclude=tests -cf - \
    bin/python3.7 include lib/python3.7 "${shared[@]#"$prefix/"}" | tar -C "$scratch/python" -xf -
# shellcheck disable=SC2016 # $1 is the hooks' own: the new root
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
    --customize-hook="tar -C '$scratch/python' -cf - . | tar -C \"\$1/usr/local\" --no-same-owner -xf -" \
    --customize-hook='chroot "$1" ldconfig' \
    --customize-hook='chroot "$1" python3.7 -c "import ctypes, ssl, sqlite3, venv, zlib"' \
    "$suite" - | "${DOCKER:-docker}" import - "$image" >/dev/null
