"""A push over 1 Gbit/s with a round trip of 1 ms beats `scp -r` of the same clips. The figures are `make bench`'s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import data
from benchmarks.data import Dataset
from benchmarks.harness import Scratch
from benchmarks.push import Pair, against_scp, clips_of
from stgcn.dataset import open_clips
from tests.system import conftest
from tests.system.network import Network

CLIPS = 3000


def like_the_samples(place: Scratch, folder: Path) -> Dataset:
    return data.repeated(data.sample(place)[0], CLIPS, folder)


def incompressible(_place: Scratch, folder: Path) -> Dataset:
    return data.incompressible(CLIPS, folder)


# Below what is measured where both hosts share two cores: a guard against a push that waits for each file.
@pytest.mark.parametrize(("make", "times"), [(like_the_samples, 4), (incompressible, 3)])
def test_a_push_beats_scp(
    make: Callable[[Scratch, Path], Dataset], times: float, network: Network, tmp_path: Path
) -> None:
    place = Scratch(tmp_path, "kept")
    dataset = make(place, tmp_path / "dataset")
    with network.gigabit() as port:
        took = against_scp(place, Pair(network, port), dataset, tmp_path / "files", repeats=1)
    network.pin_keys()
    (workspace,) = (folder.parent for folder in tmp_path.glob("fresh-*/npu"))
    raw = open_clips(dataset.clips).reshape(CLIPS, -1).view(np.uint8)
    assert np.array_equal(conftest.clips_of(Path(clips_of(workspace))), raw)
    assert took["scp"][0] / took["push"][0] >= times
