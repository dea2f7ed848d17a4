"""What atc and ais_bench say where the host itself lacks something, in the words of Linux, Python and numpy."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What a line says -> what to do. A coded error that wraps one of these is its consequence.
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (
            r"No space left on device[^\[]*|Disk quota exceeded[^\[]*|\b\d+ requested and \d+ written",
            "free some room on the NPU host (df -h, df -i), its /tmp and home included",
        ),
        (
            r"failed to map segment from shared object.*",
            "its temporary folder is mounted noexec: name another as TMPDIR under `tools.env` in the inventory",
        ),
        (
            r"Read-only file system.*",
            "what it writes there must lie on a writable file system: mount one, or name "
            "another place by TMPDIR and HOME under `tools.env` in the inventory",
        ),
        (r"Too many open files.*", "raise the limit of open files for this user on the NPU host (ulimit -n)"),
        (
            r"Resource temporarily unavailable.*|can't start new thread.*|pthread_create failed.*",
            "this user may have no more processes on the NPU host (ulimit -u, or the container's limit): raise it, or "
            'set `TE_PARALLEL_COMPILER: "1"` under `tools.env` in the inventory',
        ),
        (
            r"(?:PermissionError\b.*|(?:^|: )[^:]*: )Permission denied.*",
            "the user who runs it may not read or write that: correct its owner or mode there, or name another HOME "
            "under `tools.env` in the inventory where it is the home",
        ),
    )
)


def cause(lines: Sequence[str]) -> tuple[str, str] | None:
    """(what was said, what to do) of the first cause in the order of the table; None where no line tells one."""
    for pattern, advice in _CAUSES:
        if found := next(filter(None, map(pattern.search, lines)), None):
            return found[0].strip(": "), advice
    return None


# Modules of Python itself that a build without the library's headers lacks, and what that library's package is about.
_OF_PYTHON = re.compile(
    r"No module named '?(_(?:struct|ctypes|bz2|lzma|sqlite3|ssl|hashlib|socket|tkinter|curses)|zlib)\b"
)
_LIBPYTHON = re.compile(r"(libpython\S+?): cannot open shared object")


def unwhole_python(text: str) -> str | None:
    """What is wrong with a Python that lacks a part of itself, and what to do; None of any other text."""
    if found := _OF_PYTHON.search(text) or _LIBPYTHON.search(text):
        return (
            f"is not whole (no {found[1]}: built without what it needs, or mixed with another's PYTHONHOME, PATH or "
            "LD_LIBRARY_PATH): use the Python that this CANN came with, or build that one again"
        )
    return None
