#!/usr/bin/env bash
# lock.sh UV: write this folder's locks again from the .in files, with hashes, for the Pythons that the bases have.
set -euo pipefail
uv=$1
cd "$(dirname "$0")"
lock() {
    local python=$1 name=$2
    shift 2
    "$uv" pip compile --quiet --universal --python-version "$python" --generate-hashes --no-header --no-emit-index-url \
        --upgrade "$@" "$name.in" --output-file "$name.lock"
}
# The versions that the kit itself runs: a simulated device rounds alike in the image and on the host.
lock 3.10 simulator --constraint ../../requirements/kit.lock
lock 3.7 cann
