"""The verdict as data: `report/summary.json` (format 1), a pure function of logits, labels and figures.

`fab audit` computes it again and compares, so nothing here depends on time, place or order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.report import differences
from stgcn.accuracy import top_k_hits
from stgcn.dataset import class_names

FORMAT = 1
TOP = (1, 5)
CONFUSED = 10  # pairs of classes listed for a batch size
COMPARED_ROWS = 512  # at a time, so that float64 copies of all logits are never needed
FLIPPED = 12  # flipped samples described in full: each is drawn on the page
LISTED = 1000  # flipped samples listed for a batch size
NEAREST = 3  # with fewer flips than this, the samples nearest to one make up the number

# The reference guide's figures: ais_bench, one 310P3, CANN 6.0.RC1, samples/s by batch size.
GUIDE = {
    "chip": "310P3",
    "top1": 0.3159,
    "top5": 0.5374,
    "throughput": {"1": 381.10, "4": 237.11, "8": 222.46, "16": 217.65, "32": 223.21, "64": 219.39},
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All that a verdict follows from; the rows of every array are the samples, in the dataset's order."""

    device: Mapping[str, Any]
    names: Sequence[str]
    labels: np.ndarray  # (n,) int64
    reference: np.ndarray  # (n, 400) float32, fp32 logits
    logits: Mapping[int, np.ndarray]  # by batch size, (n, 400) float32
    figures: Mapping[int, Mapping[str, Any] | None]  # by batch size, benchmark.json; None where not measured
    gate: float  # relative error that passes
    published: Mapping[str, float] | None  # accuracy, where it is comparable
    persons: Mapping[str, Any] | None = None  # where the device was given single ones: `samples`, so many make `a_clip`


def summary(evidence: Evidence) -> Json:
    """The contents of summary.json."""
    batches = [_batch(evidence, size) for size in evidence.logits]
    return {
        "format": FORMAT,
        "device": dict(evidence.device),
        "samples": len(evidence.labels),
        "persons": dict(evidence.persons) if evidence.persons else None,
        "reference": {
            **accuracy(evidence.reference, evidence.labels),
            "published": dict(evidence.published) if evidence.published else None,
            "confused": confused(evidence.reference, evidence.labels),
        },
        "batches": batches,
        "flipped_count": int(_flips(evidence).sum()),
        "noted": noted(evidence),
        "guide": {**GUIDE, "latency_ms": {size: 1000 * int(size) / rate for size, rate in _guide_rates().items()}},
        "verdict": {"passed": all(b["passed"] for b in batches), "gate": evidence.gate},
    }


def _batch(evidence: Evidence, size: int) -> Json:
    logits, figure = evidence.logits[size], evidence.figures[size]
    found = accuracy(logits, evidence.labels)
    errors = {"relative_error": relative_error(found, accuracy(evidence.reference, evidence.labels))}
    if evidence.published:
        errors["published_relative_error"] = relative_error(found, evidence.published)
    return {
        "batch_size": size,
        "samples": len(evidence.labels),
        **found,
        **agreement(logits, evidence.reference),
        "throughput": _throughput(figure, size) if figure else None,
        "persons": figure.get("persons") if figure else None,
        "latency_ms": figure["latency_ms"] if figure else None,
        **errors,
        "passed": all(error <= evidence.gate for error in errors.values()),
        "confused": confused(logits, evidence.labels),
        **_differences(evidence, logits),
    }


def _differences(evidence: Evidence, logits: np.ndarray) -> Json:
    """Where the answers of one batch size differ from fp32's."""
    answers, expected = logits.argmax(1), evidence.reference.argmax(1)
    of_both = (answers, expected, evidence.labels, _CLASS_NAMES)
    return {
        "class_changes": differences.by_class(*of_both),
        "confusion_changes": differences.by_confusion(*of_both),
        "margins": differences.by_margin(_margins(evidence.reference), answers != expected),
    }


def _margins(reference: np.ndarray) -> np.ndarray:
    """How far each row's best logit lies above its second, (n,) float64."""
    best = np.partition(reference, -2, axis=1)[:, -2:].astype(np.float64)
    return np.asarray(np.abs(best[:, 1] - best[:, 0]))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> Json:
    """Integer hits and rates of (n, 400) logits against (n,) labels; ties as `stgcn.accuracy.top_k_hits` has them."""
    hits = top_k_hits(logits, labels, TOP)
    counts = {f"top{k}_hits": hits[k] for k in TOP}
    return {**counts, **{f"top{k}": hits[k] / len(labels) for k in TOP}}


def agreement(logits: np.ndarray, reference: np.ndarray) -> Json:
    """How near (n, 400) logits are to the fp32 reference of the same samples."""
    starts = range(0, len(logits), COMPARED_ROWS)
    parts = [_compared(logits[i : i + COMPARED_ROWS], reference[i : i + COMPARED_ROWS]) for i in starts]
    cosine, largest, mean = (np.concatenate(column) for column in zip(*parts, strict=True))
    flipped = np.flatnonzero(logits.argmax(1) != reference.argmax(1))
    return {
        "top1_agreement": 1 - len(flipped) / len(logits),
        "cosine_min": float(cosine.min()),
        "cosine_median": float(np.median(cosine)),
        "max_abs_err": float(largest.max()),
        "mean_abs_err": float(mean.mean()),
        "flipped_count": len(flipped),
        "flipped": flipped[:LISTED].tolist(),
    }


def _compared(logits: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: cosine, largest and mean absolute error, in float64."""
    a, b = logits.astype(np.float64), reference.astype(np.float64)
    error = np.abs(a - b)
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    return cosine, error.max(1), error.mean(1)


def relative_error(found: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """The larger relative difference of Top-1 and Top-5; a rate expected to be 0 counts as 1 when it is not."""
    return max(
        abs(found[k] - expected[k]) / expected[k] if expected[k] else float(found[k] != 0) for k in ("top1", "top5")
    )


def confused(logits: np.ndarray, labels: np.ndarray) -> list[Json]:
    """The most frequent wrong answers, most frequent first: which class was taken for which, how often."""
    predicted = logits.argmax(1)
    wrong = predicted != labels
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    most = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:CONFUSED]
    return [{"label": _class(label), "predicted": _class(other), "count": count} for (label, other), count in most]


def noted(evidence: Evidence) -> list[Json]:
    """The samples to look at: those whose Top-1 flipped at some batch size, then those nearest to a flip.

    A sample's margin is how far the reference's best logit lies above its second.
    """
    margin = _margins(evidence.reference)
    answers = {size: logits.argmax(1) for size, logits in evidence.logits.items()}
    expected, flips = evidence.reference.argmax(1), _flips(evidence)
    chosen = [int(i) for i in np.flatnonzero(flips)[:FLIPPED]]
    calm = [int(i) for i in np.argsort(margin, kind="stable") if not flips[i]]
    chosen += calm[: max(0, NEAREST - len(chosen))]
    return [
        {
            "sample": i,
            "name": evidence.names[i],
            "flipped": bool(flips[i]),
            "margin": float(margin[i]),
            "label": _class(evidence.labels[i]),
            "reference": _class(expected[i]),
            "device": {str(size): _class(answer[i]) for size, answer in answers.items()},
        }
        for i in chosen
    ]


def _flips(evidence: Evidence) -> np.ndarray:
    """Which samples have another Top-1 than fp32's at some batch size, (n,) bool."""
    expected = evidence.reference.argmax(1)
    return np.asarray(np.any([logits.argmax(1) != expected for logits in evidence.logits.values()], axis=0))


def _throughput(figure: Mapping[str, Any], size: int) -> Json:
    """benchmark.json's, and how many times the guide's figure for this batch size it is."""
    rates: Any = GUIDE["throughput"]
    guided = rates.get(str(size)) if not figure.get("simulated") else None
    told = {"values": [], "noisy": False, **figure["throughput"]}  # records of earlier versions lack these
    return {**told, "speed_up": told["median"] / guided if guided else None}


def _class(index: int) -> Json:
    return {"class": int(index), "name": _CLASS_NAMES[int(index)]}


_CLASS_NAMES = class_names()


def _guide_rates() -> Mapping[str, float]:
    rates: Any = GUIDE["throughput"]
    return dict(rates)
