"""A trend is told from noise, and a trend that means nothing from one that does."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deploy.npu import drift


def noise(n: int, seed: int, scale: float = 0.01) -> list[float]:
    random.seed(seed)
    return [10 * (1 + scale * random.gauss(0, 1)) for _ in range(n)]


def test_noise_alone_seldom_drifts() -> None:
    found = [drift.within(noise(100, seed)) for seed in range(200)]
    assert sum(each is not None and each.counts for each in found) <= 4
    pairs = [drift.between(noise(50, seed), noise(50, seed + 1000)) for seed in range(200)]
    assert sum(pair is not None and pair.counts for pair in pairs) <= 4


@pytest.mark.parametrize("count", [20, 100, 5000])
def test_times_that_grow_by_a_twentieth_drift(count: int) -> None:
    grown = [value * (1 + 0.05 * i / count) for i, value in enumerate(noise(count, 1, 0.004))]
    found = drift.within(grown)
    assert found is not None
    assert found.counts
    assert found.change == pytest.approx(0.045, abs=0.02)
    shrunk = drift.within(grown[::-1])
    assert shrunk is not None
    assert shrunk.change < 0


def test_a_significant_change_of_nothing_does_not_count() -> None:
    grown = [10 * (1 + 0.005 * i / 1000) for i in range(1000)]
    found = drift.within(grown)
    assert found is not None
    assert found.p < 1e-6
    assert not found.counts


def test_a_later_repeat_that_is_slower_drifts() -> None:
    found = drift.between(noise(30, 1), [1.03 * value for value in noise(30, 2)])
    assert found is not None
    assert found.counts
    assert found.change == pytest.approx(0.03, abs=0.01)


def test_too_few_times_tell_nothing() -> None:
    assert drift.within([1.0] * 7) is None
    assert drift.between([1.0] * 7, [2.0] * 50) is None
    same = drift.within([1.0] * 50)
    assert same is not None
    assert not same.counts


@pytest.mark.parametrize("q", [0, 50, 90, 99, 100])
def test_a_percentile_is_numpys(q: float) -> None:
    values = noise(37, 3)
    assert drift.percentile(values, q) == pytest.approx(np.percentile(values, q))
