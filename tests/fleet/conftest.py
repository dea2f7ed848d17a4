"""A Ray cluster on this machine, of loopback addresses alone: a head, and a node for each simulated NPU host."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deploy.execution.fleet  # noqa: F401 (it has Ray report nothing)
from deploy.inventory import ROOT
from tests.pipeline.npu_job import SET_ENV, NpuJob, network

# Before any test imports Ray.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
HAS_RAY = importlib.util.find_spec("ray") is not None  # an extra: `make test-fleet` installs it
collect_ignore_glob = [] if HAS_RAY else ["test_*"]

DEVICES = {"npu-a": 2, "npu-b": 1, "npu-c": 1}
STORE = 80 << 20  # bytes of each node's object store


class Cluster:
    """Nodes 127.0.0.11 and up, named as the inventory's hosts; each its own host with a workspace of its own."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        head = {
            "num_cpus": 0,
            "resources": {"NPU": 2, "accelerator_type:Ascend910B3": 1},  # which nothing may be given to
            "node_ip_address": "127.0.0.10",
            "node_name": "head",
            "include_dashboard": False,
        }
        self._cluster = RayCluster(initialize_head=True, head_node_args={**head, "object_store_memory": STORE})
        self.address: str = self._cluster.address
        self._nodes: dict[str, Any] = {}
        for name in DEVICES:
            self.start(name)

    def start(self, name: str) -> None:
        number = 11 + list(DEVICES).index(name)
        resources = {"NPU": DEVICES[name], "accelerator_type:Ascend310P3": 1}
        self._nodes[name] = self._cluster.add_node(
            num_cpus=DEVICES[name],
            resources=resources,
            object_store_memory=STORE,
            node_ip_address=f"127.0.0.{number}",
            node_name=name,
        )

    def kill(self, name: str) -> None:
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def kill_worker(self, name: str) -> None:
        """End one of a node's processes that run a task now."""
        raylet = self._nodes[name].all_processes["raylet"][0].process.pid
        command = ["pgrep", "-P", str(raylet), "-f", "^ray::run_task"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)

    def whole(self) -> Cluster:
        """With every node again."""
        for name in DEVICES.keys() - self._nodes.keys():
            self.start(name)
        return self

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="package")
def one_cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(one_cluster: Cluster) -> Cluster:
    """With every node alive."""
    return one_cluster.whole()


def job_of(folder: Path, address: str | None = None, **changes: Any) -> NpuJob:
    """The same job for either engine: over the cluster at `address`, else over SSH's (here: local) hosts."""
    folder.mkdir()
    engine = {"kind": "ray", "address": address} if address else {"kind": "ssh"}
    job = NpuJob(folder, **{"samples": 96, "batch_sizes": [4, 8, 16], "engine": engine, **changes})
    # A figure is the simulator's own, so that it never differs, and batches of 16 are the quickest a clip.
    python = script(
        folder / "npu-python",
        """
case "$*" in
    *"--batchsize 16"*"--loop"*) export NPU_SIM_SHORTCUT=1.5 ;;
    *--loop*) export NPU_SIM_SHORTCUT=2 ;;
esac
exec python3 "$@\"""",
    )
    job.inventory["npu"] = [host(job, name, count, python) for name, count in DEVICES.items()]
    return job


def host(job: NpuJob, name: str, devices: int, python: str) -> dict[str, Any]:
    """A host of so many devices. Paths of a node are its home's, so they are absolute here."""
    env = {"NPU_SIM_CHIPS": ",".join(f"{card}:310P3" for card in range(devices)), "NPU_SIM_THREADS": "1"}
    tools = {"env_scripts": [str(ROOT / SET_ENV)], "env": env, "python": python}
    return job.host(name, devices="all", tools=tools)


def play_variants(job: NpuJob) -> None:
    """Have the export of the other variant write the same small network under another name."""
    fused = network()
    fused.graph.name = "fused"
    job.exports(fused)


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/bash{body}\n")
    path.chmod(0o755)
    return str(path)
