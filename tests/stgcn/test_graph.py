"""The adjacency that the published weights were trained with."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from stgcn.graph import BONES, CENTRE, adjacency


def test_the_bytes_are_the_references() -> None:
    shares = adjacency()
    assert (shares.shape, shares.dtype) == ((3, 18, 18), np.float32)
    assert [np.count_nonzero(partition) for partition in shares] == [18, 25, 9]
    assert shares.sum(axis=(1, 2)).tolist() == pytest.approx([6.6667, 8.5833, 2.7500], abs=1e-4)
    assert hashlib.sha256(shares.tobytes()).hexdigest().startswith("59fc8b93edc3db5b")


def test_every_joint_takes_a_whole_from_itself_and_its_neighbours() -> None:
    shares = adjacency().sum(axis=0)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)
    linked = {(v, w) for v, w in zip(*np.nonzero(shares)) if v != w}
    assert linked == set(BONES) | {(w, v) for v, w in BONES}


def test_joints_beyond_one_hop_count_as_equally_far() -> None:
    shares = adjacency()
    for k, v, w in (
        (1, 3, 4),  # elbow and wrist: both ways in the same partition
        (1, 4, 3),
        (2, CENTRE, 2),  # the neck is nearer than a shoulder
        (1, 2, CENTRE),
        (2, 2, 3),  # a shoulder is one hop off, an elbow beyond
        (1, 3, 2),
    ):
        assert np.flatnonzero(shares[:, v, w]).tolist() == [k]
