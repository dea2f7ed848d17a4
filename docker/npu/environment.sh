#!/bin/bash
# environment.sh, sourced: the base's Python is put on PATH, CANN's script sourced and kept where an inventory's defaults
# look for it. Leaves `homes` (of CANN), the first one's to be taken.
ascend=/usr/local/Ascend

fail() {
    echo "error: the base image's $1; give another with BASE_IMAGE=..." >&2
    exit 1
}

users=() # homes of everybody who logs in here, root's first
while IFS=: read -r _ _ uid _ _ home _; do
    case $uid in 0 | [1-9][0-9][0-9][0-9]*) users+=("$home") ;; esac
done </etc/passwd

# start_up TEST NAMES: take over these variables (a pattern) of interactive shells (.bashrc), the first user's with whose
# TEST succeeds.
start_up() {
    local home variables=()
    for home in "${users[@]}"; do
        HOME=$home bash -lic 'source ~/.bashrc; env >/build/start_up' </dev/null &>/dev/null || continue
        mapfile -t variables < <(grep -E "^($2)=" /build/start_up)
        (export "${variables[@]}" && "$1") >/dev/null || continue
        export "${variables[@]}" && return
    done
    return 1
}

! ldd --version 2>&1 | grep -q musl || fail "C library is musl, for which there is no CANN"

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

# CANN's homes, wherever they are, and its script, at the place where an inventory's defaults look for it.
known() { [ -d "${ASCEND_TOOLKIT_HOME:-${ASCEND_HOME_PATH:-/none}}/" ]; }
known || start_up known "ASCEND_(TOOLKIT_HOME|HOME_PATH)" || true
homes=("${ASCEND_TOOLKIT_HOME:-}" "${ASCEND_HOME_PATH:-}")
for root in $ascend /opt/conda/Ascend /opt/Ascend "${users[@]/%//Ascend}"; do
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
[ -n "${there:-}" ] || fail "CANN is not found (no home of one under $ascend, /opt or a user's home, no ASCEND_TOOLKIT_HOME)"
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
