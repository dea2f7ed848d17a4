"""A host: somewhere that runs argument lists and does the kit's own operations (`remote/`).

This machine does them in this process (local.py), any other in a process of its own (piped.py).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol, TypedDict

from deploy.errors import KitError, LinkLost, OverrunError
from deploy.hosts.capture import Capture
from deploy.hosts.owner import Owner
from deploy.hosts.remote.folders import KIT

if TYPE_CHECKING:
    from typing_extensions import Unpack

ABANDON_S = 5.0  # for other threads to see that the command ends


class Writer(Protocol):
    def write(self, block: bytes, /) -> object: ...


class WorkspaceLock(Protocol):
    """A workspace that is held."""

    def verify(self) -> None:
        """Raises KitError where it is not held any more."""

    def release(self) -> None:
        """Let go, and see the lock gone."""


@dataclass(frozen=True)
class Completed:
    """A program that ended: exit status (negative: the signal) and its output, both streams as one."""

    status: int
    output: str


class RunOptions(TypedDict, total=False):
    """How a program is run, wherever it is.

    A `job` runs detached, so that a lost link costs nothing: the next call with the same name attaches to it or
    collects its end, until `Host.forget`. Any other program ends with the call.
    """

    log: Path | None  # its output goes there too
    timeout_s: float | None
    echo: bool  # its output goes onto the console as it comes
    job: str | None


class Host(ABC):
    """Where things run. `workspace` is absolute; of it the kit writes in the folder `kit` alone."""

    name: str
    workspace: PurePosixPath

    def __init__(self, name: str) -> None:
        self.name = name
        self._held: WorkspaceLock | None = None

    @property
    def kit(self) -> PurePosixPath:
        return self.workspace / KIT

    @abstractmethod
    def path(self, text: str) -> PurePosixPath:
        """A path of the inventory on this host, absolute."""

    @abstractmethod
    def stream(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] | None = None, live: bool = False
    ) -> Generator[bytes, None, Any]:
        """Do one operation of `remote/`, `body` following the request: its frames one by one, its reply as the value.

        `live`: it lasts as long as it lasts, and is told that this process still waits.

        Raises:
            KitError: the host's own sentence.
            LinkLost: the host is not reached any more.
        """

    def close(self, interrupted: bool = False) -> None:
        """Let go of the host; after an interrupt, stop all that runs there and remove all that is half done."""
        if self._held:
            if interrupted:
                with suppress(KitError):
                    self._abandon()
            self._held.release()
            self._held = None

    def _abandon(self) -> None:
        """Again while other threads' operations are under way: one may just have been about to begin a job."""
        deadline = time.monotonic() + ABANDON_S
        while self.call("abandon", {"workspace": str(self.workspace)}):
            if not self._is_busy() or time.monotonic() > deadline:
                return
            time.sleep(0.05)

    @abstractmethod
    def _is_busy(self) -> bool:
        """Whether operations are under way that may begin something."""

    @abstractmethod
    def _try_to_hold(self, request: Mapping[str, Any]) -> WorkspaceLock | Mapping[str, Any]:
        """The workspace's lock, or what is known of who holds it."""

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run a program to its end, with `env` added to its environment; a status that is not 0 is the caller's to
        judge.

        Raises:
            KitError: the program cannot be started, or left no trace.
            OverrunError: it did not end in `timeout_s` and was stopped.
        """
        timeout_s, job = options.get("timeout_s"), options.get("job")
        request: dict[str, Any] = {"argv": list(argv), "env": dict(env or {}), "timeout_s": timeout_s}
        with open_log(options.get("log")) as stream:
            capture = Capture(stream, options.get("echo", False))
            if job is None:
                outcome = self.call("exec", request, sink=capture, live=True)
            else:
                outcome = self.call("job", {**request, "folder": str(self._job(job))}, sink=capture, live=True)
        if "refused" in outcome:
            raise KitError(f"{self.name}: {argv[0]} cannot be started ({outcome['refused']}); is it installed?")
        if "timed_out" in outcome:
            raise OverrunError(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s and was stopped")
        if "lost" in outcome:
            raise KitError(f"{self.name}: {argv[0]} was killed and left no status; run the command again")
        return Completed(outcome["status"], capture.text())

    def has_job(self, job: str) -> bool:
        """Whether an earlier command's job of this name runs, or is finished and was not collected."""
        return self.call("job_state", {"folder": str(self._job(job))}) is not None

    def forget(self, jobs: Sequence[str], paths: Sequence[PurePosixPath] = ()) -> None:
        """Stop what still runs of `jobs`, and remove what is known of them, and `paths`."""
        self.call("stop", {"folders": [str(self._job(job)) for job in jobs], "paths": list(map(str, paths))})

    def call(
        self,
        operation: str,
        request: Mapping[str, Any],
        body: Iterable[bytes] | None = None,
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
                raise KitError(
                    f"{self.name}: {operation} broke off without an answer (it sends what was not asked for)"
                )
            sink.write(block)

    def hold(self) -> None:
        """Hold the workspace until `close`.

        Raises:
            KitError: another operator does, named.
        """
        mine = Owner.this_process()
        stale: Owner | None = None
        while True:
            request = {"workspace": str(self.workspace), "owner": asdict(mine), "stale": stale and asdict(stale)}
            lock = self._try_to_hold(request)
            if not isinstance(lock, Mapping):
                self._held = lock
                return
            holder = Owner.read(lock)
            if holder.is_process_of(mine):
                return  # two hosts of the inventory share a workspace
            if holder == stale or not holder.is_dead():
                raise KitError(f"{self.name}: {self.workspace} is in use by {holder}; wait for it, or end it there")
            stale = holder

    def verify_hold(self) -> None:
        """Raises KitError where the workspace was held and is not any more: another command may work in it now."""
        if self._held:
            self._held.verify()

    def _job(self, job: str) -> PurePosixPath:
        return self.kit / "jobs" / job


def hold_lost(name: str, workspace: PurePosixPath, reason: object) -> KitError:
    kind = LinkLost if isinstance(reason, LinkLost) else KitError  # with the link, or alone
    return kind(
        f"{name}: {workspace} is not held by this command any more ({reason}); nothing more was recorded, for another "
        "may work there now: run the command again"
    )


def open_log(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    """Where a program's output goes, its folder made."""
    if log is None:
        return nullcontext(None)
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("wb")
