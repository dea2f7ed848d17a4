"""`fab run`: nothing begins while anything is missing; else the whole job, which resumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.pipeline.conftest import Job


def test_all_that_is_missing_is_told_at_once_and_nothing_has_begun(sample: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, sample, checkpoint=str(tmp_path / "none.pth"))
    job.inventory["dataset"] = {"data": str(tmp_path / "none.npy"), "labels": str(sample / "val_label.pkl")}
    job.npu["tools"]["atc"] = "no-such-atc"
    output = job.fab("run", status=3, COLUMNS="200")
    for missing in ("none.npy", "none.pth", "no-such-atc", "3 of "):
        assert missing in output
    assert "gpu-stage on" not in output
    assert not (job.workspace / "manifest.json").exists()


@pytest.mark.full
def test_the_whole_job_is_done_and_an_interrupted_one_resumed(finished: tuple[Job, str], tmp_path: Path) -> None:
    job = finished[0]
    copy = Job(tmp_path, Path(job.inventory["checkpoint"]).parent)
    shutil.copytree(job.workspace, copy.workspace)
    manifest = json.loads((copy.workspace / "manifest.json").read_bytes())
    for step in ("accuracy/bs4", "score", "report"):  # as if it had been interrupted there
        del manifest["steps"][step]
    (copy.workspace / "manifest.json").write_text(json.dumps(manifest))
    assert "accuracy/bs4 would run" in copy.fab("run", "--dry")
    output = copy.fab("run")
    assert "OK      accuracy/bs4" in output
    assert "CACHED  export" in output
    told = copy.fab("status", "--json")  # the table is on standard error, which is here beside the document
    status, _ = json.JSONDecoder().raw_decode(told[told.index("{\n") :])
    assert (status["finished"], status["next"]) == (True, None)
    assert {step["state"] for step in status["steps"]} == {"OK"}
