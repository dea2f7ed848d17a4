"""The verdict as data: `report/summary.json` (format 1), computed from logits, labels and figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stgcn.score import top_k_hits

FORMAT = 1
TOP = (1, 5)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Integer hits and rates of (n, 400) logits against (n,) labels."""
    hits = {k: top_k_hits(logits, labels, k) for k in TOP}
    counts = {f"top{k}_hits": hits[k] for k in TOP}
    return {**counts, **{f"top{k}": hits[k] / len(labels) for k in TOP}}


def agreement(logits: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """How near (n, 400) logits are to the fp32 reference of the same samples."""
    a, b = logits.astype(np.float64), reference.astype(np.float64)
    cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    error = np.abs(a - b)
    flipped = np.flatnonzero(a.argmax(1) != b.argmax(1))
    return {
        "top1_agreement": 1 - len(flipped) / len(a),
        "cosine_min": float(cosine.min()),
        "cosine_median": float(np.median(cosine)),
        "max_abs_err": float(error.max()),
        "mean_abs_err": float(error.mean()),
        "flipped": [int(i) for i in flipped],
    }


def relative_error(found: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """The larger relative difference of Top-1 and Top-5; a rate expected to be 0 counts as 1 when it is not."""
    return max(
        abs(found[k] - expected[k]) / expected[k] if expected[k] else float(found[k] != 0) for k in ("top1", "top5")
    )


def batch(
    batch_size: int,
    logits: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    figure: Mapping[str, Any] | None,
    gate: float,
    published: Mapping[str, float] | None,
) -> dict[str, Any]:
    """One batch size's part of the summary; `published` holds where its accuracy is comparable, else None."""
    found, expected = accuracy(logits, labels), accuracy(reference, labels)
    errors = {"relative_error": relative_error(found, expected)}
    if published:
        errors["published_relative_error"] = relative_error(found, published)
    return {
        "batch_size": batch_size,
        "samples": len(labels),
        **found,
        **agreement(logits, reference),
        "throughput": figure["throughput"] if figure else None,
        "latency_ms": figure["latency_ms"] if figure else None,
        **errors,
        "passed": all(error <= gate for error in errors.values()),
    }


def summary(
    device: Mapping[str, Any], reference: Mapping[str, Any], batches: list[dict[str, Any]], gate: float
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "device": dict(device),
        "samples": batches[0]["samples"],
        "reference": dict(reference),
        "batches": batches,
        "verdict": {"passed": all(b["passed"] for b in batches), "gate": gate},
    }
