"""The whole job across two hosts, undisturbed and cut wherever it can be cut: the same verdict, the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import HOST_UNFIT
from stgcn.files import sha256_file
from tests.system.conftest import Kit, clips_of, inventory
from tests.system.network import Network
from tests.theirs import harmed, plant

STAGES = ("gpu-stage", "npu-convert", "npu-bench", "score")


def waited_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_done(kit: Kit) -> set[str]:
    path = kit.workspace / "manifest.json"
    steps = json.loads(path.read_bytes())["steps"] if path.exists() else {}
    return {name for name, entry in steps.items() if entry["state"] == "OK"}


@pytest.fixture
def after_gpu_stage(undisturbed: Kit, network: Network, sample: Path, tmp_path: Path) -> Kit:
    """A kit of its own that has the GPU stage behind it."""
    shutil.copytree(undisturbed.workspace / "gpu", tmp_path / "work" / "gpu")
    shutil.copy(undisturbed.workspace / "manifest.json", tmp_path / "work")
    kit = Kit(network, tmp_path, inventory(network, tmp_path, sample))
    forget(kit, ("convert", "accuracy", "throughput", "score", "report"))
    return kit


def forget(kit: Kit, kinds: tuple[str, ...]) -> None:
    path = kit.workspace / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["steps"] = {k: v for k, v in manifest["steps"].items() if k.partition("/")[0] not in kinds}
    path.write_text(json.dumps(manifest))


def remote(kit: Kit) -> Path:
    return Path(kit.inventory["npu"][0]["workspace"])


def same_clips(kit: Kit, sample: Path) -> bool:
    """Whether the NPU host has the dataset's bytes."""
    data = np.load(sample / "val_data.npy")
    there = clips_of(next((remote(kit) / ".stgcn-kit/clips").iterdir()))
    return np.array_equal(there, data.reshape(len(data), -1).view(np.uint8))


def nothing_left(kit: Kit, network: Network) -> None:
    """No process, lock, job or half file on either host."""
    waited_for(lambda: not [p for p in network.npu.processes() if p not in network.npu.processes("sshd")])
    for workspace in (kit.workspace, remote(kit)):
        assert not (workspace / ".stgcn-kit" / "lock").exists()
        assert not list(workspace.glob(".stgcn-kit/jobs/*")) + list(workspace.glob(".stgcn-kit/runs/*"))
        assert not list(workspace.rglob("*.part")) + list(workspace.rglob("*.tmp"))


def test_the_two_hosts_have_the_same_bytes(undisturbed: Kit, sample: Path, network: Network) -> None:
    data = np.load(sample / "val_data.npy")
    assert np.array_equal(
        clips_of(next((remote(undisturbed) / ".stgcn-kit/clips").iterdir())), data.reshape(len(data), -1).view(np.uint8)
    )
    there = {path.name: sha256_file(path) for path in (remote(undisturbed) / ".stgcn-kit/files").glob("*/*")}
    here = [undisturbed.workspace / "gpu" / "st_gcn.onnx", *undisturbed.workspace.glob("npu/bs*/*.om")]
    assert there == {path.name: sha256_file(path) for path in here}
    assert undisturbed.summary()["device"]["simulated"]
    nothing_left(undisturbed, network)


def test_a_second_run_does_nothing(undisturbed: Kit) -> None:
    output = undisturbed.run(*STAGES)
    assert " OK " not in output
    assert output.count("CACHED") == 3 + 3 * 2 + 2


def test_a_laptop_controls_both_hosts(undisturbed: Kit, network: Network, sample: Path, tmp_path: Path) -> None:
    """Data and checkpoint lie on the GPU host, relative to the login's home; the clips pass through the laptop."""
    shutil.copytree(sample, network.gpu.home / "sample")
    kit = Kit(network, tmp_path, inventory(network, tmp_path, sample))
    gpu = kit.inventory["npu"][0] | {"name": "gpu", "host": network.gpu.address, "workspace": "gpu work"}
    del gpu["tools"]
    kit.inventory |= {
        "gpu": {**gpu, "python": sys.executable},
        "dataset": {"data": "sample/val_data.npy", "labels": "sample/val_label.pkl"},
        "checkpoint": "sample/st_gcn.sample.pth",
        "batch_sizes": [2],
    }
    kit.write()
    kit.run(*STAGES)
    expected = undisturbed.summary()
    expected["batches"] = [batch for batch in expected["batches"] if batch["batch_size"] == 2]
    assert kit.summary() == expected
    for name in ("st_gcn.onnx", "reference.npy", "labels.npy"):
        assert sha256_file(kit.workspace / "gpu" / name) == sha256_file(undisturbed.workspace / "gpu" / name)
    assert same_clips(kit, sample)
    nothing_left(kit, network)
    kit.run("clean")
    assert not list(remote(kit).iterdir())
    assert not list((network.gpu.home / "gpu work").iterdir())


def test_a_users_folders_keep_their_bytes(network: Network, sample: Path, tmp_path: Path) -> None:
    """In and around the workspaces of control and both hosts, in every stage there is."""
    kit = Kit(network, tmp_path, inventory(network, tmp_path, sample, batch_sizes=[2]))
    gpu = kit.inventory["npu"][0] | {
        "name": "gpu",
        "host": network.gpu.address,
        "workspace": str(tmp_path / "gpu/work"),
    }
    kit.inventory["gpu"] = {**{key: gpu[key] for key in gpu.keys() - {"tools"}}, "python": sys.executable}
    kit.inventory["tune"] = {
        "variants": ["reference"],
        "precision_modes": ["force_fp16"],
        "persons": ["both"],
        "aoe": [],
    }
    kit.write()
    places = (kit.workspace, remote(kit), tmp_path / "gpu/work", tmp_path / "gpu", tmp_path)
    before = {place: plant(place) for place in places}
    kit.run("doctor", *STAGES, "report", "audit", "status", "npu-tune")
    kit.run("gpu-stage", "--fresh", "npu-convert", "--fresh", "npu-bench", "--fresh", "score", "prune", "--keep=1")
    kit.run("clean")
    assert not list(tmp_path.glob("*/.stgcn-kit/clips"))
    assert not {place: found for place, was in before.items() if (found := harmed(place, was))}


def test_the_control_process_killed_in_each_stage(
    undisturbed: Kit, network: Network, sample: Path, tmp_path: Path
) -> None:
    kit = Kit(network, tmp_path, inventory(network, tmp_path, sample, batch_sizes=[1]))
    moments: dict[str, list[Callable[[], bool]]] = {
        "gpu-stage": [lambda: "export" in jobs(kit.workspace), lambda: "reference" in jobs(kit.workspace)],
        "npu-convert": [lambda: "convert" in jobs(remote(kit))],
        "npu-bench": [
            lambda: bool(list((remote(kit) / ".stgcn-kit/clips").glob("*"))),
            lambda: "accuracy" in jobs(remote(kit)),
            lambda: "throughput" in jobs(remote(kit)),
        ],
        "score": [(kit.workspace / ".stgcn-kit" / "lock").exists],
    }
    output = ""
    for stage in STAGES:
        for moment in moments[stage]:
            process = kit.start(stage)
            waited_for(moment)
            process.kill()
            output += process.communicate()[0]
        output += kit.run(stage)
    assert output.count("was started before") >= 4  # what ran detached went on
    expected = undisturbed.summary()
    expected["batches"] = [batch for batch in expected["batches"] if batch["batch_size"] == 1]
    assert kit.summary() == expected
    nothing_left(kit, network)


def jobs(workspace: Path) -> str:
    return " ".join(path.parent.name for path in workspace.glob(".stgcn-kit/jobs/*/log"))


def test_a_killed_bench_process(undisturbed: Kit, after_gpu_stage: Kit, network: Network) -> None:
    kit = after_gpu_stage
    kit.run("npu-convert")
    process = kit.start("npu-bench")
    waited_for(lambda: network.npu.processes("-m ais_bench --model"))
    clips = next((remote(kit) / ".stgcn-kit/clips").iterdir()) / "0"
    arrived = clips.stat().st_ino
    for pid in network.npu.processes("-m ais_bench --model"):
        os.kill(pid, signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "signal 9" in output or "killed" in output.lower()
    kit.run("npu-bench", "score")
    assert clips.stat().st_ino == arrived
    assert kit.summary() == undisturbed.summary()
    nothing_left(kit, network)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(number: int, after_gpu_stage: Kit, network: Network) -> None:
    kit = after_gpu_stage
    kit.run("npu-convert")
    process = kit.start("npu-bench")
    waited_for(lambda: network.npu.processes("-m ais_bench --model"))
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130, output
    assert "interrupted" in output
    nothing_left(kit, network)


def test_a_link_lost_in_a_job_costs_nothing(undisturbed: Kit, after_gpu_stage: Kit, network: Network) -> None:
    kit = after_gpu_stage
    kit.run("npu-convert")
    process = kit.start("npu-bench")
    waited_for(lambda: "accuracy" in jobs(remote(kit)))
    network.down()
    try:
        output = process.communicate(timeout=40)[0]
    finally:
        network.up()
    assert process.returncode == HOST_UNFIT
    assert "the connection to 192.0.2.2 was lost" in output
    assert "started before" in kit.run("npu-bench", "score")
    assert kit.summary() == undisturbed.summary()
    nothing_left(kit, network)


def test_a_second_operator_is_told(after_gpu_stage: Kit, network: Network) -> None:
    kit = after_gpu_stage
    first = kit.start("npu-convert")
    waited_for((kit.workspace / ".stgcn-kit" / "lock").exists)
    assert "is in use by " in kit.run("npu-bench", status=1)
    kit.run("status")
    assert first.wait() == 0
    first.communicate()


def test_doctor_names_what_is_unfit(undisturbed: Kit, network: Network, sample: Path, tmp_path: Path) -> None:
    assert "✗" not in undisturbed.run("doctor")
    kit = Kit(network, tmp_path, inventory(network, tmp_path, sample))
    other: dict[str, Any] = {**kit.inventory["npu"][0], "name": "npu-b", "port": 2222}
    missing = {**kit.inventory["npu"][0], "name": "npu-c", "tools": {"env_scripts": ["/none/set_env.sh"]}}
    kit.inventory["npu"] += [other, missing]
    kit.write()
    output = kit.run("doctor", status=HOST_UNFIT)
    assert "ssh -v -p 2222 root@192.0.2.2 true" in output
    assert "/none/set_env.sh" in output


def test_status_says_why_a_step_is_stale(after_gpu_stage: Kit) -> None:
    kit = after_gpu_stage
    kit.run("npu-convert")
    assert "stale" not in kit.run("status")
    kit.inventory["atc"] = {"precision_mode": "must_keep_origin_dtype"}
    kit.write()
    output = kit.run("status")
    assert "stale: flags changed" in output
