"""Cuts a small job short at its writes and renames, and checks what is left, and that the next run mends it:

    python -m tests.robust.interrupted [--cuts 100] [--seed 0]

A cut is faults at points of a stage, run after run, of its first run or of one over its own artefacts. The points of a
stage are those that an undisturbed run of it came by.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import GateFailed
from deploy.inventory import ROOT
from tests.pipeline.browser import install
from tests.pipeline.conftest import FAB, Job
from tests.robust.faults import LEAVING, Fault, Faults, Point, Ran
from tests.robust.reader import Reader, states
from tests.sshd import Sshd

STAGES = ("gpu-stage", "npu-convert", "npu-bench", "score", "report")
SAMPLES = 3
QUIET_S = 20.0  # for what a cut left behind to end by itself
STATUS = {"score": GateFailed.status}  # for the shortened inference knows no class
KILLS = (Fault.KILL_ALL, Fault.KILL_ONE)
ON_THE_HOST = (Fault.KILL_SSHD, Fault.KILL_HOLD)  # of stages whose work is there
FAULTS = (*KILLS, Fault.FULL, Fault.DENIED, *ON_THE_HOST)


@dataclass(frozen=True)
class Cut:
    """Faults at points of a stage: the first run of it comes to the first of them, the next run to the next, and so
    on. `again`: over its own artefacts, with --fresh."""

    stage: str
    again: bool
    faults: Sequence[tuple[Fault, int]]

    def __str__(self) -> str:
        what = ", then ".join(f"{fault.name} at {at}" for fault, at in self.faults)
        return f"{self.stage}{' --fresh' if self.again else ''}: {what}"


@dataclass(frozen=True)
class Outcome:
    """What a cut did: the points that its runs came to (they may be fewer), what was wrong, what was torn."""

    cut: Cut
    hits: Sequence[tuple[Fault, Point]]
    wrong: Sequence[str]
    torn: Sequence[str]
    reads: int


class Story:
    """The whole job, stage by stage, each with the state before it kept: so that any stage can be cut at will.

    The NPU host is reached over SSH. It is simulated and its inference shortened, so that a run takes seconds; so the
    verdict is FAILED.
    """

    def __init__(self, folder: Path, sample: Path) -> None:
        self.folder, self._kept = folder / "job", folder / "kept"
        self.folder.mkdir(parents=True)
        job = Job(self.folder, sample, batch_sizes=[2], benchmark={"loop": 1, "max_repeats": 1, "idle_timeout_s": 4})
        scripts = [str(ROOT / script) for script in job.npu["tools"]["env_scripts"]]  # over SSH paths are its home's
        job.npu["tools"] |= {"env_scripts": scripts, "env": {"NPU_SIM_SHORTCUT": "1", "NPU_SIM_THREADS": "1"}}
        self.faults = Faults(folder / "faults", self.folder)
        install("openssh-server", program="/usr/sbin/sshd")
        self.sshd = Sshd(folder / "sshd", self.faults.environment)
        job.npu |= self.sshd.section
        job.inventory["known_hosts"] = str(self.sshd.known_hosts)
        self._lock = Path(job.npu["workspace"]) / ".stgcn-kit/lock"
        self.faults.elsewhere = {Fault.KILL_SSHD: self.sshd.restart, Fault.KILL_HOLD: self._kill_hold}
        self._inventory = job.folder.parent / "inventory.yaml"
        self._inventory.write_text(yaml.safe_dump(job.inventory))
        self.points: dict[tuple[str, bool], Sequence[Point]] = {}
        self.ends: dict[str, dict[str, set[str]]] = {}

    def __enter__(self) -> Story:
        self.sshd.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.sshd.kill()

    def tell(self, again: bool = True) -> None:
        """Run every stage undisturbed, and `again` over its own artefacts: the points, the ends, the states between."""
        self._keep("start")
        for stage in STAGES:
            self._tell(stage, again=False)
            self._keep(stage)
            self.ends[stage] = states(self.folder)
            if again:
                self._tell(stage, again=True)
                changed = _differences(self.ends[stage], states(self.folder))
                assert not changed, f"{stage} --fresh ends otherwise: {changed}"
                self._restore(stage)

    def _tell(self, stage: str, again: bool) -> None:
        ran = self._run(stage, again)
        assert ran.status == STATUS.get(stage, 0), ran.output
        self.points[stage, again] = ran.points

    def cut(self, cut: Cut) -> Outcome:
        """Cut a stage short, look at what is left, run it again; compare its end with the undisturbed one."""
        before = cut.stage if cut.again else ("start", *STAGES)[STAGES.index(cut.stage)]
        self._restore(before)
        legal = _union(self.ends.get(before, states(self.folder)), self.ends[cut.stage])
        reader, hits, wrong = Reader(self.folder, legal), list[tuple[Fault, Point]](), list[str]()
        for fault, at in cut.faults:
            ran = self._run(cut.stage, cut.again, fault, at, reader)
            reader.look()
            wrong += _complaints(ran)
            hits += [(fault, ran.fired)] if ran.fired else []
            if fault in LEAVING and at % 2:
                self._still_running()  # what the killed process had begun ends while nobody watches
        mended = self._run(cut.stage, cut.again, reader=reader)
        reader.look()
        if mended.status != STATUS.get(cut.stage, 0) or mended.hung:
            wrong.append(f"the next run ended with {mended.status}: {_last_lines(mended.output)}")
        wrong += [f"after the next run, {name}" for name in _differences(self.ends[cut.stage], states(self.folder))]
        wrong += [f"left behind: {name}" for name in left_aside(self.folder)]
        if self._still_running():
            wrong.append("processes are left")
            self.faults.kill_all()
        return Outcome(cut, hits, wrong, reader.torn, reader.read)

    def _run(
        self, stage: str, again: bool = False, fault: Fault = Fault.NONE, at: int = 0, reader: Reader | None = None
    ) -> Ran:
        environment = {**os.environ, "INVENTORY": str(self._inventory), "OMP_NUM_THREADS": "1"}
        argv = [str(FAB), stage, *(["--fresh"] if again else [])]
        return self.faults.run(argv, environment, fault, at, reader.look if reader else lambda: None)

    def _kill_hold(self) -> None:
        """Where there is none yet, or none any more, nothing happens."""
        with suppress(OSError, ValueError):
            os.kill(json.loads(self._lock.read_text())["pid"], signal.SIGKILL)

    def _keep(self, name: str) -> None:
        shutil.copytree(self.folder, self._kept / name, symlinks=True)

    def _restore(self, name: str) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._kept / name, self.folder, symlinks=True)

    def _still_running(self) -> bool:
        deadline = time.monotonic() + QUIET_S
        while self.faults.running():
            if time.monotonic() > deadline:
                return True
            time.sleep(0.1)
        return False


def left_aside(folder: Path) -> list[str]:
    """What was written aside and is nobody's any more, once a run has ended well."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return [path for path in paths if re.search(r"\.(part|tmp|new|raw)$|/\.units|/\.stgcn-kit/(jobs|runs)/.", path)]


def _complaints(ran: Ran) -> Iterator[str]:
    """What is wrong with how a run that came to a fault ended."""
    if ran.hung:
        yield "it hung"
    if "Traceback" in ran.output:
        yield f"a traceback: {_last_lines(ran.output)}"
    if ran.status > 0 and not re.search(r"^error: .+", ran.output, re.M):
        yield f"it ended with {ran.status} and no sentence: {_last_lines(ran.output)}"


def _last_lines(output: str) -> str:
    return " | ".join(output.splitlines()[-4:])


def _union(one: dict[str, set[str]], other: dict[str, set[str]]) -> dict[str, set[str]]:
    return {name: one.get(name, set()) | other.get(name, set()) for name in one.keys() | other.keys()}


def _differences(expected: dict[str, set[str]], found: dict[str, set[str]]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    what = {
        name: "is lacking" if name not in found else "is new" if name not in expected else "differs" for name in names
    }
    return [f"{name} {what[name]}" for name in names if expected.get(name) != found.get(name)]


def chosen(story: Story, cuts: int, seed: int, runs: int = 3) -> list[Cut]:
    """A seeded choice of cuts of `runs` faults each: one of every stage, then by their number of points; each file and
    operation of a stage comes before any of them comes twice."""
    chance = random.Random(seed)
    stages: list[list[Cut]] = []
    for (stage, again), points in story.points.items():
        times: Counter[str] = Counter()
        ranked = []
        for point in chance.sample(list(points), len(points)):
            times[kind_of(point, story.folder)] += 1
            ranked.append((times[kind_of(point, story.folder)], point.number))
        fitting = [fault for fault in FAULTS if stage.startswith("npu-") or fault not in ON_THE_HOST]
        at = [(chance.choice(fitting), number) for _, number in sorted(ranked, key=itemgetter(0))]
        stages.append([Cut(stage, again, at[i : i + runs]) for i in range(0, len(at), runs)])
    order = [cuts_of for cuts_of in stages for _ in cuts_of[1:]]
    turns = [*stages, *chance.sample(order, len(order))]
    return [cuts_of.pop(0) for cuts_of in turns[:cuts]]


def kind_of(point: Point, folder: Path) -> str:
    """`operation file`, what is random in the file's name left out."""
    name = Path(point.path).relative_to(folder).as_posix()
    name = re.sub(r"\d{8}T\d{6}-[0-9a-f]{32}|\b[0-9a-f]{8,}\b", "*", name)
    return f"{point.operation} {re.sub(r'[0-9]+', '#', name)}"


def report(outcomes: Sequence[Outcome], folder: Path, seed: int) -> dict[str, Any]:
    """What was cut, what was found."""
    hits = [(outcome.cut.stage, fault, point) for outcome in outcomes for fault, point in outcome.hits]
    return {
        "format": 1,
        "simulated": True,
        "shortened": ["NPU inference (NPU_SIM_SHORTCUT)"],
        "seed": seed,
        "faults": dict(Counter(fault.name for _, fault, _ in hits)),
        "kills": sum(fault in (*KILLS, *ON_THE_HOST) for _, fault, _ in hits),
        "distinct_points": len({(stage, kind_of(point, folder)) for stage, _, point in hits}),
        "points": dict(Counter(stage for stage, _, _ in hits)),
        "files_read": sum(outcome.reads for outcome in outcomes),
        "torn_files": sum(len(outcome.torn) for outcome in outcomes),
        "failures": [
            {"cut": str(outcome.cut), "wrong": [*outcome.wrong, *(f"torn: {name}" for name in outcome.torn)]}
            for outcome in outcomes
            if outcome.wrong or outcome.torn
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.robust.interrupted", description=__doc__)
    parser.add_argument("--cuts", type=int, default=100, help="of three faults each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "work/interrupted")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    make_sample(options.folder / "sample")
    with Story(options.folder / "story", options.folder / "sample") as story:
        story.tell()
        outcomes = [_told(story, cut) for cut in chosen(story, options.cuts, options.seed)]
    for part in ("sample", "story"):
        shutil.rmtree(options.folder / part)
    found = report(outcomes, story.folder, options.seed)
    (options.folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["failures"]))


def _told(story: Story, cut: Cut) -> Outcome:
    outcome = story.cut(cut)
    print(cut, *(f"    {fault.name}: {kind_of(point, story.folder)}" for fault, point in outcome.hits), sep="\n")
    print(*(f"    WRONG {what}" for what in outcome.wrong), *(f"    TORN {name}" for name in outcome.torn), sep="\n")
    return outcome


def make_sample(folder: Path) -> None:
    argv = [sys.executable, "-m", "stgcn.sample", "--output_dir", str(folder), "--samples", str(SAMPLES)]
    subprocess.run([*argv, "--classes", str(SAMPLES)], cwd=ROOT, check=True, timeout=600)


if __name__ == "__main__":
    main()
