#!/bin/bash
# ais_bench.sh FOLDER LOCK: install ais_bench and aclruntime from FOLDER, wheels with SHA256SUMS or the tool's source.
set -eu
folder=$1 lock=$2
pip=(python3 -m pip install --no-deps)
"${pip[@]}" --require-hashes --only-binary :all: -r "$lock"
cd "$folder"
if [ -f SHA256SUMS ]; then
    sha256sum --check --strict SHA256SUMS
    # The wheels that this Python takes, out of a folder that may hold those of several.
    "${pip[@]}" --no-index --find-links . --only-binary :all: aclruntime ais_bench
else
    /build/tools
    # shellcheck disable=SC1091 # the image's
    source /usr/local/Ascend/ascend-toolkit/set_env.sh
    "${pip[@]}" --no-build-isolation ./backend .
fi
python3 -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("aclruntime", "ais_bench"))))'
