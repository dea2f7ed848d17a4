"""Top-k accuracy of logits."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np


def top_k_hits(logits: np.ndarray, labels: np.ndarray, ks: Sequence[int]) -> Dict[int, int]:
    """For each k, how many of the (N, 400) logits have their label among the k highest.

    Of equal logits the lower class is higher.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    rank = np.count_nonzero(logits > own, axis=1)
    equal = np.flatnonzero(np.count_nonzero(logits == own, axis=1) > 1)
    before_label = np.arange(logits.shape[1]) < labels[equal, None]
    rank[equal] += np.count_nonzero((logits[equal] == own[equal]) & before_label, axis=1)
    return {k: int(np.count_nonzero(rank < k)) for k in ks}
