"""The verdict as data: counted, compared and judged as a person would by hand."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from deploy.evidence.scores import Score
from deploy.report import summary as of
from deploy.report.table import as_text, table, to_csv
from stgcn.metrics import score
from tests.unit.made_up import CARD

DEVICE = {"chip": "310P3", "soc_version": "Ascend310P3", "simulated": True, "cann": "6.0.RC1", "driver": "22.0.2"}
FIGURE = {
    "throughput": {"median": 4.0, "min": 3.9, "max": 4.1, "repeats": 3, "spread": 0.05, "idle": True},
    "latency_ms": {"min": 240.0, "median": 250.0, "mean": 250.0, "p99": 260.0, "max": 260.0},
}


def evidence(samples: int = 50, **changes: Any) -> of.Evidence:
    random = np.random.default_rng(3)
    reference = random.standard_normal((samples, 400)).astype(np.float32)
    labels = np.where(random.random(samples) < 0.7, reference.argmax(1), random.integers(0, 400, samples))
    given: dict[str, Any] = {
        "card": CARD,
        "device": DEVICE,
        "names": [f"clip-{i}" for i in range(samples)],
        "labels": labels,
        "reference": [reference],
        "logits": {1: [reference], 4: [reference]},
        "figures": {1: FIGURE, 4: None},
        "gate": 0.01,
        "published": None,
    }
    given |= changes
    scores = {size: Score(**score(outputs[0], labels)) for size, outputs in given["logits"].items()}
    return of.Evidence(**given, reference_score=Score(**score(reference, labels)), scores=scores)


def ranked_hits(logits: np.ndarray, labels: np.ndarray, k: int) -> int:
    """Sample by sample: is the label among the k best, the lower class first among equals?"""
    best = [sorted(range(400), key=lambda c: (-row[c], c))[:k] for row in logits]
    return sum(label in row for label, row in zip(labels, best, strict=True))


def test_hits_are_those_of_a_plain_ranking_of_every_sample() -> None:
    given = evidence()
    logits = given.reference[0].round(1)  # ties
    found = of.summary(evidence(logits={1: [logits]}))["batches"][0]
    assert (found["top1_hits"], found["top5_hits"]) == tuple(ranked_hits(logits, given.labels, k) for k in (1, 5))
    assert found["top1"] == found["top1_hits"] / 50


def test_equal_logits_pass_with_nothing_to_tell() -> None:
    verdict = of.summary(evidence())
    assert verdict["verdict"] == {"passed": True, "gate": 0.01}
    for batch in verdict["batches"]:
        assert batch["top1_agreement"] == 1
        assert batch["flipped"] == []
        assert batch["cosine_min"] == pytest.approx(1)
        assert batch["max_abs_err"] == batch["relative_error"] == 0
    assert verdict["batches"][0]["throughput"]["median"] == 4.0
    assert verdict["batches"][1]["throughput"] is None


def test_the_worst_cosine_and_the_error_that_just_passes_are_told() -> None:
    given = evidence()
    changed = given.reference[0].copy()
    right = int(np.flatnonzero(changed.argmax(1) == given.labels)[0])
    changed[right] = -changed[right]
    (batch,) = of.summary(evidence(logits={1: [changed]}))["batches"]
    assert batch["cosine_min"] == pytest.approx(-1)
    assert batch["cosine_median"] == pytest.approx(1)
    error = batch["relative_error"]
    assert error > 0
    for gate, passed in ((error, True), (error * 0.999, False)):
        assert of.summary(evidence(logits={1: [changed]}, gate=gate))["verdict"]["passed"] is passed


def test_a_flipped_sample_is_listed_described_and_judged() -> None:
    given = evidence()
    right = int(np.flatnonzero(given.reference[0].argmax(1) == given.labels)[0])
    changed = given.reference[0].copy()
    other = (int(given.labels[right]) + 1) % 400
    changed[right, other] = 50
    verdict = of.summary(evidence(logits={1: given.reference, 4: [changed]}))
    whole, flipped = verdict["batches"]
    assert whole["passed"]
    assert not flipped["passed"]
    assert not verdict["verdict"]["passed"]
    assert flipped["flipped"] == [right]
    assert flipped["top1_hits"] == whole["top1_hits"] - 1
    noted = verdict["noted"][0]
    assert (noted["sample"], noted["name"], noted["flipped"]) == (right, f"clip-{right}", True)
    assert noted["device"]["1"]["class"] == given.labels[right]
    assert noted["device"]["4"]["class"] == other
    assert len(verdict["noted"]) == of.NEAREST


def test_without_flips_the_nearest_samples_are_noted() -> None:
    given = evidence()
    best = np.sort(given.reference[0], axis=1)
    margin = best[:, -1] - best[:, -2]
    noted = of.summary(given)["noted"]
    assert [sample["sample"] for sample in noted] == list(np.argsort(margin, kind="stable")[: of.NEAREST])
    assert not any(sample["flipped"] for sample in noted)


def test_confusions_are_counted_by_pair_and_named() -> None:
    logits = np.zeros((5, 400), np.float32)
    logits[[0, 1, 2, 3, 4], [7, 7, 7, 9, 2]] = 1
    found = of.confused(logits, np.array([3, 3, 1, 9, 0]), CARD.classes or [])
    assert [(p["label"]["class"], p["predicted"]["class"], p["count"]) for p in found] == [
        (3, 7, 2),
        (0, 2, 1),
        (1, 7, 1),
    ]
    assert found[1]["label"]["name"] == "abseiling"


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ({"top1": 0.3159, "top5": 0.5374}, {"top1": 0.3160, "top5": 0.5368}, 0.0006 / 0.5368),
        ({"top1": 0.5, "top5": 1.0}, {"top1": 0.4, "top5": 1.0}, 0.25),
        ({"top1": 0.0, "top5": 0.5}, {"top1": 0.0, "top5": 0.5}, 0.0),
        ({"top1": 0.1, "top5": 0.5}, {"top1": 0.0, "top5": 0.5}, 1.0),
    ],
)
def test_the_relative_error_is_the_largest_of_all_metrics(found: Any, expected: Any, error: float) -> None:
    assert max(of.relative_errors(found, expected).values()) == pytest.approx(error)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("top1", "top5", "decides"), [(0.04, 0, "top1"), (0.06, 0, "top1"), (0.04, 0.02, "top5")])
def test_each_metric_is_judged_by_its_own_gate_in_both_directions(
    top1: float, top5: float, decides: str, sign: int
) -> None:
    gates = {"top1": 0.05, "top5": 0.01}
    metrics = [CARD.metrics[0].model_copy(update={"gate": gates["top1"]}), CARD.metrics[1]]
    given = evidence(card=CARD.model_copy(update={"metrics": metrics}))
    own, off = given.reference_score.metrics, {"top1": top1, "top5": top5}
    device = Score(metrics={key: value * (1 + sign * off[key]) for key, value in own.items()})
    (batch,) = of.summary(dataclasses.replace(given, logits={1: given.reference}, scores={1: device}))["batches"]
    assert batch["passed"] is all(off[key] < gates[key] for key in off)
    assert (batch["decisive"]["metric"], batch["decisive"]["gate"]) == (decides, gates[decides])


def test_an_error_that_is_no_number_does_not_pass() -> None:
    judged = of.farthest({"top1": 0.005, "top5": float("nan")}, {"top1": 0.01, "top5": 0.01})
    assert (judged.metric, judged.passed) == ("top5", False)


def test_the_published_accuracy_is_gated_too_where_it_is_comparable() -> None:
    given = evidence()
    own = given.reference_score.metrics
    near = {"top1": own["top1"] * 1.005, "top5": own["top5"]}
    far = {"top1": own["top1"] * 1.02, "top5": own["top5"]}
    assert of.summary(evidence(published=near))["verdict"]["passed"]
    verdict = of.summary(evidence(published=far))
    assert not verdict["verdict"]["passed"]
    assert verdict["batches"][0]["relative_error"] == 0
    assert verdict["batches"][0]["published_relative_error"] == pytest.approx(0.02 / 1.02)


def test_the_csv_has_the_summary_s_values_one_row_a_batch_size() -> None:
    verdict = of.summary(evidence())
    rows = list(csv.DictReader(io.StringIO(to_csv(verdict))))
    assert [row["batch_size"] for row in rows] == ["1", "4"]
    assert float(rows[0]["top1"]) == verdict["batches"][0]["top1"]
    assert float(rows[0]["throughput_median"]) == 4.0
    assert rows[1]["throughput_median"] == ""
    assert {row["simulated"] for row in rows} == {"True"}


def test_single_persons_are_labelled_and_have_a_rate_of_their_own() -> None:
    persons = {"samples": 60, "a_clip": 1.2}
    figure = {**FIGURE, "persons": {"a_clip": 1.2, "throughput": {"median": 4.8, "min": 4.7, "max": 4.9}}}
    verdict = of.summary(evidence(persons=persons, figures={1: figure, 4: None}))
    assert verdict["persons"] == persons
    told = io.StringIO()
    Console(file=told, width=140).print(table(verdict))
    assert "50 samples as 60 single persons, 1.2 a sample" in told.getvalue()
    assert re.search(r"batch size, persons .* samples/s .* persons/s", told.getvalue())
    assert re.search(r"│ +4\.00 │ +4\.80 │ +✓ │", told.getvalue())
    assert [row["persons_per_sample"] for row in csv.DictReader(io.StringIO(to_csv(verdict)))] == ["1.2", "1.2"]


def test_a_model_without_classes_is_judged_by_its_own_metrics_and_gates() -> None:
    metric = CARD.metrics[0].model_copy(update={"key": "error", "title": "Error", "better": "lower", "unit": "number"})
    loose = metric.model_copy(update={"key": "other", "gate": 0.5})
    card = CARD.model_copy(update={"classes": None, "metrics": [metric, loose], "guide": None, "skeleton": None})
    given = evidence(card=card)
    fp32 = Score(metrics={"error": 2.0, "other": 1.0})

    def judged(error: float, other: float) -> Any:
        found = {size: Score(metrics={"error": error, "other": other}) for size in (1, 4)}
        return of.summary(dataclasses.replace(given, reference_score=fp32, scores=found))

    assert judged(2.019, 1.4)["verdict"]["passed"]
    assert not judged(2.021, 1.4)["verdict"]["passed"]
    assert not judged(2.0, 1.6)["verdict"]["passed"]
    verdict = judged(2.0, 1.0)
    assert verdict["noted"] == []
    assert "confused" not in verdict["batches"][0]
    told = io.StringIO()
    Console(file=told, width=140).print(table(verdict))
    assert "agreement" not in told.getvalue()
    assert next(csv.DictReader(io.StringIO(to_csv(verdict))))["error"] == "2.0"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(cell: str) -> None:
    assert as_text(cell) == f"'{cell}"
    assert [as_text(value) for value in ("fused", "a=b", -1.5, "")] == ["fused", "a=b", -1.5, ""]


@pytest.mark.parametrize(
    ("mark", "said"), [({"noisy": True}, "noisy"), ({"idle": False}, "busy device"), ({"noisy": False}, None)]
)
def test_a_figure_not_to_be_relied_on_is_marked_in_table_and_csv(mark: dict[str, bool], said: str | None) -> None:
    figure = {**FIGURE, "throughput": {**FIGURE["throughput"], **mark}}
    found = of.summary(evidence(figures={1: figure, 4: None}))
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(table(found))
    text = console.export_text()
    assert [word for word in ("noisy", "busy device") if word in text] == ([said] if said else [])
    row = next(csv.DictReader(io.StringIO(to_csv(found))))
    assert row["throughput_noisy"] == str(mark.get("noisy", False))


def test_the_gpu_hosts_figure_stands_beside_the_npus() -> None:
    rates = {"median": 50.0, "min": 49.0, "max": 51.0, "repeats": 3, "noisy": False}
    device = {"kind": "cuda", "name": "Tesla T4", "torch": "1.2.0"}
    measured = {"host": "gpu", "device": device, "idle": True, "batches": [{"batch_size": 1, "throughput": rates}]}
    found = of.summary(evidence(gpu=measured))
    assert found["gpu"] == {"host": "gpu", "device": device, "idle": True}
    one, four = found["batches"]
    assert one["gpu"] == {**rates, "times": FIGURE["throughput"]["median"] / 50}
    assert four["gpu"] is None
    assert of.summary(evidence())["gpu"] is None


def test_what_else_was_measured_stands_beside_the_figure_and_what_was_not_does_not() -> None:
    apart = {name: {"us": 500.0, "share": 0.05, "count": 1} for name in ("compiler", "communication", "unattributed")}
    block = {"block": "1", "us": 2000.0, "share": 0.2, "operators": 3, "compute_us": None, "bound": None}
    profile = {"device_us": 10000.0, "iterations": 5, "attributed": 0.95, "blocks": [block], **apart}
    drift = {"within": {"change": 0.1, "p": 0.001, "drifts": True}, "between": None}
    figure = {**FIGURE, "drift": drift, "sensors": None, "end_to_end": None}
    one, four = of.summary(evidence(figures={1: figure, 4: None}, profiles={1: profile}))["batches"]
    assert one["profile"]["device_ms"] == 10.0
    assert one["profile"]["blocks"] == [{"block": "1", "ms": 2.0, "share": 0.2, "compute_ms": None, "bound": None}]
    assert one["profile"]["unattributed"] == {"ms": 0.5, "share": 0.05}
    assert one["drift"] == drift
    assert not {"sensors", "end_to_end"} & one.keys()
    assert not {"profile", "drift"} & four.keys()
