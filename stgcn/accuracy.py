"""Scores of several rows, and top-k accuracy of logits."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np

BLOCK = 512  # samples that stay in the cache


def mean_softmax(logits: np.ndarray) -> np.ndarray:
    """The score of each sample, float32 (n, classes), of its rows' logits (n, rows, classes): their softmax's mean.

    It is mmaction2's `average_clips='prob'`.
    """
    powers = np.exp(logits - logits.max(axis=2, keepdims=True))
    mean: np.ndarray = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=1)
    return mean


def top_k_hits(logits: np.ndarray, labels: np.ndarray, ks: Sequence[int]) -> Dict[int, int]:
    """For each k, how many of the (N, 400) logits have their label among the k highest.

    Of equal logits the lower class is higher.
    """
    rank = np.empty(len(labels), np.int64)
    classes = np.arange(logits.shape[1])
    for first in range(0, len(labels), BLOCK):
        block, label = logits[first : first + BLOCK], labels[first : first + BLOCK, None]
        own = np.take_along_axis(block, label, axis=1)
        rank[first : first + BLOCK] = np.count_nonzero(block > own, axis=1)
        for row in np.flatnonzero(np.count_nonzero(block == own, axis=1) > 1):
            rank[first + row] += np.count_nonzero((block[row] == own[row]) & (classes < label[row]))
    return {k: int(np.count_nonzero(rank < k)) for k in ks}
