"""Skeletons as graphs, and the partitions of their edges that graph convolutions run over.

Edges and centres are those that the published weights were trained with: mmskeleton's layouts `openpose` and
`ntu-rgb+d`, mmaction2's `coco` and `nturgb+d`.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

PARTITIONS = 3


class Skeleton(NamedTuple):
    """Joints by number, the edges between them as (joint, the one nearer to the centre), and which are on which side.

    `dimensions`: 2 where a joint is x, y and a score; 3 where it is x, y, z.
    """

    joints: Tuple[str, ...]
    edges: Tuple[Tuple[int, int], ...]
    centre: int
    dimensions: int

    @property
    def left(self) -> Tuple[int, ...]:
        return self._of_side("left")

    @property
    def right(self) -> Tuple[int, ...]:
        return self._of_side("right")

    def _of_side(self, side: str) -> Tuple[int, ...]:
        return tuple(number for number, name in enumerate(self.joints) if side in name.split())


_ARMS_AND_LEGS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

OPENPOSE = Skeleton(
    joints=(
        "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
        "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
        "right ear", "left ear",
    ),
    edges=(
        (4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5),
        (8, 2), (5, 1), (2, 1), (0, 1), (15, 0), (14, 0), (17, 15), (16, 14),
    ),
    centre=1,
    dimensions=2,
)  # fmt: skip

COCO = Skeleton(
    joints=(
        "nose", "left eye", "right eye", "left ear", "right ear",
        *(f"{side} {joint}" for joint in _ARMS_AND_LEGS for side in ("left", "right")),
    ),
    edges=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 5), (12, 6), (9, 7), (7, 5),
        (10, 8), (8, 6), (5, 0), (6, 0), (1, 0), (3, 1), (2, 0), (4, 2),
    ),
    centre=0,
    dimensions=2,
)  # fmt: skip

_KINECT_EDGES = (
    (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9), (11, 10),
    (12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18),
)  # fmt: skip
# The fingers hang together in two ways: tip, thumb, hand in a chain, or tip and thumb both on the hand
KINECT = Skeleton(
    joints=(
        "base of the spine", "middle of the spine", "neck", "head",
        "left shoulder", "left elbow", "left wrist", "left hand",
        "right shoulder", "right elbow", "right wrist", "right hand",
        "left hip", "left knee", "left ankle", "left foot", "right hip", "right knee", "right ankle", "right foot",
        "spine", "tip of the left hand", "left thumb", "tip of the right hand", "right thumb",
    ),
    edges=(*_KINECT_EDGES, (21, 22), (22, 7), (23, 24), (24, 11)),
    centre=20,
    dimensions=3,
)  # fmt: skip
KINECT_MMACTION = KINECT._replace(edges=(*_KINECT_EDGES, (21, 7), (22, 7), (23, 11), (24, 11)))


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
