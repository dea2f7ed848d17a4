#!/bin/bash
# cann.sh FOLDER: install the CANN packages (.run files) in FOLDER, the toolkit first: the others ask for its environment.
set -eu
shopt -s nullglob
for package in "$1"/*toolkit*.run "$1"/*{kernels,ops}*.run; do
    echo "installing ${package##*/}"
    bash "$package" --quiet --install --install-for-all --install-path=/usr/local/Ascend
    for script in /usr/local/Ascend/{ascend-toolkit,cann}/set_env.sh; do
        set +eu # CANN's scripts read variables that are not set
        # shellcheck disable=SC1090 # whichever there is
        [ ! -r "$script" ] || source "$script"
        set -eu
    done
done
[ -n "${ASCEND_TOOLKIT_HOME:-}" ] || {
    echo "error: the packages left no set_env.sh under /usr/local/Ascend/ascend-toolkit or /usr/local/Ascend/cann" >&2
    exit 1
}
