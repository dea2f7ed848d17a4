"""An operation's ends: its body as it comes, its frames, and signs of life both ways."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import threading
import time
from typing import Any, Dict, Iterator

MAGIC = b"\x1estgcn-kit\n"  # a login's start-up files may print, a line's end or none: what comes before is theirs
BLOCK = 1 << 20
LEASE_S = 60
ALIVE_S = 5.0  # how often this process says that it lives
ALIVE = b'{"alive": true}\n'
_F_SETPIPE_SZ = 1031  # fcntl.h; Python names it from 3.10 on

Request = Dict[str, Any]


class Operator:
    """Who asks for operations, at the other end of this process's standard input and output."""

    def __init__(self) -> None:
        self._heard = time.monotonic()
        self._input: Any = sys.stdin.buffer

    def requests(self) -> Iterator[bytes]:
        """The lines that ask for something, as they come, until the input ends or none has come for LEASE_S."""
        while True:
            signal.alarm(LEASE_S)
            try:
                line: bytes = self._input.readline()
            except TimeoutError:
                return
            signal.alarm(0)
            self._heard = time.monotonic()
            if not line:
                return
            if line != b"\n":  # a sign of life for an operation that has ended meanwhile
                yield line

    def read(self, size: int = -1) -> bytes:
        """The body, in short reads as it comes; none is waited for longer than LEASE_S."""
        signal.alarm(LEASE_S)
        block: bytes = self._input.read1(BLOCK if size < 0 else size) if size else b""
        signal.alarm(0)
        return block

    def wait(self, seconds: float) -> int:
        """Wait, at most `seconds`, for signs of life; how many came. The end ends this process.

        Raises:
            TimeoutError: none has come for LEASE_S.
        """
        if select.select([0], [], [], seconds)[0]:
            self._heard = time.monotonic()
            heard = os.read(0, 4096)
            if not heard:
                raise SystemExit(0)
            return len(heard)
        if time.monotonic() - self._heard > LEASE_S:
            _late()
        return 0


class Output:
    """The replies as they are written; while one is not done, a sign of life every ALIVE_S, whatever the operation is
    at: a process that is stopped gives none."""

    def __init__(self) -> None:
        self._lock, self._is_busy = threading.Lock(), False
        threading.Thread(target=self._live, daemon=True).start()

    def begin(self) -> None:
        self.put(MAGIC)
        self._is_busy = True

    def frame(self, block: bytes) -> None:
        if block:
            self.put(b'{"bytes": %d}\n' % len(block), block)

    def put(self, *parts: bytes) -> None:
        """Raises BrokenPipeError where the operator takes nothing for LEASE_S."""
        signal.alarm(LEASE_S)
        try:
            with self._lock:
                for part in parts:
                    _write(part)
        except TimeoutError:  # in the midst of a part: what came after it would be read as its rest
            raise BrokenPipeError from None
        finally:
            signal.alarm(0)

    def end(self, reply: bytes) -> None:
        with self._lock:
            self._is_busy = False
        self.put(reply)

    def _live(self) -> None:
        while True:
            time.sleep(ALIVE_S)
            with self._lock, contextlib.suppress(OSError):
                if self._is_busy:
                    _write(ALIVE)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def upto(size: int, body: Any) -> Iterator[bytes]:
    """The next `size` bytes of what has read(size), fewer when it ends before."""
    while size:
        block = body.read(min(BLOCK, size))
        if not block:
            return
        size -= len(block)
        yield block


def end_when_late() -> None:
    """A read or write of more than LEASE_S fails."""
    signal.signal(signal.SIGALRM, _late)


def end_whole() -> None:
    """SIGHUP and SIGTERM, as a login's end may send them, end what an operation has begun too."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def widen(descriptor: int) -> None:
    """Let a pipe hold a block: fewer turns between its two ends. What is no pipe stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, BLOCK)


def _late(*_signal: Any) -> None:
    raise TimeoutError
