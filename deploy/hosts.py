"""A host: somewhere that runs argument lists and the kit's own file operations (`remote.py`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from deploy import remote
from deploy.console import printable, say
from deploy.errors import KitError
from deploy.inventory import Gpu, Npu, local_path

HEAD_BYTES, TAIL_BYTES = 1 << 18, 1 << 20  # of a program's output in memory; a log keeps up to LOG_BYTES
LOG_BYTES = 64 << 20
OPERATION_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Completed:
    """A program that ended: exit status (negative: the signal) and its output, both streams as one."""

    status: int
    output: str


class OverrunError(KitError):
    """A program that was stopped at its deadline."""


class Host(Protocol):
    """Where things run. `workspace` is absolute; the kit writes nowhere else."""

    name: str
    workspace: PurePosixPath

    def run(
        self, argv: Sequence[str], *, log: Path | None = None, timeout_s: float | None = None, echo: bool = False
    ) -> Completed:
        """Run a program to its end, its output also into `log` and, with `echo`, onto the console as it comes.

        A status that is not 0 is the caller's to judge.

        Raises:
            KitError: the program cannot be started.
            OverrunError: it did not end in `timeout_s` and was stopped.
        """

    def call(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] = (), sink: IO[bytes] | None = None
    ) -> Any:
        """Do one operation of `remote.py`; `body` follows the request, bytes that follow the reply go to `sink`.

        Raises:
            KitError: the host's own sentence.
        """


class Capture:
    """A program's output as it comes: all of it into a log (up to LOG_BYTES), its head and tail in memory."""

    def __init__(self, log: IO[bytes] | None, echo: bool = False) -> None:
        self._log, self._head, self._tail, self._seen = log, bytearray(), bytearray(), 0
        self._echo, self._line = echo, b""

    def feed(self, block: bytes) -> None:
        if self._echo:
            *lines, self._line = (self._line + block).split(b"\n")
            for line in lines:
                say("    " + line.decode("utf-8", "replace"), "dim")
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


class LocalHost:
    """This machine."""

    def __init__(self, name: str, workspace: Path) -> None:
        self.name, self.workspace = name, PurePosixPath(workspace)

    def run(
        self, argv: Sequence[str], *, log: Path | None = None, timeout_s: float | None = None, echo: bool = False
    ) -> Completed:
        try:
            # A session of its own, so that an interrupt or a deadline ends the program and all that it started.
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise KitError(f"{self.name}: {argv[0]} cannot be started ({error.strerror}); is it installed?") from None
        try:
            with _open_log(log) as stream:
                capture = Capture(stream, echo)
                _pump(process, capture, timeout_s)
            return Completed(process.wait(), capture.text())
        except subprocess.TimeoutExpired:
            raise OverrunError(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s and was stopped") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def call(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] = (), sink: IO[bytes] | None = None
    ) -> Any:
        argv = [sys.executable, "-I", str(Path(remote.__file__)), operation]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
                for block in body:
                    process.stdin.write(block)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it refused the request; its reply says why
            answer = reply(self.name, operation, process.stdout.readline())
            for block in iter(lambda: process.stdout.read(remote.BLOCK), b""):  # type: ignore[union-attr]
                assert sink is not None
                sink.write(block)
            return answer


def reply(host: str, operation: str, line: bytes) -> Any:
    """The `ok` of a reply line, or the KitError that it stands for."""
    try:
        answer = json.loads(line)
    except ValueError:
        raise KitError(f"{host}: {operation} broke off without an answer; run the command again") from None
    if "ok" not in answer:
        raise KitError(f"{host}: {operation}: {printable(str(answer.get('error', answer)))}")
    return answer["ok"]


def connect(section: Gpu | Npu) -> Host:
    """The host that an inventory section names."""
    if section.connection == "ssh":
        raise KitError(f"{section.name}: connection: ssh is not there yet; use connection: local")
    return LocalHost(section.name, local_path(section.workspace))


def _pump(process: subprocess.Popen[bytes], capture: Capture, timeout_s: float | None) -> None:
    assert process.stdout is not None
    deadline = None if timeout_s is None else _Deadline(timeout_s, lambda: os.killpg(process.pid, signal.SIGKILL))
    try:
        for block in _read_blocks(process.stdout):
            capture.feed(block)
    finally:
        if deadline:
            deadline.cancel()
    if deadline and deadline.passed:
        raise subprocess.TimeoutExpired(process.args, timeout_s or 0)


def _read_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: os.read(stream.fileno(), 1 << 16), b"")


class _Deadline:
    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.passed, self._act = False, act
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        self.passed = True
        self._act()

    def cancel(self) -> None:
        self._timer.cancel()


def _open_log(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext(None)
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")
