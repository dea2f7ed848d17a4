"""The simulated host: its scenario, and what it remembers from one program to the next.

Only a folder named by NPU_SIM_STATE remembers: when a process began to keep a device busy, which device was lost, and
which inference processes run. Without it every program finds the host as the scenario describes it.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scenario import Chip, Scenario


@dataclass(frozen=True)
class Process:
    """A process on a device, as npu-smi shows it."""

    pid: int
    name: str
    memory_mb: int


class Host:
    """Chips that answer, and who works on them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.queries, self.elapsed_s = 0, 0.0

    def chips(self) -> list[Chip]:
        """The chips that answer, in the order of npu-smi."""
        return [chip for chip in self.scenario.chips if chip.device not in self.scenario.lost | self._lost()]

    def lose(self, device: int) -> None:
        """From now on the device is gone, for as long as the state folder stands."""
        if folder := self._folder():
            (folder / f"lost-{device}").touch()

    def _lost(self) -> set[int]:
        folder = self._folder()
        return {int(mark.name[5:]) for mark in folder.glob("lost-*")} if folder else set()

    def query(self) -> None:
        """Count this call of npu-smi, and the time since the first."""
        if not (folder := self._folder()):
            return
        with (folder / "queries").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = json.loads(file.read() or "[]")
            now = time.time()
            self.queries, first = (before[0] + 1, before[1]) if before else (1, now)
            self.elapsed_s = now - first
            file.truncate(0)
            json.dump([self.queries, first], file)

    def processes(self, device: int) -> list[Process]:
        """Who works on a device."""
        others = [
            Process(4200 + device, busy.process, 3072)
            for busy in self.scenario.busy
            if busy.device == device
            and (busy.seconds is None or self.elapsed_s < busy.seconds)
            and (busy.queries is None or self.queries <= busy.queries)
        ]
        return others + self._inferences(device)

    def _inferences(self, device: int) -> list[Process]:
        folder = self._folder()
        pids = sorted(int(mark.name.split("-")[2]) for mark in folder.glob(f"running-{device}-*")) if folder else []
        return [Process(pid, "python", 512) for pid in pids if Path(f"/proc/{pid}").exists()]

    @contextmanager
    def running(self, device: int) -> Iterator[None]:
        """While this lasts, npu-smi shows this process on the device."""
        mark = folder / f"running-{device}-{os.getpid()}" if (folder := self._folder()) else None
        if mark:
            mark.touch()
        try:
            yield
        finally:
            if mark:
                mark.unlink(missing_ok=True)

    def _folder(self) -> Path | None:
        if self.scenario.state is not None:
            self.scenario.state.mkdir(parents=True, exist_ok=True)
        return self.scenario.state
