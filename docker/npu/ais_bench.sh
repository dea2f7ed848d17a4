#!/bin/bash
# ais_bench.sh FOLDER LOCK: install ais_bench and aclruntime from FOLDER, which holds wheels or the tool's source.
set -eu
folder=$1 lock=$2
ascend=/usr/local/Ascend

fail() {
    echo "error: the base image's $1; give another with BASE_IMAGE=..." >&2
    exit 1
}

# start_up TEST NAMES: take over these variables (a pattern) of interactive shells (.bashrc), the first user's with whose
# TEST succeeds.
start_up() {
    local home variables=()
    for home in /root /home/*; do
        HOME=$home bash -lic 'source ~/.bashrc; env >/build/start_up' </dev/null &>/dev/null || continue
        mapfile -t variables < <(grep -E "^($2)=" /build/start_up)
        (export "${variables[@]}" && "$1") >/dev/null || continue
        export "${variables[@]}" && return
    done
    return 1
}

! ldd --version 2>&1 | grep -q musl || fail "C library is musl, for which there is no CANN"
umask 022

# A distribution's own Python would refuse; nothing else runs in this image.
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore

has_pip() { python3 -m pip --version &>/dev/null; }
python_fits() { # else it prints what is wrong
    command -v python3 >/dev/null || { echo "PATH has no python3, which CANN's tools and ais_bench run on" && return 1; }
    version=$(python3 -V 2>&1) || { echo "python3 does not start ($version)" && return 1; }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 7))' || { echo "python3 is $version, older than 3.7" && return 1; }
    has_pip || { python3 -m ensurepip &>/dev/null && has_pip; } || { echo "python3 has no pip" && return 1; }
}
moved="" before=${LD_LIBRARY_PATH:-}
wrong=$(python_fits) ||
    if start_up python_fits "PATH|LD_LIBRARY_PATH"; then
        moved=$(dirname "$(command -v python3)")
    elif [ "$wrong" != "python3 has no pip" ] || ! /build/tools pip; then
        fail "$wrong"
    fi

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

# CANN's homes, wherever they are, and its script, at the place where an inventory's defaults look for it.
known() { [ -d "${ASCEND_TOOLKIT_HOME:-${ASCEND_HOME_PATH:-/none}}/" ]; }
known || start_up known "ASCEND_(TOOLKIT_HOME|HOME_PATH)" || true
homes=("${ASCEND_TOOLKIT_HOME:-}" "${ASCEND_HOME_PATH:-}")
for root in $ascend /opt/conda/Ascend /opt/Ascend /root/Ascend /home/*/Ascend; do
    for kept in "$root"/{ascend-toolkit,nnae,nnrt}; do # whose link to one of its versions may lead nowhere
        [ -d "$kept" ] && [ ! -d "$kept/latest/" ] || continue
        version=$(cd "$kept" && printf '%s\n' [0-9]* | sort -V | tail -n 1)
        [ ! -d "$kept/$version" ] || ln -sfn "$version" "$kept/latest"
    done
    mapfile -t versions < <(printf '%s\n' "$root"/cann-* | sort -rV)
    homes+=("$root"/{cann,ascend-toolkit/latest} "${versions[@]}" "$root"/{nnae,nnrt}/latest)
done
default=$ascend/ascend-toolkit/set_env.sh
scripts=("$default")
for home in "${homes[@]}"; do scripts+=("${home:-/none}"{,/..}/set_env.sh); done
for script in "${scripts[@]}"; do
    set +eu # CANN's scripts read variables that are not set
    # shellcheck disable=SC1090 # whichever there is
    [ -r "$script" ] && (source "$script" && { known || [ -z "$ASCEND_TOOLKIT_HOME$ASCEND_HOME_PATH" ]; }) && source "$script" && found=$script
    set -eu
    [ -z "${found:-}" ] || break
done
for home in "${ASCEND_TOOLKIT_HOME:-}" "${ASCEND_HOME_PATH:-}" "${homes[@]}"; do
    home=${home%%:*}
    [ -z "$home" ] || [ ! -d "$home/" ] || there+=("$home")
done
[ -n "${there:-}" ] || fail "CANN is not found (no home of one under $ascend, /opt, /root or /home, no ASCEND_TOOLKIT_HOME)"
mkdir -p "${default%/*}"
# shellcheck disable=SC2016,SC2094 # the written script's own variables; it is compared, not read
{
    echo "# For the kit:"
    if [ -z "${found:-}" ] && [ -z "${ASCEND_OPP_PATH:-}" ]; then # what CANN's manual names, unless the base's ENV does
        printf 'home=%q\n' "${there[0]}"
        cat <<'EOF'
export ASCEND_HOME_PATH=$home ASCEND_OPP_PATH=$home/opp ASCEND_AICPU_PATH=$home TOOLCHAIN_HOME=$home/toolkit
export PATH=$home/bin:$home/compiler/ccec_compiler/bin:$PATH
export LD_LIBRARY_PATH=$home/lib64:$home/lib64/plugin/opskernel:$home/lib64/plugin/nnengine:$LD_LIBRARY_PATH
export PYTHONPATH=$home/python/site-packages:$home/opp/built-in/op_impl/ai_core/tbe:$PYTHONPATH
EOF
    elif [ "${found:-$default}" != "$default" ]; then
        printf 'source %q\n' "$found"
    fi
    [ -z "$moved" ] || printf 'export PATH=%q:$PATH\n' "$moved"
    LD_LIBRARY_PATH=$before python3 -V &>/dev/null || printf 'export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:%q\n' "${moved%/*}/lib"
} >>"$default"
set +eu
# shellcheck disable=SC1090
source "$default"
set -eu
homes=("${there[@]}")

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
        echo "error: pip does not get the packages above (from ${PIP_INDEX_URL:-PyPI}); name an index that is reached from here with PIP_INDEX_URL=..." >&2
        exit 1
    }
done
python3 /build/cann_view.py devlib $ascend/devlib "${homes[@]}"
cd "$folder"
if compgen -G '*.whl' >/dev/null; then
    # The wheels that this Python takes, out of a folder that may hold those of several.
    "${pip[@]}" --no-index --find-links . --only-binary :all: aclruntime ais_bench
else
    [ -f backend/setup.py ] || { echo "error: the source of ais_bench has no backend/setup.py: AIS_BENCH_FOLDER=... names its folder" >&2; exit 1; }
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
