"""This machine as a host: the operations are plain calls in this process."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.errors import KitError, LinkLost
from deploy.hosts.host import Host, WorkspaceLock, hold_lost
from deploy.hosts.remote import operations
from deploy.hosts.remote.operations import sentence
from deploy.inventory import local_path
from stgcn.errors import InputError


class LocalHost(Host):
    """This machine."""

    def __init__(self, name: str, workspace: Path) -> None:
        super().__init__(name)
        self.workspace = PurePosixPath(workspace)
        self._ended = threading.Event()
        self._under_way = 0  # operations that may begin something
        self._counting = threading.Lock()

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(local_path(text))

    def stream(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] | None = None, live: bool = False
    ) -> Generator[bytes, None, Any]:
        del live  # who waits is in this process
        with self._counting:
            self._under_way += 1
        try:
            return (yield from self._do(operation, request, _Here(self, iter(body or ()))))
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a compression package has some of its own
            raise KitError(f"{self.name}: {operation}: {sentence(error)}") from None
        finally:
            with self._counting:
                self._under_way -= 1

    def _do(self, operation: str, request: Mapping[str, Any], operator: _Here) -> Generator[bytes, None, Any]:
        if operation != "abandon":
            operator.wait(0)
        reply = operations.operation(operation)(dict(request), operator)
        if inspect.isgenerator(reply):
            return (yield from reply)
        return reply

    def close(self, interrupted: bool = False) -> None:
        self._ended.set()
        super().close(interrupted)

    def _is_busy(self) -> bool:
        return self._under_way > 0

    def _try_to_hold(self, request: Mapping[str, Any]) -> WorkspaceLock | Mapping[str, Any]:
        frames = operations.operation("hold")(dict(request), _Alive())
        try:
            next(frames)
        except StopIteration as refusal:
            holder: Mapping[str, Any] = refusal.value
            return holder
        except (OSError, ValueError) as error:
            raise KitError(f"{self.name}: {sentence(error)}") from None
        return _HeldHere(self.name, self.workspace, frames)

    def wait(self, seconds: float) -> bool:
        """Wait for the command's end, at most so long; whether it has come."""
        return self._ended.wait(seconds)


class _HeldHere:
    """A `hold` in this process."""

    def __init__(self, name: str, workspace: PurePosixPath, frames: Generator[bytes, None, Any]) -> None:
        self._name, self._workspace, self._frames, self._turn = name, workspace, frames, threading.Lock()

    def verify(self) -> None:
        with self._turn:
            try:
                next(self._frames)
            except (StopIteration, ValueError) as error:
                raise hold_lost(self._name, self._workspace, str(error) or "its lock is gone") from None

    def release(self) -> None:
        self._frames.close()


class _Alive:
    """The operator of a `hold` in this process: it is there for as long as the process."""

    def wait(self, _seconds: float) -> int:
        return 1


class _Here:
    """The operator of an operation in this process (see remote/operations.py)."""

    def __init__(self, host: LocalHost, body: Iterator[bytes]) -> None:
        self._host, self._body, self._left = host, body, memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        self.wait(0)
        while not self._left:
            block = next(self._body, None)
            if block is None:
                return b""
            self._left = memoryview(block)
        end = len(self._left) if size < 0 else size
        taken, self._left = bytes(self._left[:end]), self._left[end:]
        return taken

    def wait(self, seconds: float) -> int:
        if self._host.wait(seconds):
            raise LinkLost(f"{self._host.name}: the command is ending")
        return 0
