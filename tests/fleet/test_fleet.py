"""The Ray engine on a real cluster: the same keys, artefacts and bytes as the SSH engine's, whatever is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError, RaySystemError

from deploy.errors import KitError
from deploy.execution.fleet.scheduler import _reason
from deploy.inventory import ROOT
from deploy.pipeline.manifest import Manifest, write_json
from deploy.pipeline.model import find
from deploy.report.summary import summary
from deploy.stages import accuracy, bench, convert, score, tune
from tests.fleet.conftest import DEVICES, Cluster, job_of, play_variants, script
from tests.pipeline.conftest import FAB
from tests.pipeline.npu_job import NpuJob, logits
from tests.robust.reader import lasting

SIZES = (4, 8, 16)
MODEL = find("st_gcn.kinetics", ROOT)


def run(job: NpuJob) -> None:
    with job.connections() as connections:
        convert.run(connections)
        bench.run(connections)


def summary_of(job: NpuJob) -> Any:
    """report/summary.json, without what the moment gave."""
    steps = [f"throughput/bs{size}" for size in SIZES]
    inputs = {"batch_sizes": SIZES, "gate": 0.01, "reference": None, "entries": steps}
    path = job.workspace / "report/summary.json"
    path.parent.mkdir()
    write_json(path, summary(score.evidence(Manifest(job.workspace), MODEL, inputs)))
    return lasting(json.loads(path.read_bytes()), "latency_ms")


@pytest.fixture(scope="session")
def over_ssh(tmp_path_factory: pytest.TempPathFactory) -> NpuJob:
    job = job_of(tmp_path_factory.mktemp("ssh") / "job")
    run(job)
    return job


def test_both_engines_give_the_same_keys_and_bytes(cluster: Cluster, over_ssh: NpuJob, tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", cluster.address)
    run(job)
    for size in SIZES:
        for name in ("logits.npy", "results.tsv", f"st_gcn_bs{size}.om"):
            assert job.path(size, name).read_bytes() == over_ssh.path(size, name).read_bytes()
        for step in (f"convert/bs{size}", f"accuracy/bs{size}", f"throughput/bs{size}"):
            assert (job.entry(step)["key"], job.entry(step)["state"]) == (over_ssh.entry(step)["key"], "OK")
        units = job.entry(f"accuracy/bs{size}")["facts"]["units"]
        assert units.keys() == over_ssh.entry(f"accuracy/bs{size}")["facts"]["units"].keys()
    assert job.entry("convert/bs4")["host"] in DEVICES
    assert summary_of(job) == summary_of(over_ssh)


def test_single_persons_give_the_same_bytes_too(cluster: Cluster, tmp_path: Path) -> None:
    made = []
    for kind, address in (("ray", cluster.address), ("ssh", None)):
        changes = {"samples": 24, "batch_sizes": [8], "persons": "nonempty", "empty": [slice(0, 4), slice(2, 18)]}
        job = job_of(tmp_path / kind, address, **changes)
        with job.connections() as connections:
            convert.run(connections)
            accuracy.run(connections, connections.workspace.build(8), connections.workspace.samples())
        made.append([job.entry("accuracy/bs8")["key"], job.path(8, "logits.npy").read_bytes()])
        assert np.abs(job.logits(8) - logits(job.clips)).max() < 2e-3
    assert made[0] == made[1]


def infer_slowly(job: NpuJob, name: str) -> None:
    """Have a host's ais_bench take so long for a unit that it can be lost over it."""
    tools = next(host for host in job.inventory["npu"] if host["name"] == name)["tools"]
    tools["python"] = script(
        job.folder / "slow-python",
        f"""
case "$*" in *--input*) sleep 5 ;; esac
exec {tools["python"]} "$@\"""",
    )


def once_inferring(job: NpuJob, name: str, does: Callable[[], object]) -> threading.Thread:
    """Do something once a unit's logits are kept, and `name` is at work on another."""

    def wait() -> None:
        kept, begun = (job.workspace / "npu/bs8").glob, (job.folder / name / ".stgcn-kit/runs").glob
        while not (list(kept(".units-*/*.npy")) and list(begun("*/output"))):
            time.sleep(0.05)
        does()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def kill_hold(workspace: Path) -> None:
    """End the process that holds a host's workspace."""
    lock = json.loads((workspace / ".stgcn-kit" / "lock").read_text())
    os.kill(lock["pid"], signal.SIGKILL)


@pytest.mark.parametrize("loss", ["node", "worker", "hold"])
def test_what_is_lost_in_mid_run_is_done_elsewhere(
    cluster: Cluster, over_ssh: NpuJob, tmp_path: Path, loss: str, capsys: Any
) -> None:
    job = job_of(tmp_path / "job", cluster.address, batch_sizes=[8])
    infer_slowly(job, "npu-b")
    lose = {
        "node": lambda: cluster.kill("npu-b"),
        "worker": lambda: cluster.kill_worker("npu-b"),
        "hold": lambda: kill_hold(job.folder / "npu-b"),
    }
    with job.connections() as connections:
        convert.run(connections)
        thread = once_inferring(job, "npu-b", lose[loss])
        accuracy.run(connections, connections.workspace.build(8), connections.workspace.samples())
        thread.join()
    assert job.path(8, "logits.npy").read_bytes() == over_ssh.path(8, "logits.npy").read_bytes()
    assert "goes to another: its" in capsys.readouterr().out


def test_an_interrupt_leaves_nothing_running_and_the_next_run_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", cluster.address, samples=64, batch_sizes=[8])
    for name in DEVICES:
        infer_slowly(job, name)
    with job.connections() as connections:
        convert.run(connections)
    command = [str(FAB), "npu-bench"]
    environment = {**os.environ, "INVENTORY": str(job.folder / "inventory.yaml")}
    kit = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    once_inferring(job, "npu-b", lambda: kit.send_signal(signal.SIGINT)).join()
    output = kit.communicate()[0]
    assert (kit.returncode, output.splitlines()[-1]) == (
        130,
        "interrupted; run the command again to resume",
    )
    assert "goes to another" not in output
    for name in DEVICES:
        assert not list((job.folder / name / ".stgcn-kit").glob("[jr][ou]*/*"))
    assert subprocess.run(["pgrep", "-f", str(job.folder)], stdout=subprocess.DEVNULL).returncode == 1
    with job.connections() as connections:
        accuracy.run(connections, connections.workspace.build(8), connections.workspace.samples())
    assert np.abs(job.logits(8) - logits(job.clips)).max() < 2e-3


def sweep(folder: Path, address: str | None) -> tuple[dict[str, Any], str]:
    """tune.json without what the moment gave, and the winner's inventory."""
    settings = {"variants": ["reference", "fused"], "persons": ["both"], "aoe": [], "batch_sizes": [8, 16, 32]}
    job = job_of(folder, address, tune={**settings, "samples": 8})
    job.inventory["benchmark"]["max_repeats"] = 1
    play_variants(job)
    with job.connections() as connections:
        tune.run(connections)
    found = job.workspace / "tune"
    return lasting(json.loads((found / "tune.json").read_text()), "latency_ms"), (found / "inventory.yaml").read_text()


def test_a_sweep_has_the_same_winner_table_with_both_engines(cluster: Cluster, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(sweep, tmp_path / "ssh", None)
        on_ray, over_ssh = sweep(tmp_path / "ray", cluster.address), waiting.result()
    assert len(over_ssh[0]["outcomes"]) == 12
    assert over_ssh[0]["outcomes"][0]["batch_size"] == 16
    assert on_ray == over_ssh


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"name": "npu-z"},
            r"npu-z: the Ray cluster at .* has no node of this name \(it has head, npu-a,",
        ),
        ({"devices": [0]}, r"npu-a: its Ray node offers 2 NPU and 1 .* devices are 1 NPU .*--resources="),
    ],
)
def test_a_host_that_the_cluster_does_not_have_so_is_refused(
    cluster: Cluster, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    job = job_of(tmp_path / "job", cluster.address)
    job.inventory["npu"][0] |= changes
    with pytest.raises(KitError, match=sentence), job.connections() as connections:
        convert.run(connections)


def test_work_that_no_device_can_do_is_named_and_the_next_run_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", cluster.address, samples=24, batch_sizes=[8])
    for number in range(len(DEVICES)):
        job.play(number, FAULT="crash@1")
    with job.connections() as connections:
        convert.run(connections)
        with pytest.raises(
            KitError, match=r"accuracy/bs8, samples \d+ to \d+: .*npu-[abc].* goes on from what is done"
        ):
            accuracy.run(connections, connections.workspace.build(8), connections.workspace.samples())
    job.play(0, FAULT="")
    job.play(2, FAULT="")
    with job.connections() as connections:
        accuracy.run(connections, connections.workspace.build(8), connections.workspace.samples())
    assert job.entry("accuracy/bs8")["facts"]["units"]["npu-b:0"] == 0
    assert np.abs(job.logits(8) - logits(job.clips)).max() < 2e-3


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ObjectStoreFullError("put failed"), "Ray's object store is full; give its nodes more with"),
        (OutOfDiskError("put failed"), "the disk is full to which Ray's object store spills"),
        (OutOfMemoryError("a task"), "its host ran out of memory"),
        (RaySystemError("raylet"), "RaySystemError in Ray"),
    ],
)
def test_what_ray_raises_is_told_in_the_operators_words(error: RayError, sentence: str) -> None:
    assert sentence in _reason(error)
