"""From sample data to verdict: what is printed, what is kept, what runs again and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.inventory import ROOT
from tests.pipeline.conftest import SAMPLES, Job

STAGES = ("gpu-stage", "npu-convert", "npu-bench", "score")
SIZES = (1, 4)
OF_DATA = {"preprocess"}
OF_CHECKPOINT = {"export", "reference", "score", "report"} | {
    f"{kind}/bs{size}" for kind in ("convert", "accuracy", "throughput") for size in SIZES
}


def states(output: str) -> dict[str, str]:
    """step -> state, from the lines that announce them."""
    return {step: state for state, step in re.findall(r"^ +(OK|CACHED|SKIPPED|FAILED) +(\S+)", output, re.M)}


def test_the_table_has_a_row_for_each_batch_size_and_says_simulated(finished: tuple[Job, str]) -> None:
    output = finished[1]
    for size in SIZES:
        hits = rf"\d+\.\d\d% \(\d+/{SAMPLES}\)"
        assert re.search(rf"│ +{size} │ +{hits} │ +{hits} │ +100\.00% │ +\d+\.\d\d( \(noisy\))? │ +✓ │", output)
        assert re.search(rf"│ +{size} │ +0 │ +[01]\.9*0* │", output)
    rates = re.findall(r"samples/s.*", output)
    assert len(rates) > len(SIZES)
    assert all("(simulated)" in rate for rate in rates)
    assert "verdict (simulated): PASSED" in output
    assert states(output) == dict.fromkeys(OF_DATA | OF_CHECKPOINT, "OK")


def test_the_summary_is_of_the_form_that_programs_read(finished: tuple[Job, str]) -> None:
    summary = json.loads((finished[0].workspace / "report/summary.json").read_text())
    assert summary["format"] == 1
    assert summary["device"]["simulated"] is True
    assert (summary["device"]["chip"], summary["device"]["soc_version"]) == ("310P3", "Ascend310P3")
    assert summary["samples"] == SAMPLES
    assert [b["batch_size"] for b in summary["batches"]] == list(SIZES)
    for batch in summary["batches"]:
        assert batch["samples"] == SAMPLES
        assert batch["top1"] * SAMPLES == pytest.approx(batch["top1_hits"])
        assert batch["top1"] <= batch["top5"]
        assert 0 < batch["max_abs_err"] < 0.1
        assert batch["cosine_min"] > 0.999
        figure = batch["throughput"]
        assert 0 < figure["min"] <= figure["median"] <= figure["max"]
        assert figure["idle"] is True
    assert summary["verdict"] == {"passed": True, "gate": 0.01}


def test_the_device_gives_the_same_logits_at_every_batch_size_within_fp16(finished: tuple[Job, str]) -> None:
    folder = finished[0].workspace
    logits = [np.load(folder / f"npu/bs{size}/logits.npy") for size in SIZES]
    reference = np.load(folder / "gpu/reference.npy")
    for each in logits:
        assert each.shape == reference.shape == (SAMPLES, 400)
        assert np.abs(each - reference).max() < 0.05


def test_a_second_run_is_all_cached(copy: Job) -> None:
    assert states(copy.fab(*STAGES)) == dict.fromkeys(OF_DATA | OF_CHECKPOINT, "CACHED")


def test_nothing_stays_on_the_npu_host_but_inputs(finished: tuple[Job, str]) -> None:
    host = finished[0].folder / "npu-host"
    assert [path.name for path in host.iterdir()] == [".stgcn-kit"]
    assert {
        path.name for path in (host / ".stgcn-kit").iterdir() if list(path.iterdir() if path.is_dir() else [path])
    } == {
        "CACHEDIR.TAG",
        "clips",
        "files",
    }


@pytest.mark.full
def test_one_byte_of_the_checkpoint_runs_what_depends_on_it_again(copy: Job) -> None:
    path = copy.folder.parent / "sample/st_gcn.sample.pth"
    data = bytearray(path.read_bytes())
    data[-3_999_998] ^= 1  # a bit of a weight that fp16 keeps
    path.write_bytes(data)
    assert states(copy.fab(*STAGES)) == dict.fromkeys(OF_DATA, "CACHED") | dict.fromkeys(OF_CHECKPOINT, "OK")


@pytest.mark.parametrize("damage", ["changed", "swapped"])
def test_a_damaged_result_is_refused_by_name(copy: Job, damage: str) -> None:
    path = copy.workspace / "npu/bs4/logits.npy"
    logits = np.load(path)
    if damage == "changed":
        logits[5, 17] += 0.5
    else:
        logits[[5, 7]] = logits[[7, 5]]
    np.save(path, logits)
    output = copy.fab("score", status=1)
    assert re.search(r"error: .*bs4/logits\.npy: the row of sample 5 \(.+\)", output)
    assert (damage == "swapped") == ("holds the result of sample 7" in output)


def test_score_before_any_run_says_what_to_run(copy: Job) -> None:
    (copy.workspace / "manifest.json").unlink()
    assert "nothing has run yet" in copy.fab("score", status=1)


def test_dry_prints_the_commands_and_runs_nothing(copy: Job) -> None:
    (copy.workspace / "manifest.json").unlink()
    output = copy.fab("gpu-stage", "--dry")
    assert "stgcn.export --model st_gcn.kinetics --ckpt" in output
    assert states(output) == {}
    assert not (copy.workspace / "manifest.json").exists()


def test_a_lost_copy_on_the_npu_host_is_brought_again(copy: Job) -> None:
    for path in (copy.folder / "npu-host").rglob("*.om"):
        path.write_bytes(b"someone else's")
    clip = next((copy.folder / "npu-host").rglob("7.bin"))
    clip.write_bytes(b"\0" * clip.stat().st_size)
    before = (copy.workspace / "npu/bs4/logits.npy").read_bytes()
    (copy.workspace / "npu/bs4/logits.npy").unlink()
    assert states(copy.fab("npu-bench"))["accuracy/bs4"] == "OK"
    assert (copy.workspace / "npu/bs4/logits.npy").read_bytes() == before


@pytest.mark.full
def test_a_model_of_several_clips_a_sample_runs_to_a_verdict_that_audit_holds(tmp_path: Path) -> None:
    model, data = "mmaction.stgcnpp-2d", str(tmp_path / "ntu60_2d.pkl")
    argv = [sys.executable, "-m", "stgcn.sample", "--model", model, "--output_dir", str(tmp_path), "--samples", "2"]
    subprocess.run([*argv, "--classes", "2"], cwd=ROOT, check=True)
    files = {"dataset": {"data": data, "labels": data}, "checkpoint": str(tmp_path / "mmaction.sample.pth")}
    job = Job(tmp_path, tmp_path, model=model, **files)
    job.fab("gpu-stage", "npu-convert", "npu-bench", "score")
    figure = json.loads((job.workspace / "npu/bs4/benchmark.json").read_text())
    assert figure["throughput"]["median"] == pytest.approx(figure["persons"]["throughput"]["median"] / 10)
    assert "holds: 2 samples" in job.fab("audit")
