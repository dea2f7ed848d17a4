"""The skeleton as a graph: 18 OpenPose joints, spatial partition (Yan et al., AAAI 2018, arXiv 1801.07455, 3.4)."""

from __future__ import annotations

import numpy as np

from stgcn.dataset import JOINTS

BONES = (
    (4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5),
    (8, 2), (5, 1), (2, 1), (0, 1), (15, 0), (14, 0), (17, 15), (16, 14),
)  # fmt: skip
CENTRE = 1
PARTITIONS = 3


def adjacency() -> np.ndarray:
    """A[k, v, w], float32 of shape (3, 18, 18): the share that joint v gives to joint w in partition k.

    k = 0: the joint itself; 1: neighbours as far from the centre as w or farther; 2: nearer ones. Each column is
    divided by the joint's degree, its self-link counted. The published weights were trained with distances cut off at
    one hop (0, 1 or infinite), so two joints both beyond one hop count as equally far: kept here.
    """
    linked = np.eye(JOINTS, dtype=bool)
    for v, w in BONES:
        linked[v, w] = linked[w, v] = True
    share = linked / linked.sum(axis=0)
    distance = np.where(linked[CENTRE], 1.0, np.inf)
    distance[CENTRE] = 0.0
    nearer = distance[:, None] < distance[None, :]
    itself = np.eye(JOINTS, dtype=bool)
    partitions = (itself, ~itself & ~nearer, ~itself & nearer)
    return np.stack([np.where(partition, share, 0.0) for partition in partitions]).astype(np.float32)
