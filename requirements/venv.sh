#!/usr/bin/env bash
# venv.sh PYTHON VENV TORCH_INDEX LOCK TORCH: make the kit's environment, each failure with the way out.
set -euo pipefail
python=$1 venv=$2 torch_index=$3 lock=$4 torch=$5

fail() {
    echo "error: $1" >&2
    exit 1
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is not Python 3.10 or newer; name one with PYTHON=..., or install it (on Debian and Ubuntu: apt-get install python3-venv)"
mkdir -p "$venv" || fail "$venv cannot be made; clone the kit to a folder that you may write, on a disk with room for 2 GB"
echo "installing the kit's packages into $venv (1.3 GB, a minute or two)" >&2
# Without its venv module a Python makes an environment all the same, but one without pip.
whole() { "$(dirname "$0")/whole.sh" "$venv"; }
package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
whole || { "$python" -m venv --clear "$venv" >&2 && whole; } ||
    fail "$python cannot make the environment $venv; it may lack its venv module (on Debian and Ubuntu: apt-get install $package)"
# On a terminal pip's own progress is shown; a log gets the lines below alone.
quiet=(--quiet)
if [ -t 2 ]; then quiet=(); fi
pip=("$venv/bin/python" -m pip install "${quiet[@]}" --disable-pip-version-check)
"${pip[@]}" --require-hashes -r "$lock" ||
    fail "the packages of $lock could not be installed; look above for the first that failed (is the package index reached?)"
# Fabric's program, where an older kit had installed it, is replaced by the kit's own.
cat >"$venv/bin/fab" <<'END'
#!/bin/sh
# fab: the tasks of the folder that this environment lies in.
trap '' INT # until the program answers it: Python's own answer while it starts is a traceback
exec "${0%fab}python" -S "${0%.venv/bin/fab}deploy/program.py" "$@"
END
chmod 755 "$venv/bin/fab"
# As pip does with what it installs: else every command compiles the kit where PYTHONDONTWRITEBYTECODE is set.
kit=$(CDPATH="" cd "$(dirname "$0")/.." && pwd)
"$venv/bin/python" -m compileall -q "$kit/deploy" "$kit/stgcn" "$kit/fabfile.py" || true
# torch after its dependencies: a wheel at hand (PIP_FIND_LINKS, as on an air-gapped site), else from an index of CPU builds,
# for the default index offers a CUDA build of several GB and the kit needs none.
echo "installing torch" >&2
"${pip[@]}" --no-index -r "$torch" >/dev/null 2>&1 && exit
for index in $torch_index; do
    "${pip[@]}" --retries 1 --timeout 10 --index-url "$index" -r "$torch" && exit
    echo "  $(cat "$torch") could not be installed from $index" >&2
done
echo "  trying the default package index, which may send a CUDA build of about 3 GB; Ctrl-C, and name an index of CPU builds with TORCH_INDEX=URL" >&2
"${pip[@]}" -r "$torch" ||
    fail "$(cat "$torch") could not be installed from $torch_index or the default index; name another index that has it with TORCH_INDEX=URL"
