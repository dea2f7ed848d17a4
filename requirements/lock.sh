#!/usr/bin/env bash
# Write the locks again from the .in files, with hashes, for every Python from 3.10 on.
set -euo pipefail
cd "$(dirname "$0")"
for name in kit dev docs fuzz ray; do
    ../.venv/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header \
        --no-emit-index-url --upgrade "$name.in" --output-file "$name.lock"
done
