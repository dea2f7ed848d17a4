"""`fab npu-tune` on a simulated host: every candidate tried, the gate on the same samples, the winner in a snippet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deploy import inventory
from deploy.errors import KitError
from deploy.evidence import chain, sweep
from deploy.evidence.sweep import Candidate, Outcome, copies_of, rank, verdict
from deploy.pipeline.manifest import Manifest, describe, digest_of, write_json
from deploy.report.summary import Judged
from deploy.stages import tune
from tests.pipeline.npu_job import NpuJob, network

GATE = 0.01


@pytest.fixture
def job(tmp_path: Path) -> NpuJob:
    return NpuJob(
        tmp_path, batch_sizes=[1, 8], tune={"variants": ["reference"], "persons": ["both"], "aoe": [], "samples": 40}
    )


def outcomes(job: NpuJob) -> list[dict[str, Any]]:
    return list(json.loads((job.workspace / "tune/tune.json").read_text())["outcomes"])


@pytest.mark.full
def test_the_fastest_within_the_gate_is_the_inventorys_next(job: NpuJob, capsys: Any) -> None:
    tune.run(job.connections())
    rows, out = outcomes(job), capsys.readouterr().out
    assert {(row["precision_mode"], row["batch_size"]) for row in rows} == {
        (mode, size) for mode in ("force_fp16", "allow_mix_precision") for size in (1, 8)
    }
    medians = [row["throughput"]["median"] for row in rows]
    assert medians == sorted(medians, reverse=True)
    assert all(row["passed"] and row["top1"] == 1.0 for row in rows)
    snippet = yaml.safe_load((job.workspace / "tune/inventory.yaml").read_text())
    assert snippet["atc"] == {"precision_mode": rows[0]["precision_mode"]}
    assert snippet["batch_sizes"] == [rows[0]["batch_size"]]
    assert f"winner: reference, {rows[0]['precision_mode']}, batch size {rows[0]['batch_size']} with" in out
    assert "(simulated)" in out
    assert inventory.Inventory.model_validate(job.inventory | snippet)
    tune.run(job.connections())
    assert "OK      " not in capsys.readouterr().out


def forge(job: NpuJob, change: Any) -> None:
    """Change tune.json, and the record and its digests with it."""
    path, manifest = job.workspace / "tune/tune.json", Manifest(job.workspace)
    found, entry = json.loads(path.read_text()), manifest.steps["tune"]
    change(found)
    write_json(path, found)
    entry["inputs"] = {name: value for name, value in found.items() if name != "format"}
    entry |= {"key": digest_of(entry["inputs"])}
    entry["outputs"]["tune/tune.json"] = describe(path)
    manifest.record("tune", entry)


@pytest.mark.full
def test_what_it_found_follows_from_its_candidates(job: NpuJob) -> None:
    """As audit and score see it: a figure, an order, an error or a log that do not follow are named."""
    job.inventory["tune"] |= {"precision_modes": ["force_fp16"]}
    tune.run(job.connections())
    workspace = job.connections().workspace

    def check() -> None:
        chain.check_others(Manifest(job.workspace), workspace.model, ())

    check()
    told = (job.workspace / "tune/tune.json").read_text()
    for change, named in [
        (lambda found: found["outcomes"][1]["throughput"].update(median=9999.0), r"outcomes\[1\]\.throughput\.median"),
        (lambda found: found["outcomes"][0].update(top1=0.5), r"tune\.json: outcomes\[0\]\.top1"),
        (lambda found: found["outcomes"].reverse(), r"tune\.json: its outcomes are not in the order"),
        (lambda found: found["outcomes"][0].update(error="no device"), r"tune\.json: it says that .* failed"),
    ]:
        forge(job, change)
        with pytest.raises(KitError, match=named):
            check()
        forge(job, lambda found: found.update(json.loads(told)))
    log = next((job.workspace / "tune").glob("*-bs8/benchmark-1.log"))
    log.write_text(log.read_text().replace("open device 0", "open device 3"))
    with pytest.raises(KitError, match=r"benchmark-1\.log: missing, or changed"):
        check()


@pytest.mark.full
def test_accuracy_is_that_of_the_first_samples_alone(job: NpuJob) -> None:
    job.inventory["tune"] |= {"precision_modes": ["force_fp16"], "batch_sizes": [8]}
    reference = job.workspace / "gpu/reference.npy"
    tune.run(job.connections())
    logits = np.load(job.workspace / "tune/reference-force_fp16-bs8/logits.npy")
    assert logits.shape == (40, 400)
    assert np.abs(logits - np.load(reference)[:40]).max() < 2e-3
    assert job.entry("accuracy/tune/reference-force_fp16-bs8")["inputs"]["samples"] == 40


@pytest.mark.full
def test_another_variant_is_exported_and_one_that_misses_the_gate_cannot_win(job: NpuJob, capsys: Any) -> None:
    job.exports(network(seed=9))
    job.inventory["tune"] |= {"variants": ["fused", "reference"], "precision_modes": ["force_fp16"], "batch_sizes": [8]}
    tune.run(job.connections())
    reference, fused = outcomes(job)
    assert (reference["variant"], reference["passed"]) == ("reference", True)
    assert (fused["variant"], fused["passed"], fused["top1"]) == ("fused", False, pytest.approx(0, abs=0.1))
    assert job.entry("export/fused")["state"] == "OK"
    assert f"✗ {fused['relative_error']:.2%}" in capsys.readouterr().out


def test_a_candidate_that_fails_is_a_row_and_does_not_stop_the_others(job: NpuJob, capsys: Any) -> None:
    job.play(ATC_ERROR="EZ3003@1")
    tune.run(job.connections())
    rows = outcomes(job)
    assert [(row["batch_size"], row["passed"]) for row in rows] == [(8, True)] * 2 + [(1, False)] * 2
    assert all("EZ3003" in row["error"] for row in rows[2:])
    assert capsys.readouterr().out.count("failed: npu-a: atc failed with EZ3003") == 1


@pytest.mark.full
def test_a_list_of_types_goes_to_mixed_candidates_alone(job: NpuJob, tmp_path: Path, capsys: Any) -> None:
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"black-list": {"to-add": ["Softmax"]}}))
    job.inventory["atc"] = {"precision_mode": "allow_mix_precision", "modify_mixlist": str(lists)}
    job.inventory["tune"] |= {"batch_sizes": [8]}
    tune.run(job.connections())
    assert all(row["passed"] for row in outcomes(job))
    assert "modify_mixlist" in capsys.readouterr().out
    assert "modify_mixlist" not in job.entry("convert/tune/reference-force_fp16-bs8")["inputs"]["flags"]
    assert "modify_mixlist" in job.entry("convert/tune/reference-allow_mix_precision-bs8")["inputs"]["flags"]


@pytest.mark.full
def test_without_a_winner_the_status_is_not_0(job: NpuJob) -> None:
    job.play(BUSY="0:train.py:forever")
    with pytest.raises(KitError, match="none of 4 candidates .*idle"):
        tune.run(job.connections())
    assert (job.workspace / "tune/inventory.yaml").read_text() == "# No candidate passed the gate.\n"


@pytest.mark.full
@pytest.mark.parametrize("has_aoe", [True, False])
def test_aoe_is_tried_on_the_best_where_the_host_has_it(job: NpuJob, has_aoe: bool, capsys: Any) -> None:
    job.inventory["tune"] |= {"aoe": [1, 2], "precision_modes": ["force_fp16"], "batch_sizes": [8]}
    if not has_aoe:
        job.inventory["npu"][0]["tools"]["aoe"] = "no-such-aoe"
    tune.run(job.connections())
    assert {row["aoe"] for row in outcomes(job)} == ({None, 1, 2} if has_aoe else {None})
    assert ("npu-a: no AOE there" in capsys.readouterr().out) is not has_aoe
    if has_aoe:
        assert "Aoe process finished" in (job.workspace / "tune/reference-force_fp16-aoe2-bs8/aoe.log").read_text()


def test_a_dry_run_of_a_workspace_that_was_never_tuned_converts_nothing(job: NpuJob, capsys: Any) -> None:
    job.inventory["tune"] |= {"variants": ["reference", "fused"], "persons": ["both", "nonempty"]}
    job.inventory["checkpoint"] = str(job.folder / "val_data.npy")  # any file
    tune.run(job.connections(dry=True))
    told = capsys.readouterr().out
    assert "convert/tune/reference-force_fp16-bs1 would run on npu-a" in told
    assert "export/fused-nonempty would run on gpu" in told
    assert "convert/tune/fused-nonempty-force_fp16-bs1 would run after export/fused-nonempty" in told
    assert not (job.workspace / "tune").exists()


def outcome(variant: str, size: int, low: float, median: float, high: float, error: float = 0.0) -> Outcome:
    figure = {"min": low, "median": median, "max": high, "idle": True}
    return Outcome(Candidate(variant, "force_fp16", None, size), figure, judged=Judged("top1", error, GATE))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            [outcome("reference", 8, 90, 100, 110), outcome("fused", 1, 120, 125, 130)],
            "fused, force_fp16, batch size 1 with 125.00 samples/s, 25.0% over reference, force_fp16, batch size 8",
        ),
        (
            [outcome("reference", 8, 90, 100, 121), outcome("fused", 1, 120, 125, 130)],
            "(their repeats overlap, so it may be chance)",
        ),
        (
            [outcome("reference", 8, 90, 100, 110), outcome("fused", 1, 120, 125, 130, error=0.02)],
            "winner: reference, force_fp16, batch size 8 with 100.00 samples/s",
        ),
        (
            [outcome("fused", 1, 90, 100, 110), outcome("fused", 8, 190, 200, 210)],
            "winner: fused, force_fp16, batch size 8 with 200.00 samples/s",
        ),
    ],
)
def test_the_verdict_names_the_winner_and_its_lead(found: list[Outcome], sentence: str) -> None:
    assert verdict(rank(found)).endswith(sentence)


def test_the_best_throughput_within_the_bound_on_latency_wins() -> None:
    fast, slow = outcome("fused", 64, 890, 900, 910), outcome("fused", 8, 690, 700, 710)
    found = rank([replace(each, latency_ms=each.candidate.batch_size, bound_ms=10.0) for each in (fast, slow)])
    assert [each.candidate.batch_size for each in found] == [8, 64]
    assert [each.passed for each in found] == [True, False]
    assert "8.00 ms of the 10 ms" in verdict(found)
    tied = [outcome("fused", size, 690, 700, 710) for size in (64, 8, 16)]
    assert [each.candidate.batch_size for each in rank(tied)] == [8, 16, 64]


def test_the_copies_of_a_batch() -> None:
    copies = {"h2d": {"median": 0.5}, "d2h": {"median": 0.25}}
    assert copies_of({"latency_ms": {"p99": 4.0, **copies}}) == 0.75
    assert copies_of({"latency_ms": {"p99": 4.0}}) == 0.0


def threads_job(job: NpuJob, **played: str) -> None:
    job.play(ERA="2024", CANN="8.0.0", DRIVER="24.1.0", COMPUTE="1", LANES="2", COPIES="0,0", **played)
    job.inventory["tune"] |= {"precision_modes": ["force_fp16"], "threads": [2, 4], "samples": 8}
    job.inventory["benchmark"] = {"loop": 20, "min_repeats": 2, "max_repeats": 2}


@pytest.mark.full
def test_threads_and_batch_size_are_swept_under_the_bound_on_latency(job: NpuJob, capsys: Any) -> None:
    threads_job(job)
    job.inventory["tune"]["latency_ms"] = 12
    tune.run(job.connections())
    found = {(row["threads"], row["batch_size"]): row for row in outcomes(job)}
    # A clip takes 1 ms, and the device does two batches side by side: four threads wait for each other.
    for (threads, size), row in found.items():
        assert row["throughput"]["median"] == pytest.approx(1000 * min(threads, 2), rel=0.02)
        assert row["latency_ms"] == pytest.approx(size * max(threads / 2, 1), rel=0.02)
        assert row["passed"] is (row["latency_ms"] <= 12)
    assert len(found) == 6
    snippet = yaml.safe_load((job.workspace / "tune/inventory.yaml").read_text())
    assert snippet["benchmark"]["threads"] >= 2
    assert "threads with 20" in capsys.readouterr().out
    workspace = job.connections().workspace
    sweep.check(workspace.manifest, workspace.model)
    tune.run(job.connections())
    assert "OK      " not in capsys.readouterr().out


@pytest.mark.full
def test_fewer_threads_than_the_inventorys_may_be_what_keeps_the_bound(job: NpuJob) -> None:
    threads_job(job)
    job.inventory["benchmark"]["threads"] = 4
    job.inventory["tune"] |= {"latency_ms": 1.5, "threads": [1, 2]}
    tune.run(job.connections())
    found = [(row["threads"], row["batch_size"]) for row in outcomes(job) if row["passed"]]
    assert found == [(2, 1), (1, 1)]
    snippet = yaml.safe_load((job.workspace / "tune/inventory.yaml").read_text())
    assert (snippet["benchmark"]["threads"], snippet["batch_sizes"]) == (2, [1])
    workspace = job.connections().workspace
    sweep.check(workspace.manifest, workspace.model)


def test_an_ais_bench_that_cannot_tell_of_threads_is_refused(job: NpuJob) -> None:
    threads_job(job)
    job.play(ERA="2023-06")
    with pytest.raises(KitError, match="ais_bench, of 2023-06"):
        tune.run(job.connections())
