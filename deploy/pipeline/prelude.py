"""The shell words that source a host's environment scripts before a command, and the command without them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

# The scripts are counted, so that they and the command stay arguments: nothing is spliced into shell text. They are
# sourced inside a function, for CANN's scripts must not see the command's own arguments.
_PRELUDE = """
load() { local script=$1; shift $#; source "$script"; }
cd "$1" || exit 78
count=$2; shift 2
for ((; count > 0; count--)); do
    [ -r "$1" ] || { echo "environment script $1: no such file" >&2; exit 78; }
    load "$1"; shift
done
exec "$@"
"""
CONFIGURATION_STATUS = 78  # sysexits' EX_CONFIG


def sourced(folder: str, scripts: Sequence[str], command: Sequence[str]) -> list[str]:
    """What bash is given to run `command` in `folder` after the scripts."""
    return ["-c", _PRELUDE, "bash", folder, str(len(scripts)), *scripts, *command]


def bare(argv: Sequence[str]) -> list[str]:
    """The command in `argv` as a tool sees it: without what sources scripts and starts containers around it."""
    return _parts(argv)[3]


def readable(argv: Sequence[str]) -> str:
    """The command line that does the same, for people: `... bash -c 'cd FOLDER && source SCRIPT && COMMAND'`."""
    before, folder, scripts, command = _parts(argv)
    if not before:
        return shlex.join(argv)
    entered = [["cd", folder]] if folder != "." else []
    steps = [*entered, *(["source", script] for script in scripts), command]
    return shlex.join([*before, "-c", " && ".join(map(shlex.join, steps))])


def _parts(argv: Sequence[str]) -> tuple[list[str], str, list[str], list[str]]:
    """What starts bash (nothing, where it is not started), the folder, the scripts, the command."""
    for i, word in enumerate(argv):
        if word == "-c" and i + 4 < len(argv) and argv[i + 1].startswith("\nload()") and argv[i + 4].isdigit():
            command = i + 5 + int(argv[i + 4])
            return list(argv[:i]), argv[i + 3], list(argv[i + 5 : command]), list(argv[command:])
    return [], "", [], list(argv)
