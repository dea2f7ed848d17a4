"""The GPUs of a host as nvidia-smi tells of them, and whether one is idle."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.console import say
from deploy.errors import KitError, OverrunError
from deploy.hosts.host import Host

FIELDS = ("index", "uuid", "name", "utilization.gpu", "memory.used", "memory.total", "driver_version")
GPUS = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
PROGRAMS = ("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name", "--format=csv,noheader,nounits")
TIMEOUT_S = 60.0
IDLE_PERCENT = 5
HELD = 0.2  # of the memory, which tells of programs that nvidia-smi does not show: in a container it shows none
NO_DEVICES, NOT_FOUND = 6, 127  # statuses


@dataclass(frozen=True)
class Gpu:
    """What nvidia-smi says of one GPU; None for what it does not tell."""

    index: int
    uuid: str
    name: str
    utilisation: int | None  # percent
    memory_used_mb: int | None
    memory_total_mb: int | None
    driver: str
    programs: tuple[str, ...]  # that compute on it

    @property
    def busy(self) -> str | None:
        """Why it is not idle."""
        reasons = list(self.programs)
        if self.utilisation is not None and self.utilisation > IDLE_PERCENT:
            reasons.append(f"{self.utilisation} % in use")
        used, total = self.memory_used_mb or 0, self.memory_total_mb or 0
        if not self.programs and 0 < HELD * total < used:
            reasons.append(f"{used} of {total} MB of memory held")
        return ", ".join(reasons) or None


def gpus(host: Host) -> list[Gpu]:
    """Of a host, in nvidia-smi's order; none where it has no nvidia-smi or no GPU, or, with a warning, it fails."""
    try:
        told = host.run(list(GPUS), timeout_s=TIMEOUT_S)
        programs = host.run(list(PROGRAMS), timeout_s=TIMEOUT_S).output if told.status == 0 else ""
    except OverrunError:
        say(f"  {host.name}: nvidia-smi does not answer within {TIMEOUT_S:g} s", "yellow")
        return []
    except KitError:
        return []
    if told.status not in (0, NO_DEVICES, NOT_FOUND):
        said = next(iter(told.output.strip().splitlines()), "it says nothing")[:200]
        say(f"  {host.name}: nvidia-smi fails with exit status {told.status}: {said}", "yellow")
    return parse(told.output, programs) if told.status == 0 else []


def first(found: Sequence[Gpu], visible: str | None) -> Gpu | None:
    """The one that CUDA calls 0, where CUDA_VISIBLE_DEVICES is `visible`; None where it is none of these."""
    if visible is None or visible.startswith("MIG"):
        return next(iter(found), None)
    name = visible.partition(",")[0].strip()
    return next((gpu for gpu in found if name == str(gpu.index) or (name and gpu.uuid.startswith(name))), None)


def parse(told: str, programs: str) -> list[Gpu]:
    """The GPUs of the output of GPUS and PROGRAMS. Lines of another form are left out.

    A program of none of them, such as of a partition (`MIG-...`), may be any's.
    """
    running = [(row[0], row[1], ", ".join(row[2:])) for row in _rows(programs) if len(row) > 2 and row[1].isdigit()]
    found = []
    rows = [row for row in _rows(told) if len(row) == len(FIELDS) and row[0].isdigit()]
    uuids = {row[1] for row in rows}
    for row in rows:
        own = tuple(f"{name} (pid {pid})" for uuid, pid, name in running if uuid == row[1] or uuid not in uuids)
        use, used, total = (int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None for value in row[3:6])
        found.append(Gpu(int(row[0]), row[1], row[2], use, used, total, row[6], own))
    return found


def _rows(text: str) -> list[Sequence[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), skipinitialspace=True)]
