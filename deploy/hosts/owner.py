"""Who holds a workspace: shown to others, and enough to tell on the same machine whether it still lives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploy.hosts.remote.processes import identity
from deploy.pipeline.manifest import operator


@dataclass(frozen=True)
class Owner:
    who: str  # user@machine
    pid: int
    started: int  # of the process, in clock ticks since boot: with it a pid is never mistaken
    machine: str  # this boot of that machine, and its process numbers
    since: str

    def __str__(self) -> str:
        return f"{self.who} (process {self.pid}, since {self.since})"

    @classmethod
    def this_process(cls) -> Owner:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(operator(), os.getpid(), _started(os.getpid()), identity(), now)

    @classmethod
    def read(cls, record: Any) -> Owner:
        """From what a host keeps; a torn record is somebody unknown."""
        unknown: dict[str, Any] = {"who": "someone", "pid": 0, "started": 0, "machine": "", "since": "unknown"}
        values = {name: record.get(name) if isinstance(record, dict) else None for name in unknown}
        torn = {name: value for name, value in unknown.items() if type(values[name]) is not type(value)}
        return cls(**{**values, **torn})

    def is_process_of(self, other: Owner) -> bool:
        return (self.machine, self.pid, self.started) == (other.machine, other.pid, other.started)

    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is no more."""
        return self.machine == identity() and _started(self.pid) != self.started


def _started(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)); 0 where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
