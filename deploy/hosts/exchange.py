"""A program that runs on a host and does operations, and the exchange with it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from deploy.errors import KitError, LinkLost, host_is_unfit
from deploy.hosts.remote.launch import TOO_OLD, payload
from deploy.hosts.remote.protocol import BLOCK, LEASE_S, MAGIC
from deploy.hosts.replies import checked
from stgcn import plain_json

OPERATION_TIMEOUT_S = 600.0  # without a byte from a file operation, however alive its process is
# Without a sign of life: the process at the other end is stopped, or its host is. Longer than a login's start-up files
# may wait for a lock that a killed login left (pyenv: 60 s).
SILENCE_S = 90.0
HEARTBEAT_S = 5.0
FRAME_BYTES = 4 * BLOCK
NOISE_BYTES = 1 << 20  # of a login's start-up files, before an operation's own output
COMPLAINT_BYTES = 1 << 16  # of standard error
NOISE_SHOWN = 1000
LINE_SHOWN = 500
REPLY_BYTES = 64 << 20  # more in one line is no reply; the longest names every clip of a dataset


class Pipe(Protocol):
    """The ends of a program that runs on a host."""

    def write(self, block: bytes) -> None:
        """Raises OSError when the program or the link is gone, or nothing of `block` is taken for SILENCE_S."""

    def end_input(self) -> None: ...

    def read(self, timeout_s: float) -> bytes | None:
        """What it printed next, b"" at the end, None when nothing came."""

    def complaint(self) -> str:
        """What it said on standard error, once it has ended."""

    def abort(self) -> None:
        """End it from another thread than that which reads."""

    def close(self) -> None: ...


class Exchange:
    """With a process of host `name` (see remote/), one operation after another. `broken` makes the error for what is no
    reply."""

    def __init__(self, name: str, pipe: Pipe, broken: Callable[[str, str], KitError]) -> None:
        self._name, self.pipe, self._broken = name, pipe, broken
        self._buffer, self._noise, self._unsent = bytearray(), b"", payload()
        self._operation, self._live = "", False
        self._has_run = self._begun = False  # whether the process is known to run; whether it has the request
        self._goes_on = self._is_free = False  # whether it takes another operation; whether it waits for one
        self._told = self._heard = self._moved = 0.0  # when each end last spoke, and last said something

    def ask(
        self, operation: str, request: Mapping[str, Any], body: Iterable[bytes] | None = None, live: bool = False
    ) -> bool:
        """Ask for an operation, whose reply `frames` reads; False where the process waited for one and has ended
        meanwhile, so that nothing was done and nothing taken of `body`."""
        self._operation, self._live = operation, live
        self._goes_on, self._is_free, self._begun = body is None, False, False
        self._told = self._heard = self._moved = time.monotonic()
        asked = {"operation": operation, "request": dict(request), "body": body is not None}
        with suppress(OSError):  # it refused the request, and its reply says why; or the link is gone
            self.pipe.write(self._unsent + json.dumps(asked).encode() + b"\n")
            self._unsent = b""
        if self._has_run:
            try:
                self._begin()
            except EOFError:
                error = self._broken(operation, "")
                if isinstance(error, LinkLost):  # what it said may be lost with it
                    raise error from None
                return False
        with suppress(OSError):
            for block in body or ():
                self.pipe.write(block)
                self._heard = self._moved = time.monotonic()
            if body is not None:
                self.pipe.end_input()
        return True

    def is_free(self) -> bool:
        """Whether its process waits for another operation."""
        return self._is_free and self.pipe.read(0) is None

    def frames(self) -> Generator[bytes, None, Any]:
        try:
            if not self._begun:
                self._begin()
            answer = yield from self._until_reply()
        except EOFError:
            said = self.pipe.complaint()
            if self._has_run:
                raise self._broken(self._operation, said) from None
            with host_is_unfit():
                raise self._broken(self._operation, not_run(self._printed(), said)) from None
        self._is_free = self._goes_on and not self._buffer
        if "error" in answer:
            raise KitError(f"{self._name}: {self._operation}: {answer['error']}")
        try:
            return checked(self._operation, answer["ok"])
        except ValueError as error:
            raise self._broken(self._operation, str(error)) from None

    def _begin(self) -> None:
        """Read up to the sign that the process has the request: start-up files may print before it."""
        noise = 0
        while not (line := self._line()).endswith(MAGIC):
            noise += len(line)
            self._noise = (self._noise + line)[-NOISE_SHOWN:]
            if noise > NOISE_BYTES:
                raise self._broken(self._operation, "it prints without end")
        self._noise = b""
        self._has_run = self._begun = True

    def _until_reply(self) -> Generator[bytes, None, dict[str, Any]]:
        while True:
            line = self._line()
            try:
                answer = plain_json.loads(line)
            except ValueError:
                answer = None
            if answer == {"alive": True}:
                continue
            self._moved = time.monotonic()
            match answer:
                case {"bytes": int(size)} if 0 < size <= FRAME_BYTES:
                    yield self._exactly(size)
                case {"ok": _} | {"error": str()}:
                    return dict(answer)
                case {"silent": True}:
                    raise LinkLost(
                        f"{self._name}: {self._operation} heard nothing from this command for {LEASE_S} s: it was "
                        "stopped, or this machine asleep; what runs there goes on: run the command again to resume"
                    )
                case _:
                    said = line[:LINE_SHOWN].decode("utf-8", "replace").strip()
                    raise self._broken(self._operation, said)

    def _line(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REPLY_BYTES:
                raise self._broken(self._operation, "it prints without end")
            self._fill()
        return self._take(end + 1)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        while True:
            if self._live and time.monotonic() - self._told >= HEARTBEAT_S:
                with suppress(OSError):
                    self.pipe.write(b"\n")
                self._told = time.monotonic()
            block = self.pipe.read(HEARTBEAT_S)
            now = time.monotonic()
            if block == b"":
                raise EOFError
            if now - (now if block else self._heard) >= SILENCE_S:
                raise self._silent(SILENCE_S)
            if not self._live and now - self._moved >= OPERATION_TIMEOUT_S:
                raise self._silent(OPERATION_TIMEOUT_S)
            if block:
                self._heard = now
                self._buffer += block
                return

    def _printed(self) -> str:
        """What the login printed in the place of a reply."""
        return (self._noise + self._buffer[:NOISE_SHOWN]).decode("utf-8", "replace")

    def _silent(self, seconds: float) -> LinkLost:
        if not self._has_run and (printed := one_line(self._printed())):
            return LinkLost(
                f"{self._name}: its login printed {printed!r}, and then nothing for {seconds:g} s; have it run what it "
                "is asked (see ForceCommand, and the shell's start-up files)"
            )
        waits = "" if self._has_run else ", or its login's start-up files wait for something"
        return LinkLost(
            f"{self._name}: {self._operation} said nothing for {seconds:g} s, so it is stopped or the host is{waits}; "
            "look after the host, then run the command again: what runs there goes on"
        )


def not_run(printed: str, complained: str) -> str:
    """Why a login did not run Python, from what it printed and complained of instead."""
    if re.search(r"python3\S*:? .*not found|(?:not found|[Uu]nknown command): '?python3", complained):
        return "there is no python3 in the login's PATH; install Python 3.7 or newer there"
    if too_old := re.search(TOO_OLD % ".*", complained):
        return too_old[0]
    if said := one_line(f"{complained}\n{printed}"):
        return f"its login does not run what it is asked, and says: {said}"
    return "its login runs nothing, as /bin/false or nologin would; give it a shell"


def one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines)[-LINE_SHOWN:]
