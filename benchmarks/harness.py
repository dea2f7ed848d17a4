"""What every comparison shares: ways taken in turns from the same starting state, and the spread of what came out."""

from __future__ import annotations

import mmap
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import KitError
from deploy.inventory import ROOT
from tests.system.network import OPENSSL_CPU

ROOM_BYTES = 8 << 30  # of scratch: 19796 clips as one array and as files, and 2 GiB to spare
TOUCHED_BYTES = 512 << 20  # before a run: more than any writes that is compared by its time
PAGE = mmap.PAGESIZE

Way = Callable[[], float]  # does the job once and returns its figure, mostly seconds


class LeftOutError(KitError):
    """A comparison that this machine cannot make; the sentence says why."""


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of the repeats of one run."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        return cls(statistics.median(figures), min(figures), max(figures), len(figures))

    @classmethod
    def of_ratios(cls, slower: Sequence[float], faster: Sequence[float]) -> Spread:
        """How many times `faster` fits into `slower`, repeat by repeat: neighbours in time share the machine's mood."""
        return cls.of([one / other for one, other in zip(slower, faster, strict=True)])


def run(*command: str | Path) -> float:
    """Run a program to its end, its output thrown away; seconds.

    Raises:
        KitError: it failed; the last line that it said is why.
    """
    start = time.perf_counter()
    _output(*command)
    return time.perf_counter() - start


def module(name: str, *arguments: str | Path, python: str | Path = sys.executable) -> float:
    """`run` of `python -m name`."""
    return run(python, "-m", name, *arguments)


# What a program took at most is never told as less than what its parent had, so its parent is a small one.
_PEAK = """
import os, sys
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ), 0)
print(usage.ru_maxrss)
sys.exit(os.WEXITSTATUS(status) or os.WTERMSIG(status))
"""


def module_peak_mb(name: str, *arguments: str | Path) -> float:
    """Run `python -m name` to its end; the megabytes that it had resident at most. Raises as `run`."""
    said = _output(sys.executable, "-S", "-c", _PEAK, sys.executable, "-m", name, *arguments)
    return int(said.split()[-1]) * 1024 / 1e6


def _output(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise KitError(f"a program of the benchmark failed ({last}): {shlex.join(map(str, command))}")
    return done.stdout


class Scratch:
    """Where the data lie: in memory when there is room, so that the programs are measured and not the disk."""

    def __init__(self, folder: Path, filesystem: str) -> None:
        self.folder, self.filesystem, self._made = folder, filesystem, 0

    def in_turns(self, ways: Mapping[str, Way], repeats: int) -> dict[str, list[float]]:
        """The figures of every way, which take turns, another one first in each repeat, each after `settle`."""
        names, figures = list(ways), {name: list[float]() for name in ways}
        for repeat in range(repeats):
            for place in range(len(names)):
                name = names[(repeat + place) % len(names)]
                self.settle()
                figures[name].append(ways[name]())
        return figures

    def settle(self) -> None:
        """One starting state for all: nothing left to be written, and free memory that the machine already has.

        A virtual machine's host may give it memory only when it is touched: many times slower, for whoever comes first.
        """
        run("sync", "-f", self.folder)
        with mmap.mmap(-1, TOUCHED_BYTES) as memory:
            for page in range(0, TOUCHED_BYTES, PAGE):
                memory[page] = 1

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """A new empty folder. On a disk it stays until the end: making files slows down after thousands are deleted."""
        self._made += 1
        folder = self.folder / f"fresh-{self._made}"
        folder.mkdir()
        yield folder
        if self.filesystem == "tmpfs":
            shutil.rmtree(folder)


@contextmanager
def scratch() -> Iterator[Scratch]:
    """A folder in /dev/shm, else in work/; SCRATCH names another place.

    Raises:
        KitError: it has too little room.
    """
    shared = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
    work = ROOT / "work"
    chosen = Path(os.environ["SCRATCH"]) if os.environ.get("SCRATCH") else shared if _has_room(shared) else work
    if chosen == work:
        work.mkdir(exist_ok=True)
    if not _has_room(chosen):
        raise KitError(f"the benchmark needs {ROOM_BYTES >> 30} GiB in {chosen}; free them or set SCRATCH=FOLDER")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen) as folder:
        yield Scratch(Path(folder), _filesystem(chosen))


def _has_room(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    room = shutil.disk_usage(folder).free
    if _filesystem(folder) == "tmpfs":
        room = min(room, os.sysconf("SC_AVPHYS_PAGES") * PAGE)
    return room >= ROOM_BYTES


def _filesystem(folder: Path) -> str:
    command = ["stat", "-f", "-c", "%T", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def has_sha() -> bool:
    """Whether the CPU has instructions for a sha256 that OpenSSL may use."""
    return OPENSSL_CPU not in os.environ and bool({"sha_ni", "sha2"} & set(_of_cpu("flags", "Features").split()))


def _of_cpu(*names: str) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def machine(place: Scratch) -> str:
    """What the figures were taken on."""
    model = _of_cpu("model name") or "CPU"
    sha = "with" if has_sha() else "with hidden" if OPENSSL_CPU in os.environ else "without"
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30
    cores = f"{len(os.sched_getaffinity(0))} cores of {model} {sha} SHA instructions"
    return f"{cores}, {memory:.0f} GiB, data on {place.filesystem}"
