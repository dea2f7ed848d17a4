"""A model of one's own, put in place by a folder alone: from its dataset to a verdict that audit holds."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deploy.inventory import ROOT
from tests.pipeline.conftest import FAB, Job

SAMPLES = 45  # not a multiple of its shards or batches


def write_dataset(folder: Path, scale: float = 1.0) -> dict[str, Any]:
    """Seeded data, labels near what the weights give, and the weights; what the inventory names of them.

    The data are times `scale`, and the weights take it back.
    """
    random = np.random.default_rng(0)
    signal = (random.standard_normal((SAMPLES, 4, 6)) * scale).astype(np.float32)
    length = random.integers(1, 7, (SAMPLES, 1)).astype(np.int32)
    weights = {"position": random.standard_normal((24, 2)) / scale, "spread": random.standard_normal((24, 6))}
    expected = signal.reshape(SAMPLES, -1) / length @ weights["position"]
    np.savez(folder / "data.npz", signal=signal, length=length)
    np.save(folder / "labels.npy", expected + random.normal(0, 0.5, expected.shape))
    np.savez(folder / "twin.npz", **weights)
    dataset = {"data": str(folder / "data.npz"), "labels": str(folder / "labels.npy")}
    return {"dataset": dataset, "checkpoint": str(folder / "twin.npz")}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    changes = write_dataset(tmp_path)
    return Job(tmp_path, tmp_path, model=str(ROOT / "examples/own_model"), batch_sizes=[1, 4], **changes)


@pytest.mark.full
def test_it_runs_to_a_verdict_that_audit_holds(job: Job) -> None:
    output = job.fab("gpu-stage", "npu-convert", "npu-bench", "score")
    summary = json.loads((job.workspace / "report/summary.json").read_text())
    assert summary["model"]["name"] == "twin.small"
    assert summary["verdict"]["passed"]
    assert [row["mean_error"] for row in summary["batches"]] == pytest.approx(
        [summary["reference"]["mean_error"]] * 2, 1e-2
    )
    assert "top1" not in json.dumps(summary)
    assert "Mean error" in output
    spread = np.load(job.workspace / "npu/bs4/logits.spread.npy")
    assert spread.shape == (SAMPLES, 3, 2)
    assert np.abs(spread - np.load(job.workspace / "gpu/reference.spread.npy")).max() < 0.05
    commands = json.loads((job.workspace / "manifest.json").read_text())["steps"]["convert/bs4"]["commands"][0]
    assert "--input_shape=signal:4,4,6;length:4,1" in commands
    assert f"holds: {SAMPLES} samples" in job.fab("audit")
    np.save(job.workspace / "npu/bs4/logits.spread.npy", spread[::-1])
    assert "logits.spread.npy" in job.fab("audit", status=1)


@pytest.mark.full
def test_its_nodes_are_named_though_the_control_is_killed_on_the_way(tmp_path: Path) -> None:
    """Nodes without names, no blocks, a metric that is lower-is-better, data that float16 cannot hold."""
    changes = write_dataset(tmp_path, scale=1e-9)
    job = Job(tmp_path, tmp_path, model=str(ROOT / "examples/own_model"), batch_sizes=[4], **changes)
    atc, conversions = tmp_path / "atc.sh", tmp_path / "conversions"
    atc.write_text(f'#!/bin/bash\necho >> {conversions}\n[ $(wc -l < {conversions}) != 3 ] || sleep 5\nexec atc "$@"\n')
    atc.chmod(0o755)
    job.npu["tools"]["atc"] = str(atc)
    job.fab("gpu-stage", "npu-convert")
    environment = {**os.environ, "INVENTORY": str(tmp_path / "inventory.yaml")}
    with subprocess.Popen([str(FAB), "npu-precision"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as control:
        while conversions.read_text().count("\n") < 3:  # float16, float32, and the first set between
            assert control.poll() is None
            time.sleep(0.1)
        control.kill()
    output = job.fab("npu-precision")
    found = json.loads((job.workspace / "precision/precision.json").read_text())
    assert [node["name"] for node in found["nodes"]] == ["Div_2", "MatMul_3"]
    assert {node["block"] for node in found["nodes"]} == {None}
    assert conversions.read_text().count("\n") == 1 + found["conversions"]  # the first is npu-convert's
    assert "blocks" not in output
    job.inventory |= yaml.safe_load((job.workspace / "precision/inventory.yaml").read_text())
    job.fab("npu-convert", "npu-bench", "score")
    summary = json.loads((job.workspace / "report/summary.json").read_text())
    assert summary["verdict"]["passed"]
    assert [way["passed"] for way in summary["precision"]["ways"]] == [False, True, True]
    job.fab("audit")
