"""A user's folders of the kit's names, in and around every workspace: the same bytes after whatever the kit did."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import clean
from deploy.stages import bench, convert
from tests.pipeline.conftest import Job
from tests.pipeline.npu_job import NpuJob
from tests.theirs import harmed, plant


def test_the_stages_on_the_device_and_clean_leave_them(tmp_path: Path) -> None:
    job = NpuJob(tmp_path, samples=9)
    before = {place: plant(place) for place in (job.workspace, tmp_path / "npu-a", tmp_path)}
    with job.connections() as connections:
        convert.run(connections)
        bench.run(connections)
        clean.run(connections)
    assert not (tmp_path / "npu-a/.stgcn-kit").exists()
    assert not {place: found for place, was in before.items() if (found := harmed(place, was))}


@pytest.mark.full
def test_every_stage_clean_and_prune_leave_them(copy: Job) -> None:
    before = {place: plant(place) for place in (copy.workspace, copy.folder / "npu-host", copy.folder)}
    copy.fab(
        "gpu-stage", "--fresh", "npu-convert", "--fresh", "npu-bench", "--fresh", "score", "report", "prune", "--keep=1"
    )
    copy.fab("clean")
    assert not list(copy.folder.glob("*/.stgcn-kit"))
    assert not {place: found for place, was in before.items() if (found := harmed(place, was))}
