"""The partitions of a skeleton's edges that graph convolutions run over."""

from __future__ import annotations

import numpy as np

from stgcn.skeletons import OPENPOSE, Skeleton

PARTITIONS = 3


def adjacency(skeleton: Skeleton = OPENPOSE) -> np.ndarray:
    """A[k, v, w], float32 of shape (3, V, V): the share that joint v gives to joint w in partition k.

    The spatial configuration of the paper (Yan et al., AAAI 2018, arXiv 1801.07455, 3.4). k = 0: the joint itself; 1:
    neighbours as far from the centre as w or farther; 2: nearer ones. Each column is divided by the joint's degree, its
    self-link counted. The published weights were trained with distances cut off at one hop (0, 1 or infinite), so two
    joints both beyond one hop count as equally far: kept here.
    """
    joints = len(skeleton.joints)
    linked = np.eye(joints, dtype=bool)
    for v, w in skeleton.edges:
        linked[v, w] = linked[w, v] = True
    share = linked / linked.sum(axis=0)
    distance = np.where(linked[skeleton.centre], 1.0, np.inf)
    distance[skeleton.centre] = 0.0
    nearer = distance[:, None] < distance[None, :]
    itself = np.eye(joints, dtype=bool)
    partitions = (itself, ~itself & ~nearer, ~itself & nearer)
    return np.stack([np.where(partition, share, 0.0) for partition in partitions]).astype(np.float32)


def directed_adjacency(skeleton: Skeleton) -> np.ndarray:
    """A[k, v, w], float32 of shape (3, V, V), as ST-GCN++ starts from (arXiv 2205.09443).

    k = 0: the joint itself; 1: from the joint nearer to the centre; 2: to it. Each column of each partition is divided
    by its sum.
    """
    joints = len(skeleton.joints)
    partitions = np.zeros((PARTITIONS, joints, joints))
    partitions[0] = np.eye(joints)
    for outer, inner in skeleton.edges:
        partitions[1, inner, outer] = partitions[2, outer, inner] = 1
    shares: np.ndarray = partitions / np.maximum(partitions.sum(axis=1, keepdims=True), 1)
    return shares.astype(np.float32)
