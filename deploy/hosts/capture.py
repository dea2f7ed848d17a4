"""A program's output, cut where it is endless."""

from __future__ import annotations

from typing import IO

from deploy.console import say

HEAD_BYTES, TAIL_BYTES = 1 << 18, 1 << 20  # of a program's output in memory; a log keeps up to LOG_BYTES
LOG_BYTES = 64 << 20
LINE_BYTES = 1 << 14  # of a line on the console


class Capture:
    """A program's output as it comes: all of it into a log (up to LOG_BYTES), its head and tail in memory."""

    def __init__(self, log: IO[bytes] | None, echo: bool = False) -> None:
        self._log, self._head, self._tail, self._seen = log, bytearray(), bytearray(), 0
        self._echo, self._line = echo, b""

    def write(self, block: bytes) -> None:
        if self._echo:
            *lines, line = (self._line + block).split(b"\n")
            self._line = line[:LINE_BYTES]
            for line in lines:
                say("    " + line[:LINE_BYTES].decode("utf-8", "replace"), "dim")
        if self._log and self._seen < LOG_BYTES:
            self._log.write(block[: LOG_BYTES - self._seen])
        self._seen += len(block)
        room = HEAD_BYTES - len(self._head)
        self._head += block[:room]
        self._tail += block[room:] if room > 0 else block
        del self._tail[: -TAIL_BYTES or None]

    def text(self) -> str:
        cut = self._seen - len(self._head) - len(self._tail)
        middle = f"\n[{cut} bytes cut]\n".encode() if cut > 0 else b""
        return (bytes(self._head) + middle + bytes(self._tail)).decode("utf-8", "replace")
