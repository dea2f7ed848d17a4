"""The verdict as data: `report/summary.json` (format 1), a pure function of logits, labels and figures.

`fab audit` computes it again and compares, so nothing here depends on time, place or order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.evidence.scores import Score
from deploy.pipeline.model import Card
from deploy.report import differences

FORMAT = 1
CONFUSED = 10  # pairs of classes listed for a batch size
COMPARED_ROWS = 512  # at a time, so that float64 copies of all logits are never needed
FLIPPED = 12  # flipped samples described in full: each is drawn on the page
LISTED = 1000  # flipped samples listed for a batch size
NEAREST = 3  # with fewer flips than this, the samples nearest to one make up the number

Json = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All that a verdict follows from; the rows of every array are the samples, in the dataset's order."""

    card: Card
    device: Mapping[str, Any]
    names: Sequence[str]
    labels: np.ndarray  # (n, ...); with classes (n,) int64
    reference: Sequence[np.ndarray]  # fp32, one per output of the model, each (n, ...)
    logits: Mapping[int, Sequence[np.ndarray]]  # the device's, by batch size
    reference_score: Score
    scores: Mapping[int, Score]  # by batch size
    figures: Mapping[int, Mapping[str, Any] | None]  # by batch size, benchmark.json; None where not measured
    gate: float  # relative error that passes
    published: Mapping[str, float] | None  # accuracy, where it is comparable
    gpu: Mapping[str, Any] | None = None  # gpu/benchmark.json; None where not measured
    persons: Mapping[str, Any] | None = None  # where the device was given single ones: `samples`, so many make `a_clip`
    precision: Mapping[str, Any] | None = None  # precision/precision.json; None where nobody asked
    profiles: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # by batch size, profile.json


def summary(evidence: Evidence) -> Json:
    """The contents of summary.json."""
    gates = evidence.card.gates(evidence.gate)
    batches = [_batch(evidence, size) for size in evidence.logits]
    return {
        "format": FORMAT,
        "model": {"name": evidence.card.name, "title": evidence.card.title},
        "metrics": [{**metric.model_dump(), "gate": gates[metric.key]} for metric in evidence.card.metrics],
        "device": dict(evidence.device),
        "samples": len(evidence.labels),
        "persons": dict(evidence.persons) if evidence.persons else None,
        "reference": {
            **evidence.reference_score.as_json(),
            "published": dict(evidence.published) if evidence.published else None,
            **_confused(evidence, evidence.reference[0]),
        },
        "batches": batches,
        **({"flipped_count": int(_flips(evidence).sum())} if evidence.card.classes else {}),
        "noted": noted(evidence),
        "guide": _guide(evidence.card),
        "gpu": _gpu(evidence.gpu),
        **({"precision": of_precision(evidence.precision)} if evidence.precision else {}),
        "verdict": {"passed": all(b["passed"] for b in batches), "gate": evidence.gate},
    }


def _batch(evidence: Evidence, size: int) -> Json:
    outputs, score, figure = evidence.logits[size], evidence.scores[size], evidence.figures[size]
    gates = evidence.card.gates(evidence.gate)
    errors = {"relative_error": relative_errors(score.metrics, evidence.reference_score.metrics)}
    if evidence.published:
        errors["published_relative_error"] = relative_errors(score.metrics, evidence.published)
    worst = {name: farthest(each, gates) for name, each in errors.items()}
    decisive = max(worst, key=lambda name: worst[name].of_gate)
    return {
        "batch_size": size,
        "samples": len(evidence.labels),
        **score.as_json(),
        **_agreement(evidence, outputs),
        "throughput": _throughput(evidence.card, figure, size) if figure else None,
        "gpu": _beside(evidence.gpu, figure, size),
        "persons": figure.get("persons") if figure else None,
        "latency_ms": figure["latency_ms"] if figure else None,
        **_besides(figure, evidence.profiles.get(size)),
        **{name: max(each.values()) for name, each in errors.items()},
        "decisive": {"against": "fp32" if decisive == "relative_error" else "published", **worst[decisive].as_json()},
        "passed": worst[decisive].passed,
        **_confused(evidence, outputs[0]),
        **_differences(evidence, outputs[0]),
    }


_OF_FIGURE = ("drift", "sensors", "end_to_end")
_APART = ("compiler", "communication", "unattributed")  # of a profile, what is of no node


def _besides(figure: Mapping[str, Any] | None, profile: Mapping[str, Any] | None) -> Json:
    """What else was measured, each where it was: drift, sensors, end to end; and the profile, by block."""
    found = {name: figure[name] for name in _OF_FIGURE if figure and figure.get(name)}
    if profile:
        parts = {name: _in_ms(profile[name]) for name in ("blocks", *_APART)}
        found["profile"] = _in_ms({name: profile[name] for name in ("device_us", "iterations", "attributed")}) | parts
    return found


def _in_ms(value: Any) -> Any:
    """A part of a profile with milliseconds for its microseconds; what names operators is left to profile.json."""
    if isinstance(value, list):
        return [_in_ms(each) for each in value]
    ends = {"us": "ms"} | {f"{name}_us": f"{name}_ms" for name in ("device", "compute", "bandwidth")}
    kept = {name: each for name, each in value.items() if name not in ("operators", "kinds", "count")}
    return {
        ends.get(name, name): each / 1000 if name in ends and each is not None else each for name, each in kept.items()
    }


def of_precision(found: Mapping[str, Any]) -> Json:
    """Which nodes stay in float32, and what each way of converting gives."""
    kept = ("explained", "batch_size", "samples", "mode", "units", "conversions", "blocks", "matrix", "inventory")
    of_node = ("name", "kind", "block", "reasons")
    of_verdict = ("samples", "passed", "finite", "relative_error", "agreement")
    of_rate = ("median", "min", "max", "repeats", "idle", "noisy")
    return {
        **{name: found[name] for name in kept},
        "file": found["file"],
        "kept": len(found["nodes"]),
        "nodes": [{name: node[name] for name in of_node} for node in found["nodes"]],
        "ways": [
            {
                "way": way,
                **{name: verdict.get(name) for name in of_verdict},
                "throughput": {name: found["throughput"][way][name] for name in of_rate}
                if way in found["throughput"]
                else None,
            }
            for way, verdict in found["verdicts"].items()
        ],
    }


def _differences(evidence: Evidence, logits: np.ndarray) -> Json:
    """Where the answers of one batch size differ from fp32's."""
    if not evidence.card.classes:
        return {}
    answers, expected = logits.argmax(1), evidence.reference[0].argmax(1)
    of_both = (answers, expected, evidence.labels, evidence.card.classes)
    return {
        "class_changes": differences.by_class(*of_both),
        "confusion_changes": differences.by_confusion(*of_both),
        "margins": differences.by_margin(_margins(evidence.reference[0]), answers != expected),
    }


def _margins(reference: np.ndarray) -> np.ndarray:
    """How far each row's best logit lies above its second, (n,) float64."""
    best = np.partition(reference, -2, axis=1)[:, -2:].astype(np.float64)
    return np.asarray(np.abs(best[:, 1] - best[:, 0]))


def _agreement(evidence: Evidence, outputs: Sequence[np.ndarray]) -> Json:
    """How near the outputs are to the fp32 reference of the same samples; with classes, also the answers."""
    found: Json = {}
    if evidence.card.classes:
        flipped = np.flatnonzero(outputs[0].argmax(1) != evidence.reference[0].argmax(1))
        found[agreement_key(evidence.card)] = 1 - len(flipped) / len(outputs[0])
    found |= nearness(outputs[0], evidence.reference[0])
    if evidence.card.classes:
        found |= {"flipped_count": len(flipped), "flipped": flipped[:LISTED].tolist()}
    others = zip(evidence.card.outputs[1:], outputs[1:], evidence.reference[1:], strict=True)
    if others_near := {tensor.name: nearness(a, b) for tensor, a, b in others}:
        found["outputs"] = others_near
    return found


def agreement_key(card: Card) -> str:
    """The name in a summary of the share of samples that get fp32's answer."""
    return f"{card.metrics[0].key}_agreement"


def nearness(outputs: np.ndarray, reference: np.ndarray) -> Json:
    """How near (n, ...) values are to others, over the samples."""
    rows, others = (values.reshape(len(values), -1) for values in (outputs, reference))
    starts = range(0, len(rows), COMPARED_ROWS)
    parts = [_compared(rows[i : i + COMPARED_ROWS], others[i : i + COMPARED_ROWS]) for i in starts]
    cosine, largest, mean = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {
        "cosine_min": float(cosine.min()),
        "cosine_median": float(np.median(cosine)),
        "max_abs_err": float(largest.max()),
        "mean_abs_err": float(mean.mean()),
    }


def _compared(logits: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: cosine, largest and mean absolute error, in float64."""
    a, b = logits.astype(np.float64), reference.astype(np.float64)
    error = np.abs(a - b)
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    return cosine, error.max(1), error.mean(1)


def relative_errors(found: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """By metric, the relative difference; a value expected to be 0 counts as 1 when it is not."""
    return {
        key: abs(found[key] - value) / abs(value) if value else float(found[key] != 0)
        for key, value in expected.items()
    }


@dataclass(frozen=True)
class Judged:
    """A metric's relative error beside what its gate allows; the error is of either direction."""

    metric: str
    relative_error: float
    gate: float

    @property
    def passed(self) -> bool:
        return self.relative_error <= self.gate  # NaN does not

    @property
    def of_gate(self) -> float:
        """1 at the gate; an error that is no number is infinitely far off."""
        share = self.relative_error / self.gate
        return math.inf if math.isnan(share) else share

    def as_json(self) -> Json:
        return dict(vars(self))


def farthest(errors: Mapping[str, float], gates: Mapping[str, float]) -> Judged:
    """The metric that is farthest off for its gate: it passes where all do."""
    return max((Judged(key, error, gates[key]) for key, error in errors.items()), key=lambda judged: judged.of_gate)


def _confused(evidence: Evidence, logits: np.ndarray) -> Json:
    classes = evidence.card.classes
    return {"confused": confused(logits, evidence.labels, classes)} if classes else {}


def confused(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[Json]:
    """The most frequent wrong answers, most frequent first: which class was taken for which, how often."""
    predicted = logits.argmax(1)
    wrong = predicted != labels
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    most = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:CONFUSED]
    return [
        {"label": _class(label, classes), "predicted": _class(other, classes), "count": count}
        for (label, other), count in most
    ]


def noted(evidence: Evidence) -> list[Json]:
    """The samples to look at: those whose Top-1 flipped at some batch size, then those nearest to a flip.

    A sample's margin is how far the reference's best logit lies above its second.
    """
    classes = evidence.card.classes
    if not classes:
        return []
    margin = _margins(evidence.reference[0])
    answers = {size: outputs[0].argmax(1) for size, outputs in evidence.logits.items()}
    expected, flips = evidence.reference[0].argmax(1), _flips(evidence)
    chosen = [int(i) for i in np.flatnonzero(flips)[:FLIPPED]]
    calm = [int(i) for i in np.argsort(margin, kind="stable") if not flips[i]]
    chosen += calm[: max(0, NEAREST - len(chosen))]
    return [
        {
            "sample": i,
            "name": evidence.names[i],
            "flipped": bool(flips[i]),
            "margin": float(margin[i]),
            "label": _class(evidence.labels[i], classes),
            "reference": _class(expected[i], classes),
            "device": {str(size): _class(answer[i], classes) for size, answer in answers.items()},
        }
        for i in chosen
    ]


def _flips(evidence: Evidence) -> np.ndarray:
    """Which samples have another answer than fp32's at some batch size, (n,) bool."""
    expected = evidence.reference[0].argmax(1)
    return np.asarray(np.any([outputs[0].argmax(1) != expected for outputs in evidence.logits.values()], axis=0))


def _throughput(card: Card, figure: Mapping[str, Any], size: int) -> Json:
    """benchmark.json's, and how many times the guide's figure for this batch size it is."""
    rates = card.guide.throughput if card.guide else {}
    guided = rates.get(str(size)) if not figure.get("simulated") else None
    rate = {"values": [], "noisy": False, **figure["throughput"]}  # records of earlier versions lack these
    return {**rate, "speed_up": rate["median"] / guided if guided else None}


def _gpu(measured: Mapping[str, Any] | None) -> Json | None:
    """What the fp32 figures are of."""
    if measured is None:
        return None
    return {"host": measured["host"], "device": measured["device"], "idle": measured["idle"]}


def _beside(measured: Mapping[str, Any] | None, figure: Mapping[str, Any] | None, size: int) -> Json | None:
    """The fp32 figure of a batch size, and how many times it the NPU's is."""
    rates = {batch["batch_size"]: batch["throughput"] for batch in measured["batches"]} if measured else {}
    if size not in rates:
        return None
    rate = {key: rates[size][key] for key in ("median", "min", "max", "repeats", "noisy")}
    return {**rate, "times": figure["throughput"]["median"] / rate["median"] if figure else None}


def _class(index: int, classes: Sequence[str]) -> Json:
    return {"class": int(index), "name": classes[int(index)]}


def _guide(card: Card) -> Json:
    """Another's figures, beside which the device's are shown; the times follow from the rates."""
    if card.guide is None:
        return {"throughput": {}, "latency_ms": {}}
    rates = card.guide.throughput
    times = {size: 1000 * int(size) / rate for size, rate in rates.items()}
    return {"chip": card.guide.chip, **card.guide.metrics, "throughput": rates, "latency_ms": times}
