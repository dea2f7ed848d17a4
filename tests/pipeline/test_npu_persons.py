"""`persons: nonempty` on a simulated host: who isn't seen isn't sent, and clips come out as they do with both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.pipeline.index import read_index
from deploy.stages import tune
from tests.pipeline.npu_job import SAMPLES, NpuJob, logits, network
from tests.pipeline.test_npu_accuracy import TOLERANCE

# Clips 0 to 9 lack the first person, clips 5 to 59 the second: five have nobody.
EMPTY = (slice(0, 10), slice(5, 60))
PERSONS = 2 * SAMPLES - 10 - 55
GIVEN = PERSONS + 1  # one that is empty, for all


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> NpuJob:
    """Never changed: take a copy."""
    job = NpuJob(tmp_path_factory.mktemp("converted"), empty=EMPTY, persons="nonempty")
    job.convert()
    return job


@pytest.fixture
def job(converted: NpuJob, tmp_path: Path) -> NpuJob:
    return converted.copy(tmp_path)


def test_the_clips_logits_are_those_of_both_persons(job: NpuJob, capsys: Any) -> None:
    job.bench()
    assert job.logits(8).shape == (SAMPLES, 400)
    assert np.abs(job.logits(8) - logits(job.clips)).max() < TOLERANCE
    assert len(job.path(8, "results.tsv").read_text().splitlines()) == SAMPLES
    assert f"bs8: {SAMPLES} samples, as {GIVEN} single persons, each once" in capsys.readouterr().out
    for step in ("convert", "accuracy", "throughput"):
        assert job.entry(f"{step}/bs8")["inputs"]["persons"] == "nonempty"
    assert "--input_shape=input1:8,3,300,18,1" in " ".join(job.entry("convert/bs8")["commands"][0])
    assert job.entry("accuracy/bs8")["facts"]["aggregate"]["samples"] == SAMPLES


@pytest.mark.full
def test_who_is_not_seen_is_not_sent(job: NpuJob) -> None:
    job.accuracy()
    sent = sorted((job.folder / "npu-a").rglob("*.bin"), key=lambda path: int(path.stem))
    places = read_index(job.workspace / "gpu/persons.json").inputs[0].places
    assert len(sent) == len(places) == GIVEN
    for path, (clip, person) in zip(sent, places, strict=True):
        assert path.read_bytes() == job.clips[clip, ..., person].tobytes()


def test_a_rate_of_clips_is_told_from_one_of_persons(job: NpuJob, capsys: Any) -> None:
    job.bench()
    figure = job.figure(8)
    assert figure["persons"]["a_clip"] == GIVEN / SAMPLES
    for name, value in figure["persons"]["throughput"].items():
        assert figure["throughput"][name] == pytest.approx(value * SAMPLES / GIVEN)
    assert f"{figure['persons']['throughput']['max']:.2f} persons/s" in capsys.readouterr().out


@pytest.mark.full
def test_tune_compares_both_forms_by_clips(tmp_path: Path, capsys: Any) -> None:
    job = NpuJob(tmp_path, empty=EMPTY)
    job.exports(network(persons="nonempty"))
    job.inventory["tune"] = {
        "variants": ["reference"], "precision_modes": ["force_fp16"], "batch_sizes": [8], "aoe": [], "samples": 40,
    }  # fmt: skip
    tune.run(job.connections())
    rows = json.loads((job.workspace / "tune/tune.json").read_text())["outcomes"]
    assert {row["persons"] for row in rows} == {"both", "nonempty"}
    assert all(row["passed"] and row["top1"] == 1.0 for row in rows)
    folder = job.workspace / "tune/reference-nonempty-force_fp16-bs8"
    assert np.abs(np.load(folder / "logits.npy") - logits(job.clips[:40])).max() < TOLERANCE
    assert json.loads((folder / "benchmark.json").read_text())["persons"]["a_clip"] == GIVEN / SAMPLES
    assert f"persons: {rows[0]['persons']}" in (job.workspace / "tune/inventory.yaml").read_text()


def test_an_onnx_of_the_other_form_is_not_converted(job: NpuJob) -> None:
    job.inventory["persons"] = "both"
    with pytest.raises(KitError, match="persons: nonempty.*both.*`make gpu-stage`"):
        job.convert()
