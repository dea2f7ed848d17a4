"""Where the device's answers differ from fp32's on the same samples: by class, by confusion, by margin.

Pure functions of integer answers and of fp32's margins; no place or time in them, so an audit computes them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

CLASSES_LISTED = 20
PAIRS_LISTED = 10
BINS = 24
_IN_BINS = 0.99  # of the samples; the last bin ends there and holds what lies beyond too

Json = dict[str, Any]


def by_class(answers: np.ndarray, expected: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[Json]:
    """The classes in which the hits of `answers` and of `expected` (fp32's), both (n,), differ; largest first."""
    count = len(names)
    samples, theirs, ours = (
        np.bincount(labels[hit], minlength=count)
        for hit in (np.ones(len(labels), bool), expected == labels, answers == labels)
    )
    change = ours - theirs
    changed = sorted(np.flatnonzero(change).tolist(), key=lambda i: (-abs(int(change[i])), i))
    return [
        {
            "class": i,
            "name": names[i],
            "samples": int(samples[i]),
            "reference_hits": int(theirs[i]),
            "device_hits": int(ours[i]),
        }
        for i in changed[:CLASSES_LISTED]
    ]


def by_confusion(answers: np.ndarray, expected: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[Json]:
    """The wrong answers (label, given) that the device gives more or less often than fp32; largest change first."""
    ours, theirs = (_wrong(given, labels) for given in (answers, expected))
    changed = {pair: ours[pair] - theirs[pair] for pair in ours | theirs if ours[pair] != theirs[pair]}
    most = sorted(changed, key=lambda pair: (-abs(changed[pair]), pair))[:PAIRS_LISTED]
    return [
        {
            "label": {"class": label, "name": names[label]},
            "predicted": {"class": given, "name": names[given]},
            "reference_count": theirs[label, given],
            "device_count": ours[label, given],
        }
        for label, given in most
    ]


def by_margin(margin: np.ndarray, flipped: np.ndarray) -> Json:
    """A histogram of fp32's margins (n,): samples in each bin, and how many of them flipped ((n,) bool)."""
    top = float(np.quantile(margin, _IN_BINS)) or 1.0
    edges = np.linspace(0.0, top, BINS + 1)
    held = np.minimum(margin, top)
    every, turned = (np.histogram(held[chosen], edges)[0] for chosen in (np.ones(len(margin), bool), flipped))
    return {"edges": edges.tolist(), "samples": every.tolist(), "flipped": turned.tolist()}


def _wrong(answers: np.ndarray, labels: np.ndarray) -> Counter[tuple[int, int]]:
    wrong = answers != labels
    return Counter(zip(labels[wrong].tolist(), answers[wrong].tolist(), strict=True))
