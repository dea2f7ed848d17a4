"""The processes of a run, found by a variable in their environment: those that were detached too."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

POLL_S = 0.01


def with_variable(name: str, value: str) -> list[int]:
    """The processes that live with `name`=`value`."""
    mark, found = f"{name}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0") and not _is_zombie(folder):
                found.append(int(folder.name))
    return found


def kill_all(name: str, value: str) -> None:
    while pids := with_variable(name, value):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def argv(pid: int) -> list[str]:
    return [word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]


def resident_bytes(pid: int) -> int:
    """proc(5), statm: the second number is of resident pages."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _is_zombie(process: Path) -> bool:
    """The state follows the name, which is in parentheses."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
