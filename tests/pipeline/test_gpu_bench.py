"""`fab gpu-bench` in a process of its own: the fp32 model on this machine's processor, and a GPU that is busy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipeline.conftest import Job

pytestmark = pytest.mark.full
BUSY = """#!/bin/sh
case $1 in
*gpu=*) echo "0, GPU-a, Tesla T4, 3, 900, 15360, 470.82.01" ;;
*) echo "GPU-a, 4711, train.py" ;;
esac
"""


@pytest.fixture
def job(tmp_path: Path, sample: Path) -> Job:
    job = Job(tmp_path, sample)
    job.inventory["batch_sizes"] = [1, 2]
    job.inventory["benchmark"]["idle_timeout_s"] = 0
    return job


def test_the_processor_is_measured_and_named(job: Job) -> None:
    said = job.fab("gpu-bench")
    assert "batch size 2" in said
    found = json.loads((job.workspace / "gpu/benchmark.json").read_text())
    assert (found["device"]["kind"], found["idle"]) == ("cpu", None)
    assert [each["batch_size"] for each in found["batches"]] == [1, 2]
    assert all(each["throughput"]["repeats"] == 2 for each in found["batches"])
    assert "CACHED" in job.fab("gpu-bench")
    job.inventory["benchmark"]["loop"] = 2
    assert "CACHED" not in job.fab("gpu-bench")
    assert "gpu-throughput" in job.fab("status")


def test_a_busy_gpu_is_refused(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin/nvidia-smi"
    script.parent.mkdir()
    script.write_text(BUSY)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    assert "train.py (pid 4711)" in job.fab("gpu-bench", status=3)
    assert not (job.workspace / "gpu/benchmark.json").exists()
