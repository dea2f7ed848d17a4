"""What Ray and the scheduler cost a task: tasks that do nothing, one by one, on a cluster of this machine alone.

python -m benchmarks.overhead [TASKS]
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Before Ray's import reads them; else it writes a token into the home.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

import ray

from deploy.containers.native import Native
from deploy.execution.fleet.cluster import RayHost
from deploy.execution.fleet.scheduler import Fleet
from deploy.hosts.remote.folders import KIT, opened
from deploy.inventory import ROOT, Inventory
from deploy.npu.device import Facts, Smi
from deploy.npu.smi import Chip
from deploy.npu.worker import CachedFile, NpuHost, Place, Rows, Worker

DEVICES = 8


@dataclass(frozen=True)
class Nothing:
    """Work that is done at once."""

    job: str
    files: Sequence[CachedFile]
    inputs: Sequence[Rows] = ()

    def __call__(self, _worker: Worker, _folder: Path) -> None:
        return None


@dataclass(frozen=True)
class Overhead:
    """Of a task, in seconds."""

    alone: float  # from one to the next, one at a time: its device, its model looked after, its folder, its files back
    control: float  # of that the processor's time in the control's own process: it bounds how many run at once


def measure(tasks: int) -> Overhead:
    """The mean over `tasks`; what starts slowly, Ray's own processes, is started before."""
    ray.init(
        "local",
        resources={"NPU": DEVICES, "accelerator_type:Ascend310P3": 1},
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _node_ip_address="127.0.0.20",
        _node_name="here",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(tasks, Path(folder))
    finally:
        ray.shutdown()


def _measure(tasks: int, folder: Path) -> Overhead:
    section = {"name": "here", "runtime": "native", "workspace": str(folder / "host"), "devices": "all"}
    inventory = Inventory.model_validate({"npu": [section]})
    chips = tuple(Chip(0, i, i, "310P3", "OK", "", None, None, 0, 0, 0) for i in range(DEVICES))
    facts = Facts(chips, "Ascend310P3", "", "", None, None, simulated=True)
    host = RayHost(inventory.npu[0], ray.nodes()[0])
    runtime = Native(host)
    fleet = Fleet(inventory, [NpuHost(inventory.npu[0], host, runtime, Smi("here", "", runtime), facts)])
    with opened(str(folder / "host" / KIT), make=True):  # as a command does that holds the workspace
        pass
    model = folder / "model"
    model.write_bytes(b"a model")
    copy = CachedFile.of(model)

    def one(place: Place, number: int) -> None:
        place.send(model)
        place.do(Nothing(str(number), [copy]), folder)

    fleet.on_devices(range(4 * DEVICES), one)
    start, used = time.monotonic(), time.process_time()
    for number in range(tasks):
        fleet.on_devices([number], one)
    return Overhead((time.monotonic() - start) / tasks, (time.process_time() - used) / tasks)


if __name__ == "__main__":
    count = int(sys.argv[1]) if sys.argv[1:] else 1000
    found = measure(count)
    print(f"{1000 * found.alone:.1f} ms a task, {1000 * found.control:.1f} ms of it the control's own ({count} tasks)")
