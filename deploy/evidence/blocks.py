"""How near two runs of a graph's blocks are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Nearness:
    """How near a device's output of one block is to fp32's, over all samples."""

    block: str  # its name, or "logits"
    relative_error: float  # |device - fp32| / |fp32|, Euclidean, of the worst sample
    cosine_min: float
    max_abs_err: float


def compare(
    names: Sequence[str], device: Mapping[str, np.ndarray], fp32: Mapping[str, np.ndarray]
) -> Iterator[Nearness]:
    """The nearness of each named output; arrays are (samples, values)."""
    for name in names:
        a, b = device[name].astype(np.float64), fp32[name].astype(np.float64)
        length = np.maximum(np.linalg.norm(b, axis=1), 1e-30)
        error = np.linalg.norm(a - b, axis=1) / length
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * length, 1e-30)
        yield Nearness(name, float(error.max()), float(cosine.min()), float(np.abs(a - b).max()))
