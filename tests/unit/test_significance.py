"""The tests of `fab gate`: their risk of a false alarm and what they find, simulated on the spreads of real devices."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.evidence.significance import (
    ALPHA_ANSWERS,
    ALPHA_RATES,
    _beyond,
    beyond_noise,
    change,
    detectable,
    fewer_right,
    slower,
)
from deploy.inventory import Benchmark

SIZES = 6
DEFAULT = Benchmark()
# (standard deviation of the repeats of one run, of whole runs, correlation of neighbouring repeats, share of repeats
# that something disturbed). What ais_bench printed of 100 batches on a 310P (21.94 ms on average, 99% under 22.33;
# 511.8 and 516.9) and a 310B (13.69 and 13.99) makes 0.5 to 1% a batch, which bounds that of their means; a run's own
# shift and drift are assumed. 0.009 is what the default `spread` lets through.
SPREADS = {
    "310P": (0.005, 0.005, 0.0, 0.0),
    "310B, drifting": (0.009, 0.005, 0.3, 0.0),
    "310P, disturbed": (0.005, 0.003, 0.0, 0.05),
}


def repeats(random: np.random.Generator, spread: tuple[float, ...], slowdown: float = 0.0) -> list[list[float]]:
    """The rates of one run: as many repeats of each batch size as the defaults ask for."""
    own, whole, correlation, disturbed = spread
    shift, found = whole * random.standard_normal(), []
    for size in range(SIZES):
        rates: list[float] = []
        state = random.standard_normal()
        while len(rates) < DEFAULT.max_repeats:
            if len(rates) >= DEFAULT.min_repeats and np.ptp(rates) / np.median(rates) <= DEFAULT.spread:
                break
            delay = random.exponential(0.05) if random.random() < disturbed else 0
            rates.append(float(200 * (size + 1) * np.exp(shift + own * state - delay) * (1 - slowdown)))
            state = correlation * state + np.sqrt(1 - correlation**2) * random.standard_normal()
        found.append(rates)
    return found


Runs = list[list[float]]


def alarms(before: Runs, now: Runs) -> set[int]:
    return beyond_noise({i: slower(a, b) for i, (a, b) in enumerate(zip(before, now, strict=True))}, ALPHA_RATES)


@pytest.mark.full
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
def test_the_same_thing_rarely_alarms_and_a_slowdown_of_5_percent_rarely_hides(spread: tuple[float, ...]) -> None:
    random = np.random.default_rng(20)
    false = found = 0
    for _ in range(200):
        before = repeats(random, spread)
        false += bool(alarms(before, repeats(random, spread)))
        slow = repeats(random, spread)
        slow[0] = repeats(random, spread, slowdown=0.05)[0]  # of one batch size alone: the hardest to find
        found += 0 in alarms(before, slow)
    assert false <= 0.05 * 200
    assert found >= 0.95 * 200


def test_in_short() -> None:
    """As above, a few of each: what fails here is broken, not unlucky."""
    random = np.random.default_rng(3)
    spread = SPREADS["310P"]
    pairs = [(repeats(random, spread), repeats(random, spread), repeats(random, spread, 0.05)) for _ in range(15)]
    assert sum(bool(alarms(a, b)) for a, b, _ in pairs) <= 1
    assert sum(len(alarms(a, slow)) for a, _, slow in pairs) >= 0.95 * 15 * SIZES


def test_repeats_that_agree_to_the_last_digit_do_not_make_a_small_shift_count() -> None:
    assert slower([100.0] * 10, [99.0] * 10) > ALPHA_RATES
    assert slower([100.0] * 10, [95.0] * 10) < ALPHA_RATES / SIZES


def test_one_disturbed_repeat_of_ten_neither_alarms_nor_hides() -> None:
    calm = [100 + 0.2 * i for i in range(10)]
    disturbed = [*calm[:9], 60.0]
    assert slower(calm, disturbed) > ALPHA_RATES
    assert slower(calm, [0.95 * rate for rate in disturbed]) < ALPHA_RATES / SIZES
    assert change(calm, disturbed) == pytest.approx(0, abs=0.005)


def test_what_would_be_found_is_found() -> None:
    rates = [100.0, 101.0, 99.5, 100.2, 100.4]
    least = detectable(rates, rates, SIZES)
    assert 0.02 < least < 0.05
    assert slower(rates, [(1 - least) * rate for rate in rates]) < ALPHA_RATES / SIZES


@pytest.mark.parametrize(
    ("t", "freedom", "tail"),  # as printed tables have it
    [(2.015, 5, 0.05), (2.764, 10, 0.01), (6.965, 2, 0.01), (1.96, 1e9, 0.025), (-2.015, 5, 0.95), (2.626, 100, 0.005)],
)
def test_student_s_t(t: float, freedom: float, tail: float) -> None:
    assert _beyond(t, freedom) == pytest.approx(tail, rel=2e-3)


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1), (7, 0, 1 / 128), (0, 7, 1), (8, 2, 56 / 1024), (3, 3, 42 / 64)]
)
def test_mcnemar(lost: int, gained: int, p: float) -> None:
    assert fewer_right(lost, gained) == pytest.approx(p)


def test_thousands_of_changed_answers() -> None:
    assert fewer_right(9000, 9000) == pytest.approx(0.503, abs=1e-3)
    assert fewer_right(9500, 8500) < ALPHA_ANSWERS


@pytest.mark.parametrize(
    ("p_values", "found"),
    [([0.01, 0.03, 0.5], {0}), ([0.01, 0.02, 0.5], {0, 1}), ([0.02, 0.02, 0.02], set()), ([0.04], {0}), ([], set())],
)
def test_holm(p_values: list[float], found: set[int]) -> None:
    assert beyond_noise(dict(enumerate(p_values)), 0.04) == found
