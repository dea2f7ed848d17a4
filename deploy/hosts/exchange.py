"""A program that runs on a host, and the exchange of one operation with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from deploy.errors import KitError
from deploy.hosts.remote.protocol import BLOCK, MAGIC
from deploy.hosts.replies import checked
from stgcn import plain_json

OPERATION_TIMEOUT_S = 600.0  # without a byte from a file operation
HEARTBEAT_S = 5.0
if TYPE_CHECKING:
    from deploy.hosts.host import Host

FRAME_BYTES = 4 * BLOCK
NOISE_BYTES = 1 << 20  # of a login's start-up files, before an operation's own output
COMPLAINT_BYTES = 1 << 16  # of standard error
LINE_SHOWN = 500
REPLY_BYTES = 64 << 20  # more in one line is no reply; the longest names every clip of a dataset


class Writer(Protocol):
    def write(self, block: bytes, /) -> object: ...


class Pipe(Protocol):
    """The ends of a program that runs on a host."""

    def write(self, block: bytes) -> None:
        """Raises OSError when the program or the link is gone."""

    def end_input(self) -> None: ...

    def read(self, timeout_s: float) -> bytes | None:
        """What it printed next, b"" at the end, None when nothing came."""

    def complaint(self) -> str:
        """What it said on standard error, once it has ended."""

    def abort(self) -> None:
        """End it from another thread than that which reads."""

    def close(self) -> None: ...


class Exchange:
    """The reply of one operation, as its bytes come."""

    def __init__(self, host: Host, pipe: Pipe, operation: str, live: bool) -> None:
        self._host, self._pipe, self._operation, self._live = host, pipe, operation, live
        self._buffer, self._told = bytearray(), time.monotonic()

    def frames(self) -> Generator[bytes, None, Any]:
        noise = 0
        while (line := self._line()) != MAGIC:
            noise += len(line)
            if noise > NOISE_BYTES:
                raise self._host.broken(self._operation, "it prints without end")
        while True:
            line = self._line()
            try:
                answer = plain_json.loads(line)
            except ValueError:
                answer = None
            match answer:
                case {"bytes": int(size)} if 0 < size <= FRAME_BYTES:
                    yield self._exactly(size)
                case {"ok": value}:
                    try:
                        return checked(self._operation, value)
                    except ValueError as error:
                        raise self._host.broken(self._operation, str(error)) from None
                case {"error": str(sentence)}:
                    raise KitError(f"{self._host.name}: {self._operation}: {sentence}")
                case _:
                    said = line[:LINE_SHOWN].decode("utf-8", "replace").strip()
                    raise self._host.broken(self._operation, said)

    def _line(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REPLY_BYTES:
                raise self._host.broken(self._operation, "it prints without end")
            self._fill()
        return self._take(end + 1)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        waited = 0.0
        while True:
            if self._live and time.monotonic() - self._told >= HEARTBEAT_S:
                with suppress(OSError):
                    self._pipe.write(b"\n")
                self._told = time.monotonic()
            block = self._pipe.read(HEARTBEAT_S)
            if block:
                self._buffer += block
                return
            if block is not None:
                raise self._host.broken(self._operation, self._pipe.complaint())
            waited += HEARTBEAT_S
            if not self._live and waited >= OPERATION_TIMEOUT_S:
                raise KitError(
                    f"{self._host.name}: {self._operation} said nothing for {OPERATION_TIMEOUT_S:g} s; "
                    "look after the host, then run the command again"
                )


class Holder:
    """A `hold` that was granted, kept alive."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe, self._end = pipe, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            try:
                self.pipe.write(b"\n")
            except OSError:
                return

    def release(self) -> None:
        """Let go, and see the lock gone."""
        self._end.set()
        self._thread.join()
        with suppress(OSError):
            self.pipe.end_input()
            while self.pipe.read(HEARTBEAT_S):
                pass
