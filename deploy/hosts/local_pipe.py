"""A program of this machine, reached through pipes."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from deploy.hosts.exchange import COMPLAINT_BYTES, SILENCE_S
from deploy.hosts.remote.jobs import STOP_S
from deploy.hosts.remote.protocol import BLOCK, widen


class LocalPipe:
    """Its ends; see `exchange.Pipe`."""

    def __init__(self, argv: Sequence[str]) -> None:
        # A session of its own: an interrupt at the terminal is the control process's to pass on.
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._input, self._output, self._errors = self._process.stdin, self._process.stdout, self._process.stderr
        os.set_blocking(self._input.fileno(), False)
        widen(self._input.fileno())
        widen(self._output.fileno())

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            if not select.select([], [self._input], [], SILENCE_S)[1]:
                raise TimeoutError(f"nothing was taken for {SILENCE_S:g} s")
            view = view[self._input.write(view) or 0 :]

    def end_input(self) -> None:
        self._input.close()

    def read(self, timeout_s: float) -> bytes | None:
        if not select.select([self._output], [], [], timeout_s)[0]:
            return None
        return os.read(self._output.fileno(), BLOCK)

    def complaint(self) -> str:
        return self._errors.read(COMPLAINT_BYTES).decode("utf-8", "replace").strip()

    def abort(self) -> None:
        self._process.kill()

    def close(self) -> None:
        with suppress(OSError):
            self._input.close()
        self._output.close()  # before the wait: it may be stuck writing what nobody wants any more
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
