"""A host: somewhere that runs argument lists and the kit's own operations (`remote/`).

`LocalHost` and `SSHHost` differ in how a program's ends are reached, and in nothing else.
"""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from deploy.errors import KitError, LinkLost, OverrunError
from deploy.hosts.capture import Capture
from deploy.hosts.exchange import HEARTBEAT_S, Exchange, Holder, Pipe, Writer
from deploy.hosts.owner import Owner
from deploy.hosts.remote.launch import payload


@dataclass(frozen=True)
class Completed:
    """A program that ended: exit status (negative: the signal) and its output, both streams as one."""

    status: int
    output: str


class Host(ABC):
    """Where things run. `workspace` is absolute; the kit writes nowhere else."""

    name: str
    workspace: PurePosixPath
    operations: Sequence[str]  # the argument list of a Python there that runs remote/

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder: Holder | None = None
        self._open: set[Pipe] = set()
        self._beginning: set[object] = set()  # what is about to be in `_open`
        self._closed = False

    @abstractmethod
    def start(self, argv: Sequence[str]) -> Pipe:
        """Start a program.

        Raises:
            KitError: it cannot be started.
            LinkLost: the host is not reached any more.
        """

    @abstractmethod
    def path(self, text: str) -> PurePosixPath:
        """A path of the inventory on this host, absolute."""

    def broken(self, operation: str, complaint: str) -> KitError:
        """The error for an operation that ended without a reply."""
        detail = f" ({complaint.splitlines()[-1]})" if complaint else ""
        return KitError(f"{self.name}: {operation} broke off without an answer{detail}; run the command again")

    def run(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        timeout_s: float | None = None,
        echo: bool = False,
        job: str | None = None,
    ) -> Completed:
        """Run a program to its end, its output also into `log` and, with `echo`, onto the console as it comes.

        It runs detached, so that a lost link costs nothing: the next call with the same `job` attaches to it or
        collects its end, until `forget`. Without `job` it leaves nothing. A status that is not 0 is the caller's to
        judge.

        Raises:
            KitError: the program cannot be started, or left no trace.
            OverrunError: it did not end in `timeout_s` and was stopped.
        """
        folder = str(self._job(job or f"once-{secrets.token_hex(6)}"))
        request = {"folder": folder, "argv": list(argv), "timeout_s": timeout_s}
        with _open_log(log) as stream:
            capture = Capture(stream, echo)
            outcome = self.call("job", request, sink=capture, live=True)
        if job is None:
            self.call("remove", {"paths": [folder]})
        if "refused" in outcome:
            raise KitError(f"{self.name}: {argv[0]} cannot be started ({outcome['refused']}); is it installed?")
        if "timed_out" in outcome:
            raise OverrunError(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s and was stopped")
        if "lost" in outcome:
            raise KitError(f"{self.name}: {argv[0]} was killed and left no status; run the command again")
        return Completed(outcome["status"], capture.text())

    def has_job(self, job: str) -> bool:
        """Whether an earlier command's job of this name runs, or has ended well and was not collected."""
        return self.call("job_state", {"folder": str(self._job(job))}) is not None

    def forget(self, jobs: Sequence[str]) -> None:
        """Stop what still runs of `jobs`, and remove what is known of them."""
        self.call("stop", {"folders": [str(self._job(job)) for job in jobs]})

    def call(
        self,
        operation: str,
        request: Mapping[str, Any],
        body: Iterable[bytes] = (),
        sink: Writer | None = None,
        live: bool = False,
    ) -> Any:
        """Do one operation of `remote/`: `body` follows the request, the frames that it sends go to `sink`.

        Raises:
            KitError: the host's own sentence.
        """
        frames = self.stream(operation, request, body, live)
        while True:
            try:
                block = next(frames)
            except StopIteration as end:
                return end.value
            if sink is None:
                raise self.broken(operation, "it sends what was not asked for")
            sink.write(block)

    def stream(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] = (), live: bool = False
    ) -> Generator[bytes, None, Any]:
        """`call`, its frames one by one."""
        pipe = self._begin(operation)
        exchange = Exchange(self, pipe, operation, live)
        try:
            try:
                pipe.write(payload() + json.dumps(dict(request)).encode() + b"\n")
                for block in body:
                    pipe.write(block)
                if not live:
                    pipe.end_input()
            except OSError:
                pass  # it refused the request, and its reply says why; or the link is gone, and reading tells
            return (yield from exchange.frames())
        finally:
            self._end(pipe)

    def hold(self) -> None:
        """Hold the workspace until `close`.

        Raises:
            KitError: another operator does, named.
        """
        mine = Owner.this_process()
        stale: Owner | None = None
        while True:
            pipe = self._begin("hold")
            frames = Exchange(self, pipe, "hold", live=True).frames()
            try:
                request = {"workspace": str(self.workspace), "owner": asdict(mine), "stale": stale and asdict(stale)}
                pipe.write(payload() + json.dumps(request).encode() + b"\n")
                next(frames)
                self._holder = Holder(pipe)
                return
            except StopIteration as refusal:
                self._end(pipe)
                holder = Owner.read(refusal.value)
            except BaseException:
                self._end(pipe)
                raise
            if holder.is_process_of(mine):
                return  # two hosts of the inventory share a workspace
            if holder == stale or not holder.is_dead():
                raise KitError(f"{self.name}: {self.workspace} is in use by {holder}; wait for it, or end it there")
            stale = holder

    def close(self, interrupted: bool = False) -> None:
        """Let go of the host; after an interrupt, stop all that runs there and remove all that is half done."""
        self._closed = True
        if interrupted and self._holder:
            with suppress(KitError):
                self._abandon(self._holder)
        if self._holder:
            self._holder.release()
            self._end(self._holder.pipe)
            self._holder = None
        for pipe in list(self._open):
            pipe.abort()

    def _abandon(self, holder: Holder) -> None:
        """Again while other threads' operations are under way: one may just have been about to begin a job."""
        deadline = time.monotonic() + HEARTBEAT_S
        while self.call("abandon", {"workspace": str(self.workspace)}):
            if not (self._beginning or self._open - {holder.pipe}) or time.monotonic() > deadline:
                return

    def _begin(self, operation: str) -> Pipe:
        ticket = object()
        self._beginning.add(ticket)
        try:
            if self._closed and operation != "abandon":
                raise LinkLost(f"{self.name}: {operation} was not begun: the command is ending")
            pipe = self.start([*self.operations, operation])
            self._open.add(pipe)
            return pipe
        finally:
            self._beginning.discard(ticket)

    def _end(self, pipe: Pipe) -> None:
        self._open.discard(pipe)
        pipe.close()

    def _job(self, job: str) -> PurePosixPath:
        return self.workspace / ".kit" / "jobs" / job


def _open_log(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext(None)
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")
