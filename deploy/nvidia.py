"""The GPUs of a host as nvidia-smi tells of them, and whether one is idle."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.errors import KitError
from deploy.hosts.host import Host

FIELDS = ("index", "uuid", "name", "utilization.gpu", "memory.used", "memory.total", "driver_version")
GPUS = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
PROGRAMS = ("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name", "--format=csv,noheader,nounits")
TIMEOUT_S = 60.0
IDLE_PERCENT = 5


@dataclass(frozen=True)
class Gpu:
    """What nvidia-smi says of one GPU; None for what it does not tell."""

    index: int
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
        return ", ".join(reasons) or None


def gpus(host: Host) -> list[Gpu]:
    """Of a host, in nvidia-smi's order; none where it has no nvidia-smi or no GPU."""
    try:
        told, programs = (host.run(list(command), timeout_s=TIMEOUT_S) for command in (GPUS, PROGRAMS))
    except KitError:
        return []
    return parse(told.output, programs.output) if told.status == 0 else []


def parse(told: str, programs: str) -> list[Gpu]:
    """The GPUs of the output of GPUS and PROGRAMS. Lines of another form are left out."""
    running = [(row[0], row[1], ", ".join(row[2:])) for row in _rows(programs) if len(row) > 2 and row[1].isdigit()]
    found = []
    for row in _rows(told):
        if len(row) != len(FIELDS) or not row[0].isdigit():
            continue
        own = tuple(f"{name} (pid {pid})" for uuid, pid, name in running if uuid == row[1])
        use, used, total = (int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None for value in row[3:6])
        found.append(Gpu(int(row[0]), row[2], use, used, total, row[6], own))
    return found


def _rows(text: str) -> list[Sequence[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), skipinitialspace=True)]
