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


@pytest.mark.parametrize("shape", ["wide", "two modes", "heavy tail", "dips"])
def test_the_most_changed_of_five_repeats_seldom_drifts_by_chance(shape: str) -> None:
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        repeats = {
            "wide": np.exp(0.2 * rng.standard_normal((5, 100))),
            "two modes": np.where(rng.random((5, 100)) < 0.5, 1, 1.1),
            "heavy tail": 1 + 0.01 * np.abs(rng.standard_t(2, (5, 100))),
            "dips": np.where((np.arange(100) + rng.integers(25, size=(5, 1))) % 25 < 8, 1.1, 1),
        }[shape]
        most = drift.most(repeats.tolist())
        found += most is not None and most.counts
    assert found <= 3


def test_one_repeat_of_five_with_a_step_drifts() -> None:
    repeats = [noise(100, seed, 0.005) for seed in range(5)]
    repeats[2][50:] = [1.03 * value for value in repeats[2][50:]]
    most = drift.most(repeats)
    assert most is not None
    assert most.counts
    assert most.change == pytest.approx(0.03, abs=0.01)
    assert drift.most([[], [1.0] * 5]) is None


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
