"""An operation's ends: its body as it comes, its frames, and the operator's signs of life."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from typing import Any, Dict, Iterator

MAGIC = b"stgcn-kit\n"  # a login's start-up files may print: what comes before this line is theirs
BLOCK = 1 << 20
LEASE_S = 60
_F_SETPIPE_SZ = 1031  # fcntl.h; Python names it from 3.10 on

Request = Dict[str, Any]

_heard = time.monotonic()
_stdin: Any = sys.stdin.buffer if sys.stdin else None


class Body:
    """The body, in short reads as it comes; none is waited for longer than LEASE_S."""

    def read(self, size: int = -1) -> bytes:
        signal.alarm(LEASE_S)
        block: bytes = _stdin.read1(BLOCK if size < 0 else size) if size else b""
        signal.alarm(0)
        return block


def request_line() -> bytes:
    line: bytes = _stdin.readline()
    return line


def upto(size: int, body: Any) -> Iterator[bytes]:
    """The next `size` bytes of what has read(size), fewer when it ends before."""
    while size:
        block = body.read(min(BLOCK, size))
        if not block:
            return
        size -= len(block)
        yield block


def frame(block: bytes) -> None:
    if block:
        put(b'{"bytes": %d}\n' % len(block) + block)


def put(data: bytes) -> None:
    signal.alarm(LEASE_S)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    signal.alarm(0)


def listen(seconds: float) -> None:
    """Wait, at most `seconds`, for a sign of life of the operator: none for LEASE_S, or the end, ends this process."""
    global _heard
    if select.select([0], [], [], seconds)[0]:
        _heard = time.monotonic()
        if not os.read(0, 4096):
            raise SystemExit(0)
    elif time.monotonic() - _heard > LEASE_S:
        raise SystemExit(1)


def begin() -> None:
    """The operator is there now; from here on a read or write of more than LEASE_S fails, in a sentence."""
    global _heard
    _heard = time.monotonic()
    signal.signal(signal.SIGALRM, _late)


def widen(descriptor: int) -> None:
    """Let a pipe hold a block: fewer turns between its two ends. What is no pipe stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, BLOCK)


def _late(_number: int, _frame: Any) -> None:
    raise TimeoutError("nothing came or went for %d s" % LEASE_S)
