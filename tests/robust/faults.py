"""Runs of the kit with a fault at a point of one's choice; faults.c counts the points and makes the faults."""

from __future__ import annotations

import enum
import mmap
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.pipeline.browser import install
from tests.robust import processes

SOURCE = Path(__file__).with_name("faults.c")
PLAN = struct.Struct("4l")  # mode, at, count, fired
MODE = struct.Struct("l")
TIMEOUT_S = 300.0


class Fault(enum.IntEnum):
    """What happens at a point, as faults.c numbers it."""

    NONE = 0
    KILL_ALL = 1  # as by a power cut: every process of the run ends there
    KILL_ONE = 2  # the process that came to the point is killed, the others go on
    FULL = 3  # from the point on the disk is full
    DENIED = 4  # from the point on nothing may be made, renamed or removed
    # While the process that came to the point waits there:
    KILL_SSHD = 5  # the host's sshd is killed, with every connection, and starts again
    KILL_HOLD = 6  # the process is killed that holds the host's workspace


LEAVING = {Fault.KILL_ONE, Fault.KILL_SSHD, Fault.KILL_HOLD}  # after which jobs may go on


@dataclass(frozen=True)
class Point:
    """One change of a file, in the order of a run."""

    number: int
    operation: str
    path: str


@dataclass(frozen=True)
class Ran:
    """A run that ended, or was ended. `fired` is the point that was hit."""

    status: int
    output: str
    points: Sequence[Point]
    fired: Point | None
    hung: bool


class Faults:
    """`folder` takes the compiled faults.c and the plan; every point is a change below `root`. `elsewhere` has what is
    done at a point by this process."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.elsewhere: dict[Fault, Callable[[], None]] = {}
        self._library, self._plan, self._root = folder / "faults.so", folder / "plan", root
        self._trace, self._output = folder / "plan.trace", folder / "output"
        folder.mkdir(parents=True, exist_ok=True)
        install("gcc", "libc6-dev", program="gcc")
        command = ["gcc", "-std=gnu11", "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to come to points."""
        return {"LD_PRELOAD": str(self._library), "FAULTS": str(self._plan), "FAULTS_ROOT": str(self._root)}

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        fault: Fault = Fault.NONE,
        at: int = 0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Ran:
        """Run a program to its end with `fault` at point `at` (from 1); `meanwhile` is called again and again.

        Afterwards nothing that it started runs any more, unless the fault is one of LEAVING: then jobs may go on.
        """
        self._plan.write_bytes(PLAN.pack(fault, at, 0, 0))
        self._trace.write_bytes(b"")
        with (
            self._plan.open("r+b") as file,
            mmap.mmap(file.fileno(), PLAN.size) as plan,
            self._output.open("wb") as out,
        ):
            process = subprocess.Popen(
                list(argv), env={**environment, **self.environment}, stdout=out, stderr=subprocess.STDOUT
            )
            deadline = time.monotonic() + TIMEOUT_S
            while process.poll() is None:
                if (fault is Fault.KILL_ALL and PLAN.unpack(plan[:])[3]) or time.monotonic() > deadline:
                    self.kill_all()
                if fault in self.elsewhere and PLAN.unpack(plan[:])[0] and PLAN.unpack(plan[:])[3]:
                    self.elsewhere[fault]()
                    plan[: MODE.size] = MODE.pack(Fault.NONE)  # so that the process goes on
                meanwhile()
                time.sleep(processes.POLL_S)
            if fault not in LEAVING:
                self.kill_all()
            fired = PLAN.unpack(plan[:])[3]
            plan[:] = PLAN.pack(Fault.NONE, 0, 0, 0)
        output = self._output.read_text(encoding="utf-8", errors="replace")
        points = self._points()
        hit = next((point for point in points if point.number == fired), None)
        return Ran(process.returncode, output, points, hit, time.monotonic() > deadline)

    def running(self) -> list[int]:
        """The processes that belong to a run."""
        return processes.with_variable("FAULTS", str(self._plan))

    def kill_all(self) -> None:
        processes.kill_all("FAULTS", str(self._plan))

    def _points(self) -> list[Point]:
        lines = self._trace.read_text(encoding="utf-8", errors="replace").splitlines()
        split = (line.split(" ", 2) for line in lines)
        return sorted((Point(int(number), operation, path) for number, operation, path in split), key=_number)


def _number(point: Point) -> int:
    return point.number
