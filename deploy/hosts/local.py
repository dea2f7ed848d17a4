"""This machine as a host."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from deploy.hosts import forks
from deploy.hosts.exchange import COMPLAINT_BYTES, Pipe
from deploy.hosts.host import Host
from deploy.hosts.remote.jobs import STOP_S
from deploy.hosts.remote.launch import ARGUMENTS
from deploy.hosts.remote.protocol import BLOCK, widen
from deploy.inventory import local_path

_HELPER = [sys.executable, *ARGUMENTS]


class LocalHost(Host):
    """This machine."""

    def __init__(self, name: str, workspace: Path) -> None:
        super().__init__(name)
        self.workspace = PurePosixPath(workspace)
        self.operations = _HELPER

    def start(self, argv: Sequence[str]) -> Pipe:
        if list(argv[:-1]) == _HELPER:
            with suppress(OSError):  # then it takes longer
                return _LocalPipe(forks.fork(argv[-1]))
        return _LocalPipe(_program(argv))

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(local_path(text))


def _program(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # an interrupt at the terminal is the control process's to pass on
    )


class _LocalPipe:
    def __init__(self, process: subprocess.Popen[bytes] | forks.Fork) -> None:
        self._process = process
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._input, self._output, self._errors = self._process.stdin, self._process.stdout, self._process.stderr
        widen(self._input.fileno())
        widen(self._output.fileno())

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[self._input.write(view) :]

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
