"""A program that is reached through pipes, of this machine or of one that ssh hands them to."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Sequence

from deploy.hosts.exchange import COMPLAINT_BYTES, SILENCE_S
from deploy.hosts.remote.jobs import STOP_S
from deploy.hosts.remote.protocol import BLOCK, widen

COMPLAINT_S = 1.0  # for what a program that has ended still said on standard error to arrive; what it left may say more


class Streams:
    """This process's ends of a program's standard streams (see `exchange.Pipe`); `handed` are the program's."""

    def __init__(self) -> None:
        there_in, self._input = os.pipe()
        self._output, there_out = os.pipe()
        self._errors, there_err = os.pipe()
        self.handed = (there_in, there_out, there_err)
        self._complaint = bytearray()
        widen(self._input)
        widen(self._output)
        os.set_blocking(self._input, False)
        self._reading = {self._output, self._errors}
        self._open = {self._input, self._output, self._errors}

    def let_go(self) -> None:
        """Of the ends that were handed on."""
        for descriptor in self.handed:
            os.close(descriptor)

    def write(self, block: bytes) -> None:
        view, deadline = memoryview(block), time.monotonic() + SILENCE_S
        while view:
            if self._input not in self._open:
                raise BrokenPipeError("its input was ended")
            if select.select([], [self._input], [], max(0.0, deadline - time.monotonic()))[1]:
                view = view[os.write(self._input, view) :]
                deadline = time.monotonic() + SILENCE_S
            elif time.monotonic() >= deadline:
                raise TimeoutError(f"nothing was taken for {SILENCE_S:g} s")

    def end_input(self) -> None:
        self._close(self._input)

    def read(self, timeout_s: float) -> bytes | None:
        deadline = time.monotonic() + timeout_s
        while self._output in self._reading:
            ready = select.select(self._reading, [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                return None
            if self._errors in ready:
                self._listen()
            if self._output in ready:
                return os.read(self._output, BLOCK)
            if time.monotonic() > deadline:
                return None
        return b""

    def _listen(self) -> None:
        """What is said on standard error is taken, so that no one waits for it to be; its beginning is kept."""
        said = os.read(self._errors, COMPLAINT_BYTES)
        self._complaint += said[: COMPLAINT_BYTES - len(self._complaint)]
        if not said:
            self._reading.discard(self._errors)

    def complaint(self) -> str:
        deadline = time.monotonic() + COMPLAINT_S
        while (left := deadline - time.monotonic()) > 0 and self._errors in self._reading:
            if select.select([self._errors], [], [], left)[0]:
                self._listen()
        return self._complaint.decode("utf-8", "replace").strip()

    def close(self) -> None:
        for descriptor in list(self._open):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            os.close(descriptor)


class LocalPipe(Streams):
    """A program of this machine."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__()
        given, printed, said = self.handed
        try:
            # A session of its own: an interrupt at the terminal is the control process's to pass on.
            self._process = subprocess.Popen(
                list(argv), stdin=given, stdout=printed, stderr=said, start_new_session=True
            )
        except BaseException:
            super().close()
            raise
        finally:
            self.let_go()

    def abort(self) -> None:
        self._process.kill()

    def close(self) -> None:
        super().close()  # before the wait: it may be stuck writing what nobody wants any more
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
