#!/bin/bash
# ais_bench.sh FOLDER LOCK: install ais_bench and aclruntime from FOLDER, which holds wheels or the tool's source.
set -eu
folder=$1 lock=$2
ascend=/usr/local/Ascend

fail() {
    echo "error: the base image's $1; give another with BASE_IMAGE=..." >&2
    exit 1
}

! ldd --version 2>&1 | grep -q musl || fail "C library is musl, for which there is no CANN"
command -v python3 >/dev/null || fail "PATH has no python3, which CANN's tools and ais_bench run on"
version=$(python3 -V 2>&1) || fail "python3 does not start ($version)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail "python3 is $version, older than 3.9"
has_pip() { python3 -m pip --version >/dev/null 2>&1; }
has_pip || { python3 -m ensurepip >/dev/null 2>&1 && has_pip; } || fail "python3 has no pip"
# A distribution's own Python would refuse, and one set up for users install into root's home; nothing else runs in this image.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_USER=0

# CANN's script, at the place where an inventory's defaults look for it, wherever this CANN keeps its own.
default=$ascend/ascend-toolkit/set_env.sh
for script in "$default" "$ascend"/{cann,cann-*,ascend-toolkit/latest,latest,nnae}/set_env.sh {"${ASCEND_TOOLKIT_HOME:-/none}"{,/..},/opt/conda/Ascend/cann*}/set_env.sh; do
    [ -r "$script" ] || continue
    [ "$script" = "$default" ] || {
        mkdir -p "${default%/*}"
        printf '# Where the kit looks for it.\nsource %q\n' "$script" >"$default"
    }
    set +eu # CANN's scripts read variables that are not set
    # shellcheck disable=SC1090 # whichever there is
    source "$script"
    set -eu
    break
done
homes=()
for home in "${ASCEND_TOOLKIT_HOME:-}" $ascend/cann $ascend/ascend-toolkit/latest $ascend/nnae/latest; do
    home=${home%%:*}
    [ -z "$home" ] || [ ! -d "$home/" ] || homes+=("$home")
done
[ ${#homes[@]} -gt 0 ] || fail "CANN is not found (no set_env.sh under $ascend or /opt/conda/Ascend, no ASCEND_TOOLKIT_HOME)"

pip=(python3 -m pip install --no-deps)
# What the distribution's own packages brought has no record by which pip could take it out: it is laid over.
python3 -c 'import importlib.metadata as m, re, sys; locked = re.findall(r"^[\w-]+", open(sys.argv[1]).read(), re.M); \
sys.exit(any(d.files is None and str(d.metadata["Name"]).lower() in locked for d in m.distributions()))' "$lock" ||
    pip+=(--ignore-installed)
"${pip[@]}" --require-hashes --only-binary :all: -r "$lock"
python3 /build/cann_view.py devlib $ascend/devlib "${homes[@]}"
cd "$folder"
if compgen -G '*.whl' >/dev/null; then
    # The wheels that this Python takes, out of a folder that may hold those of several.
    "${pip[@]}" --no-index --find-links . --only-binary :all: aclruntime ais_bench
else
    /build/tools g++ Python.h
    # Each release of the backend knows the layouts of the CANNs of its time: it is shown this one in all of them.
    view=/build/cann
    python3 /build/cann_view.py view $view "${homes[@]}"
    [ -e README.md ] || touch README.md # setup.py reads it, and some commits lack it
    CANN_PATH=$view ASCEND_TOOLKIT_HOME=$view "${pip[@]}" --no-build-isolation ./backend .
fi
hash -r
command -v atc >/build/atc || { rm /build/atc; echo "warning: this base has no atc on PATH: it runs OMs, and converts none" >&2; }
# What lies in a closed folder (a Python in root's home) is opened to be walked to; the folder is not to be listed.
places=("$(command -v python3)" "$(python3 -c 'import sys; print(sys.executable)')" "${homes[@]}")
mapfile -t real < <(readlink -f "${places[@]}")
for place in "${places[@]}" "${real[@]}"; do
    while place=$(dirname "$place") && [ "$place" != / ]; do chmod a+x "$place"; done
done
