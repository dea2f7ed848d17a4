"""The skeletons that the models' data have. Nothing here needs numpy: see stgcn.score.

Edges and centres are those that the published weights were trained with: mmskeleton's layouts `openpose` and
`ntu-rgb+d`, mmaction2's `coco` and `nturgb+d`.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple


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
