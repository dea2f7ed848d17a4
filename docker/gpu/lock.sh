#!/usr/bin/env bash
# lock.sh UV: write this folder's locks again from the .in files, with hashes, for the image's Python 3.7.
set -euo pipefail
uv=$1
cd "$(dirname "$0")"
lock() {
    "$uv" pip compile --quiet --python-version 3.7 --python-platform x86_64-manylinux2014 --generate-hashes --no-header \
        --no-emit-index-url --upgrade "$@"
}
lock --only-binary :all: pip.in --output-file pip.lock
lock --only-binary :all: requirements.in --output-file requirements.lock
lock --only-binary :all: --no-deps torch.in --output-file torch.lock
lock --no-deps sources.in --output-file sources.lock
lock --only-binary :all: --constraint requirements.lock mmdetection.in --output-file mmdetection.lock
