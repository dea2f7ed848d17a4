"""The whole job of 19796 samples at six batch sizes, over a link of 1 Gbit/s and 1 ms: the kit against the guide's way.

The tools' own time (ATC, inference) is taken out on both sides: the device is simulated, its inference shortened to a
sum (tests/robust/short_network.py is the network), and the time in which one of the tools runs is not counted. Nor is
the fp32 reference, which the guide has none of. The export is counted as ST-GCN's, which is timed apart. What is left
is what a way itself costs: the kit's `gpu-stage`, `npu-convert`, `npu-bench` and `score`; the guide's preprocessing,
export, `scp -r` of the clips there and of the results back, and scoring. What the guide does sample by sample is
measured on a part and continued in a straight line from a few clips, so that no program's start is multiplied.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from benchmarks import data
from benchmarks.data import Dataset
from benchmarks.harness import LeftOutError, Scratch, Spread, module
from benchmarks.push import Pair
from deploy.errors import KitError
from deploy.inventory import ROOT, load
from tests.robust import short_network, soak
from tests.robust.soak import Need
from tests.system.network import Network, two_hosts

CLIPS = int(os.environ.get("WHOLE_JOB_CLIPS", data.WHOLE))
FEW = 10  # clips, whose time is almost all of starting programs and connections
PART = 1000  # clips of which the guide's way is measured
EVERY_STREAM = 5120  # clips with which the kit has all streams and both hands under way: what it needs is no more then
BATCH_SIZES = [1, 4, 8, 16, 32, 64]
STAGES = soak.STAGES
FLAT = [f"fab {stage}" for stage in STAGES]  # whose needs are not to grow with the clips
DEVICE_S = 494.0  # that the guide's device computes for 19796 samples at these batch sizes, by its own figures
# A program whose runs are noted in a log, with their beginning and end; `$1`... are its arguments.
_TIMED = """#!/bin/bash
case "$*" in {wanted}) ;; *) exec {program} "$@" ;; esac
begin=$(date +%s.%N)
{program} "$@"
status=$?
echo "$begin $(date +%s.%N)" >> {log}
exit $status
"""


def compare(place: Scratch) -> dict[str, Spread]:
    if os.getuid() != 0:
        raise LeftOutError("two hosts on one machine need root: run `make bench` as root for these lines")
    few, checkpoint = data.sample(place)
    with place.fresh() as folder, two_hosts(folder) as network, network.gigabit() as port:
        pair = Pair(network, port)
        part = data.repeated(few, min(EVERY_STREAM, CLIPS), folder / "part")
        _, needed = _kit(pair, part, checkpoint, folder / "kit-part")
        kit, needs = _kit(pair, data.repeated(few, CLIPS, folder / "everything"), checkpoint, folder / "kit")
        export = module("benchmarks.guide.network", "--ckpt", checkpoint, "--onnx", folder / "guide.onnx")
        sizes = FEW, min(PART, CLIPS)
        times = [_guide(place, pair, data.repeated(few, n, folder / f"guide-{n}"), folder / f"of-{n}") for n in sizes]
        guide = export + continued(sizes, times, CLIPS)
    return {
        "whole_job_vs_guide": Spread.of([guide / kit]),
        "whole_job": Spread.of([kit]),
        "whole_job_own_share": Spread.of([kit / DEVICE_S]),
        "whole_job_memory": Spread.of([max(needs[kind].resident_mb - needed[kind].resident_mb for kind in FLAT)]),
        "whole_job_open_files": Spread.of([max(needs[kind].open_files - needed[kind].open_files for kind in FLAT)]),
    }


def continued(sizes: tuple[int, int], times: Sequence[float], size: int) -> float:
    """The time of `size` clips, on the straight line through those of two other numbers of them."""
    return times[0] + (times[1] - times[0]) / (sizes[1] - sizes[0]) * (size - sizes[0])


def _guide(place: Scratch, pair: Pair, dataset: Dataset, folder: Path) -> float:
    """Seconds of what the guide's way does for each clip and each result, at all batch sizes."""
    made, back = folder / "made", folder / "back"
    made.mkdir(parents=True)
    results = data.results(folder / "results", dataset.labels)
    flags = ("--result_dir", results, "--label_path", dataset.labels)
    seconds = module("benchmarks.guide.preprocess", *dataset.flags, "--output_dir", made)
    place.settle()
    seconds += pair.scp(made / "val_data", folder / "there")
    seconds += len(BATCH_SIZES) * pair.scp_back(results, back)
    seconds += len(BATCH_SIZES) * module("benchmarks.guide.score", *flags)
    if len(list(back.iterdir())) != len(np.load(dataset.clips, mmap_mode="r")):
        raise KitError("the guide's way did not bring every result back")
    return seconds


def _kit(pair: Pair, dataset: Dataset, checkpoint: Path, folder: Path) -> tuple[float, dict[str, Need]]:
    """Seconds of the kit's stages, less those of the tools and the reference, and what the processes need."""
    inventory = _inventory(pair.network, pair.port, dataset, checkpoint, folder)
    export = module("stgcn.export", "--ckpt", checkpoint, "--onnx", folder / "st_gcn.onnx")
    needs: dict[str, Need] = {}
    start = time.time()
    for stage in STAGES:
        log = folder / f"{stage}.log"
        try:
            with log.open("w") as output:
                soak.watch(stage, inventory, needs, output)
        except KitError:
            said = log.read_text().strip().rpartition("\n")[2]
            raise KitError(f"{stage} failed in the benchmark: {said}") from None
    return export + time.time() - start - covered(_spans(folder / "tools.log")), needs


def covered(spans: list[tuple[float, float]]) -> float:
    """The seconds in which at least one of the spans was under way."""
    total, reached = 0.0, 0.0
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _spans(log: Path) -> list[tuple[float, float]]:
    return [(float(begin), float(end)) for begin, end in map(str.split, log.read_text().splitlines())]


def _inventory(network: Network, port: int, dataset: Dataset, checkpoint: Path, folder: Path) -> Path:
    folder.mkdir()
    simulator = ROOT / "docker/npu/simulator"
    atc = _program(folder / "atc", _TIMED, wanted="*--model*", program=simulator / "bin/atc", log=folder / "tools.log")
    infer = _program(folder / "infer", _TIMED, wanted="*ais_bench*", program="python3", log=folder / "tools.log")
    played = short_network.python(folder / "played")
    wanted = "*stgcn.export*|*stgcn.reference*"
    python = _program(folder / "python", _TIMED, wanted=wanted, program=played, log=folder / "tools.log")
    demo = yaml.safe_load((ROOT / "inventory.demo.yaml").read_text())
    tools = {
        "env_scripts": [str(simulator / "set_env.sh")],
        "env": {"NPU_SIM_SHORTCUT": "1", "NPU_SIM_THREADS": "1"},
        "python": str(infer),
        "atc": str(atc),
    }
    content = {
        **demo,
        "workspace": str(folder / "work"),
        "gpu": {"connection": "local", "runtime": "native", "python": str(python)},
        "npu": [{**network.npu_section(folder / "npu"), "port": port, "devices": [0], "tools": tools}],
        "known_hosts": str(network.known_hosts),
        "dataset": {"data": str(dataset.clips), "labels": str(dataset.labels)},
        "checkpoint": str(checkpoint),
        "batch_sizes": BATCH_SIZES,
        "benchmark": {"loop": 1, "max_repeats": 1},
        "gate": 0.99,
    }
    path = folder / "inventory.yaml"
    path.write_text(yaml.safe_dump(content))
    load(path)
    return path


def _program(path: Path, text: str, **values: object) -> Path:
    path.write_text(text.format(**values))
    path.chmod(0o755)
    return path
