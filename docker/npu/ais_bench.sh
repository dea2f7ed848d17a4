#!/bin/bash
# ais_bench.sh FOLDER LOCK: install ais_bench and aclruntime from FOLDER, which holds wheels or the tool's source.
set -eu
folder=$1 lock=$2
umask 022
# shellcheck source=docker/npu/environment.sh
source /build/environment.sh

# A distribution's own Python would refuse; nothing else runs in this image.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore
# Of the base's settings of pip this build keeps where packages come from, unless it was given an index itself.
given=$(grep -o '^PIP_INDEX_URL=' /run/secrets/network 2>/dev/null) || true
kept=$([ -n "$given" ] || python3 -m pip config list 2>/dev/null | sed -nE "s/^(global|install)\.(index-url|extra-index-url|trusted-host|proxy)='(.*)'$/\2 \3/p")
for setting in $(compgen -v PIP_); do
    case $setting:$given in
        PIP_CERT:* | PIP_CACHE_DIR:* | PIP_INDEX_URL:* | PIP_BREAK*:* | PIP_ROOT_USER*:* | PIP_DISABLE*:*) ;;
        PIP_EXTRA_INDEX_URL: | PIP_TRUSTED_HOST: | PIP_PROXY:) ;;
        *) unset "$setting" ;;
    esac
done
export PIP_CONFIG_FILE=/dev/null
while read -r name value; do
    setting=${name^^} setting=PIP_${setting//-/_}
    [ -n "${!setting:-}" ] || export "$setting=$(printf %b "$value")"
done < <([ -z "$kept" ] || echo "$kept")
pip=(python3 -m pip install --no-deps)

# What the distribution's own packages brought has no record by which pip could take it out: it is laid over.
python3 - "$lock" <<'EOF' || pip+=(--ignore-installed)
import re, sys

try:
    from importlib.metadata import distributions
    unknown = {str(d.metadata["Name"]).lower() for d in distributions() if d.files is None}
except ImportError:  # Python 3.7
    from pkg_resources import working_set
    unknown = {d.key for d in working_set if not d.has_metadata("RECORD") and not d.has_metadata("installed-files.txt")}
sys.exit(any(name in unknown for name in re.findall(r"(?m)^[\w-]+", open(sys.argv[1]).read())))
EOF
# pip itself first: one of an old Python's time does not know the names of today's wheels.
sed -n '/^[a-z]/h; G; /\npip==/P' "$lock" >/build/pip.lock
for list in /build/pip.lock "$lock"; do
    "${pip[@]}" --require-hashes --only-binary :all: -r "$list" || {
        index=${PIP_INDEX_URL:-PyPI} proxy=${https_proxy:-${HTTPS_PROXY:-}} # which may have a password in it
        echo "error: pip does not get the packages above (from ${index/\/\/*@/\/\/}${proxy:+, through a proxy}); name what is reached from here with PIP_INDEX_URL=... or HTTPS_PROXY=..." >&2
        exit 1
    }
done
python3 /build/cann_view.py devlib $ascend/devlib "${homes[@]}"
cd "$folder"
if compgen -G '*.whl' >/dev/null; then
    # The wheels that this Python takes, out of a folder that may hold those of several.
    "${pip[@]}" --no-index --find-links . --only-binary :all: aclruntime ais_bench
else
    [ -f backend/setup.py ] || { echo "error: the source of ais_bench has no backend/setup.py; name its folder with AIS_BENCH_FOLDER=..., or give wheels" >&2; exit 1; }
    /build/tools g++ Python.h
    # Each release of the backend knows the layouts of the CANNs of its time: it is shown this one in all of them.
    view=/build/cann
    python3 /build/cann_view.py view $view "${homes[@]}"
    [ -e README.md ] || touch README.md # setup.py reads it, and some commits lack it
    CANN_PATH=$view ASCEND_TOOLKIT_HOME=$view "${pip[@]}" --no-build-isolation ./backend .
fi
hash -r
echo "${homes[0]}" >/build/home
command -v atc >/build/atc || { rm /build/atc; echo "warning: this base has no atc on PATH: it runs OMs, and converts none" >&2; }
# What lies in a closed folder (a Python in root's home) is opened to be walked to; the folder is not to be listed.
places=("$(command -v python3)" "$(python3 -c 'import sys; print(sys.executable)')" "${homes[@]}")
mapfile -t real < <(readlink -f "${places[@]}")
for place in "${places[@]}" "${real[@]}"; do
    while place=$(dirname "$place") && [ "$place" != / ]; do chmod a+x "$place"; done
done
