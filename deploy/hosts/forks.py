"""Operations of `remote/` on this machine, each a process as on every host, but forked from one that has loaded Python
and `remote/` already: a start takes a few milliseconds, not a hundred.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

from deploy.hosts.remote.launch import ARGUMENTS, payload


class Fork:
    """An operation's process, as a Popen has it. It has ended when its standard error has."""

    def __init__(self, parent: Parent, operation: str) -> None:
        (there_in, here_in), (here_out, there_out), (here_err, there_err) = (os.pipe() for _ in range(3))
        try:
            self._parent, self._pid = parent, parent.fork(operation, (there_in, there_out, there_err))
        except BaseException:
            for descriptor in (here_in, here_out, here_err):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (there_in, there_out, there_err):
                os.close(descriptor)
        self.stdin = os.fdopen(here_in, "wb", buffering=0)
        self.stdout = os.fdopen(here_out, "rb", buffering=0)
        self.stderr = os.fdopen(here_err, "rb", buffering=0)

    def kill(self) -> None:
        self._parent.kill(self._pid)

    def wait(self, timeout: float | None = None) -> None:
        """Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self.stderr], [], [], left)[0]:
                raise subprocess.TimeoutExpired("an operation", timeout or 0.0)
            if not os.read(self.stderr.fileno(), 1 << 16):
                return


class Parent:
    """The process that forks: `python -I`, `remote/` in it, asked over a socket. It ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, *ARGUMENTS, "serve", str(there.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt at the terminal is the control process's to pass on
                pass_fds=[there.fileno()],
            )
        assert self._process.stdin
        with self._process.stdin as source:
            source.write(payload())

    def fork(self, operation: str, ends: tuple[int, int, int]) -> int:
        """Begin an operation with `ends` as its standard input, output and error, in the environment and the folder
        that this process has now; its process id.

        Raises:
            OSError: the parent is gone, or the environment is too large for it.
        """
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return self._ask({"fork": operation, "environment": dict(os.environ)}, (*ends, folder))
        finally:
            os.close(folder)

    def kill(self, pid: int) -> None:
        """Kill an operation that still runs."""
        with suppress(OSError):
            self._ask({"kill": pid})

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def _ask(self, request: dict[str, object], descriptors: tuple[int, ...] = ()) -> int:
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                answer = self._socket.recv(64)
            except BaseException:  # or the next to ask would take this answer for its own
                self._socket.close()
                raise
        if not answer:
            raise BrokenPipeError("the process that forks is gone")
        return int(answer)


_lock = threading.Lock()
_parents: list[Parent] = []  # one, once it is needed


def fork(operation: str) -> Fork:
    """Begin an operation.

    Raises:
        OSError: as `Parent.fork`.
    """
    with _lock:
        if not _parents:
            _parents.append(Parent())
            atexit.register(_parents[0].close)
    return Fork(_parents[0], operation)
