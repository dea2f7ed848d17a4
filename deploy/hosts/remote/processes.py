"""Which process a number means, and where."""

from __future__ import annotations

import os
from typing import Any


def is_pid(number: Any) -> bool:
    """Whether what a file says is a process: 0, 1 and negative ones make kill(2) end many."""
    return type(number) is int and 1 < number < 1 << 22  # PID_MAX_LIMIT of proc(5)


def boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def identity() -> str:
    """This boot of this machine and its process numbers: where a pid means one process."""
    return boot() + " " + os.readlink("/proc/self/ns/pid")
