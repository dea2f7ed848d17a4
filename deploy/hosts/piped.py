"""A host whose operations run in a process of their own, which is reached through a pipe."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from deploy.errors import KitError, LinkLost
from deploy.hosts.exchange import HEARTBEAT_S, Exchange, Pipe
from deploy.hosts.host import Host, WorkspaceLock, hold_lost
from deploy.hosts.remote.protocol import LEASE_S


class PipedHost(Host):
    """Operations are done by Pythons there, one after another by each: starting one takes several round trips, and the
    login's start-up files."""

    home: PurePosixPath  # of whom it runs as, which the inventory's paths are relative to
    operations: Sequence[str]  # the argument list of a Python there that takes launch.payload()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._open: set[Exchange] = set()
        self._beginning: set[object] = set()  # what is about to be in `_open`
        self._waiting: deque[Exchange] = deque()  # for an operation; the last has waited shortest
        self._closed = False

    def path(self, text: str) -> PurePosixPath:
        return self.home / (text.replace("~", str(self.home), 1) if text.startswith("~/") else text)

    @abstractmethod
    def start(self, argv: Sequence[str]) -> Pipe:
        """Start a program.

        Raises:
            KitError: it cannot be started.
            LinkLost: the host is not reached any more.
        """

    def broken(self, operation: str, complaint: str) -> KitError:
        """The error for an operation that ended without a reply."""
        detail = f" ({complaint.splitlines()[-1]})" if complaint else ""
        return KitError(f"{self.name}: {operation} broke off without an answer{detail}; run the command again")

    def stream(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] | None = None, live: bool = False
    ) -> Generator[bytes, None, Any]:
        exchange = self._asked(operation, request, body, live)
        try:
            return (yield from exchange.frames())
        finally:
            self._end(exchange)

    def close(self, interrupted: bool = False) -> None:
        self._closed = True
        super().close(interrupted)
        for exchange in list(self._open):
            exchange.pipe.abort()
        self._end_waiting()

    def _is_busy(self) -> bool:
        return bool(self._beginning or self._open)

    def _try_to_hold(self, request: Mapping[str, Any]) -> WorkspaceLock | Mapping[str, Any]:
        exchange = self._asked("hold", request)
        try:
            frames = exchange.frames()
            next(frames)
        except StopIteration as refusal:
            self._end(exchange)
            holder: Mapping[str, Any] = refusal.value
            return holder
        except BaseException:
            self._end(exchange)
            raise
        self._open.discard(exchange)  # or the end of the command would end it
        return _HeldThere(self.name, self.workspace, exchange.pipe, frames)

    def _asked(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] | None = None, live: bool = False
    ) -> Exchange:
        """The exchange whose process does an operation."""
        while True:
            exchange = self._begin(operation)
            is_asked = False
            try:
                is_asked = exchange.ask(operation, request, body, live)
            finally:
                if not is_asked:
                    self._end(exchange)
            if is_asked:
                return exchange

    def _begin(self, operation: str) -> Exchange:
        ticket = object()
        self._beginning.add(ticket)
        try:
            if self._closed and operation != "abandon":
                raise LinkLost(f"{self.name}: {operation} was not started: the command is ending")
            if isinstance(self._held, _HeldThere):
                self._held.refuse_lost()
            exchange = self._taken() or Exchange(self.name, self.start([*self.operations, "serve"]), self.broken)
            self._open.add(exchange)
            return exchange
        finally:
            self._beginning.discard(ticket)

    def _taken(self) -> Exchange | None:
        """One that waits for an operation."""
        with suppress(IndexError):
            while not (exchange := self._waiting.pop()).is_free():
                exchange.pipe.close()
            return exchange
        return None

    def _end(self, exchange: Exchange) -> None:
        self._open.discard(exchange)
        if exchange.is_free():
            self._waiting.append(exchange)
        else:
            exchange.pipe.close()
        if self._closed:  # perhaps just now, by another thread
            self._end_waiting()

    def _end_waiting(self) -> None:
        with suppress(IndexError):
            while True:
                self._waiting.pop().pipe.close()


def _now() -> float:
    """A clock that goes on while this machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _HeldThere:
    """A `hold` that was granted: the process that has the lock answers each byte while it has it."""

    def __init__(self, name: str, workspace: PurePosixPath, pipe: Pipe, frames: Generator[bytes, None, Any]) -> None:
        self._name, self._workspace, self._pipe, self._frames = name, workspace, pipe, frames
        self._turn, self._end = threading.Lock(), threading.Event()
        self._lost: KitError | None = None
        self._last = _now()  # when it was asked last, of the times that it was still held
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def verify(self) -> None:
        with self._turn:
            if self._lost is None:
                asked, self._lost = _now(), self._ask()
                self._last = asked
            self.refuse_lost()

    def refuse_lost(self) -> None:
        """`verify`, without asking where the host cannot have let go since."""
        if self._lost is None and _now() - self._last > LEASE_S:  # this command was stopped, or this machine asleep
            self.verify()
        if self._lost:
            raise hold_lost(self._name, self._workspace, self._lost)

    def release(self) -> None:
        self._end.set()
        with suppress(OSError):
            self._pipe.end_input()
        self._thread.join(HEARTBEAT_S)  # one that waits for an answer that never comes is left
        if not self._thread.is_alive():
            with suppress(OSError):
                while self._pipe.read(HEARTBEAT_S):
                    pass
        self._pipe.close()

    def _beat(self) -> None:
        """Verify every few seconds: the lock is given up where its process hears nothing."""
        while not self._end.wait(HEARTBEAT_S):
            try:
                self.verify()
            except KitError:
                return

    def _ask(self) -> KitError | None:
        """Why it is not held any more; None while it is."""
        try:
            with suppress(OSError):  # what is read tells why
                self._pipe.write(b"\n")
            next(self._frames)
        except KitError as error:
            return error
        except StopIteration:
            return KitError("its process there has ended")
        return None
