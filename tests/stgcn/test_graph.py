"""The adjacencies that the published weights were trained with."""

from __future__ import annotations

import hashlib
from typing import List

import numpy as np
import pytest

from stgcn.graph import adjacency, directed_adjacency
from stgcn.skeletons import COCO, KINECT, KINECT_MMACTION, OPENPOSE, Skeleton


def test_the_bytes_are_the_references() -> None:
    shares = adjacency()
    assert (shares.shape, shares.dtype) == ((3, 18, 18), np.float32)
    assert shares.sum(axis=(1, 2)).tolist() == pytest.approx([6.6667, 8.5833, 2.7500], abs=1e-4)
    assert hashlib.sha256(shares.tobytes()).hexdigest().startswith("59fc8b93edc3db5b")


@pytest.mark.parametrize(
    ("skeleton", "spatial", "directed"),
    [
        (OPENPOSE, [18, 25, 9], [18, 17, 17]),
        (COCO, [17, 22, 10], [17, 16, 16]),
        (KINECT, [25, 40, 8], [25, 24, 24]),
        (KINECT_MMACTION, [25, 40, 8], [25, 24, 24]),
    ],
)
def test_each_partition_has_its_edges(skeleton: Skeleton, spatial: List[int], directed: List[int]) -> None:
    for shares, wanted in ((adjacency(skeleton), spatial), (directed_adjacency(skeleton), directed)):
        assert (shares.shape, shares.dtype) == ((3, wanted[0], wanted[0]), np.float32)
        assert [np.count_nonzero(partition) for partition in shares] == wanted
        linked = {(v, w) for v, w in zip(*np.nonzero(shares.sum(axis=0))) if v != w}
        assert linked == set(skeleton.edges) | {(w, v) for v, w in skeleton.edges}
    np.testing.assert_allclose(adjacency(skeleton).sum(axis=(0, 1)), 1, rtol=1e-6)
    columns = directed_adjacency(skeleton).sum(axis=1)
    assert set(np.round(columns.flatten(), 6)) == {0, 1}  # a partition that nothing comes from has an empty column


def test_joints_beyond_one_hop_count_as_equally_far() -> None:
    shares, centre = adjacency(), OPENPOSE.centre
    for k, v, w in (
        (1, 3, 4),  # elbow and wrist: both ways in the same partition
        (1, 4, 3),
        (2, centre, 2),  # the neck is nearer than a shoulder
        (1, 2, centre),
        (2, 2, 3),  # a shoulder is one hop off, an elbow beyond
        (1, 3, 2),
    ):
        assert np.flatnonzero(shares[:, v, w]).tolist() == [k]


def test_directed_edges_lead_to_and_from_the_centre() -> None:
    shares = directed_adjacency(COCO)
    assert shares[1, 0, 5] == 1  # of a shoulder: all comes from the nose
    assert shares[2, 5, 0] == 0.25  # of the nose: a fourth from each eye and shoulder


@pytest.mark.parametrize("skeleton", [OPENPOSE, COCO, KINECT])
def test_sides_mirror_each_other(skeleton: Skeleton) -> None:
    names = [[skeleton.joints[joint] for joint in side] for side in (skeleton.left, skeleton.right)]
    assert sorted(name.replace("left", "right") for name in names[0]) == sorted(names[1])
