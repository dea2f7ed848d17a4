"""The whole job over many clips, memory and open files watched:

    python -m tests.robust.soak [--samples 19796] [--folder work/soak]

The NPU is simulated and its inference shortened, and the network is the sum that it is shortened to: what is soaked is
all that the kit does with the clips and the results. The job runs over the first `--base` clips, then over all: what a
process needs beyond its need in the first run is growth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from deploy.errors import KitError
from deploy.inventory import ROOT
from stgcn.dataset import load_labels, open_clips
from stgcn.sample import CHECKPOINT_NAME, DATA_NAME, LABEL_NAME
from tests.pipeline.conftest import FAB, Job
from tests.robust import processes, short_network
from tests.robust.interrupted import left_aside

STAGES = ("gpu-stage", "npu-convert", "npu-bench", "score")
BATCH_SIZES = [1, 64]
SAMPLE_S = 0.1
MARK = "STGCN_SOAK"


@dataclass
class Need:
    """The most that any process of one kind has needed at one time."""

    resident_mb: float = 0
    open_files: int = 0


def make_dataset(folder: Path, samples: int, base: int) -> None:
    """`samples` clips and their checkpoint in `folder`/all, the first `base` of them in `folder`/base."""
    everything, head = folder / "all", folder / "base"
    argv = [sys.executable, "-m", "stgcn.sample", "--output_dir", str(everything), "--samples", str(samples)]
    subprocess.run([*argv, "--classes", "400"], cwd=ROOT, check=True)
    head.mkdir()
    names, labels = load_labels(everything / LABEL_NAME)
    np.save(head / DATA_NAME, open_clips(everything / DATA_NAME)[:base])
    (head / LABEL_NAME).write_bytes(pickle.dumps((names[:base], labels[:base].tolist()), protocol=2))
    os.link(everything / CHECKPOINT_NAME, head / CHECKPOINT_NAME)


def run(folder: Path, sample: Path) -> dict[str, Any]:
    """Run every stage over a sample in the job at `folder`; what it took and what it left."""
    folder.mkdir(exist_ok=True)
    job = Job(folder, sample, batch_sizes=BATCH_SIZES, benchmark={"loop": 1, "max_repeats": 1})
    job.inventory["gpu"]["python"] = str(short_network.python(folder.parent / "python"))
    job.npu["tools"]["env"] = {"NPU_SIM_SHORTCUT": "1", "NPU_SIM_THREADS": "1"}
    inventory = folder.parent / "inventory.yaml"
    inventory.write_text(yaml.safe_dump(job.inventory))
    needs: dict[str, Need] = {}
    seconds = {stage: watch(stage, inventory, needs) for stage in STAGES}
    return {
        "samples": len(open_clips(sample / DATA_NAME)),
        "seconds": seconds,
        "needs": {kind: asdict(need) for kind, need in sorted(needs.items())},
        "left_aside": left_aside(folder),
        "left_running": processes.with_variable(MARK, str(inventory)),
    }


def watch(stage: str, inventory: Path, needs: dict[str, Need], output: IO[str] | None = None) -> float:
    """Run a stage, its output to a file or to the terminal, and note what its processes need; the seconds it took.

    Raises:
        KitError: it failed.
    """
    environment = {**os.environ, "INVENTORY": str(inventory), MARK: str(inventory)}
    start = time.monotonic()
    with subprocess.Popen([str(FAB), stage], env=environment, cwd=ROOT, stdout=output, stderr=output) as process:
        while process.poll() is None:
            for pid in processes.with_variable(MARK, str(inventory)):
                _note(pid, f"fab {stage}" if pid == process.pid else "", needs)
            time.sleep(SAMPLE_S)
    if process.returncode:
        where = output.name if output else "above"
        raise KitError(f"{stage} ended with {process.returncode}; see {where}")
    return round(time.monotonic() - start, 1)


def _note(pid: int, kind: str, needs: dict[str, Need]) -> None:
    try:
        need = needs.setdefault(kind or _kind(processes.argv(pid)), Need())
        need.resident_mb = max(need.resident_mb, round(processes.resident_bytes(pid) / 1e6, 1))
        need.open_files = max(need.open_files, processes.open_files(pid))
    except (OSError, IndexError):
        pass  # it has just ended, or just begun


def _kind(argv: Sequence[str]) -> str:
    """What a process does: a module that Python runs, operations on a host or the care of a job, a program's name."""
    for option, module in itertools.pairwise(argv):
        if option == "-m":
            return f"python -m {module}"
    if argv[1:2] == ["-I"]:
        return f"host: {argv[4]}"
    return Path(argv[0]).name


def growth(base: dict[str, Any], full: dict[str, Any]) -> dict[str, Any]:
    """How much more each kind of process needed in the full run."""
    return {
        kind: {
            "resident_mb": round(need["resident_mb"] - base["needs"].get(kind, asdict(Need()))["resident_mb"], 1),
            "open_files": need["open_files"] - base["needs"].get(kind, asdict(Need()))["open_files"],
        }
        for kind, need in full["needs"].items()
    }


def soak(folder: Path, samples: int, base: int) -> dict[str, Any]:
    make_dataset(folder / "sample", samples, base)
    runs = [run(folder / "job", folder / "sample" / name) for name in ("base", "all")]
    return {
        "format": 1,
        "simulated": True,
        "shortened": ["NPU inference (NPU_SIM_SHORTCUT)", "network (tests/robust/short_network.py)"],
        "runs": runs,
        "growth": growth(*runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.robust.soak", description=__doc__)
    parser.add_argument("--samples", type=int, default=19796)
    parser.add_argument("--base", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=ROOT / "work/soak")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    try:
        found = soak(options.folder, options.samples, options.base)
    except KitError as error:
        raise SystemExit(f"error: {error}") from None
    for part in ("job", "sample"):
        shutil.rmtree(options.folder / part)
    (options.folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
