"""A model of one's own, put in place by a folder alone: from its dataset to a verdict that audit holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.inventory import ROOT
from tests.pipeline.conftest import Job

SAMPLES = 45  # not a multiple of its shards or batches


def write_dataset(folder: Path) -> dict[str, Any]:
    """Seeded data, labels near what the weights give, and the weights; what the inventory names of them."""
    random = np.random.default_rng(0)
    signal = random.standard_normal((SAMPLES, 4, 6)).astype(np.float32)
    length = random.integers(1, 7, (SAMPLES, 1)).astype(np.int32)
    weights = {"position": random.standard_normal((24, 2)), "spread": random.standard_normal((24, 6))}
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
