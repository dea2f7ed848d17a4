"""Whether a run is worse than another beyond noise: the tests of `fab gate` and `fab compare` (docs/ci.md). Pure.

Throughput: Welch's t-test in Yuen's form (1974), one-sided, on the logarithms of the repeats' rates, so that
differences are relative. A tenth of the repeats is trimmed at each end: of ten, one disturbed repeat does not count.
Two runs of the same thing differ by more than their repeats do (another hour, temperature, place in memory), and
repeats of one run resemble each other; so the variance of each has a term SESSION besides. Rank and permutation tests
know no such term, and of five repeats against five at six batch sizes they find total separation alone.

Answers: McNemar's exact test, one-sided, on the samples that one run gets right and the other does not.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

ALPHA_ANSWERS, ALPHA_RATES = 0.01, 0.04  # together: of comparisons of the same thing, at most 5% may alarm
SESSION = 0.007  # standard deviation of a run's rate that its own repeats do not show, relative
TRIMMED = 0.1  # of the repeats, at each end
NORMAL = 1e4  # degrees of freedom from which on Student's t is the normal distribution
POWER = 0.95  # with which `detectable` is found

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class _Centre:
    """A run's rate on the scale of logarithms."""

    mean: float  # of the repeats between the trimmed ones
    variance: float  # of that mean, as far as the repeats show it
    freedom: int


def _centre(rates: Sequence[float]) -> _Centre:
    logs = sorted(math.log(rate) for rate in rates)
    n = len(logs)
    cut = int(TRIMMED * n)
    kept = n - 2 * cut
    winsorized = [min(max(value, logs[cut]), logs[n - cut - 1]) for value in logs]
    middle = math.fsum(winsorized) / n
    squares = math.fsum((value - middle) ** 2 for value in winsorized)
    return _Centre(math.fsum(logs[cut : n - cut]) / kept, squares / (kept * (kept - 1)), kept - 1)


def _noise(a: _Centre, b: _Centre) -> tuple[float, float]:
    """The standard error of the difference of two runs, and its degrees of freedom (Welch, Satterthwaite)."""
    variance = a.variance + b.variance + 2 * SESSION**2
    shown = a.variance**2 / a.freedom + b.variance**2 / b.freedom
    return math.sqrt(variance), float(variance**2 / shown) if shown else math.inf


def slower(before: Sequence[float], now: Sequence[float]) -> float:
    """The p-value of `now` being slower than `before`; both are rates of two repeats or more, each above 0."""
    a, b = _centre(before), _centre(now)
    error, freedom = _noise(a, b)
    return _beyond((a.mean - b.mean) / error, freedom)


def change(before: Sequence[float], now: Sequence[float]) -> float:
    """The relative change of the rate; below 0: slower."""
    return math.expm1(_centre(now).mean - _centre(before).mean)


def detectable(before: Sequence[float], now: Sequence[float], tests: int) -> float:
    """The relative slowdown that repeats like these would show with POWER, the first of so many tests to do so."""
    a, b = _centre(before), _centre(now)
    error, freedom = _noise(a, b)
    return -math.expm1(-error * (_quantile(ALPHA_RATES / tests, freedom) + _quantile(1 - POWER, freedom)))


def fewer_right(lost: int, gained: int) -> float:
    """The p-value of `lost` samples turning wrong where `gained` turned right, if either were as likely."""
    changed = lost + gained
    ways = tail = math.comb(changed, lost)
    for wrong in range(lost, changed):  # whole numbers: a double ends at 10^308
        ways = ways * (changed - wrong) // (wrong + 1)
        tail += ways
    return tail / (1 << changed)


def beyond_noise(p_values: Mapping[Key, float], alpha: float) -> set[Key]:
    """Those that count when all of them are looked at (Holm, 1979): alpha is the risk that any does by chance."""
    found: set[Key] = set()
    for key in sorted(p_values, key=lambda key: p_values[key]):
        if p_values[key] > alpha / (len(p_values) - len(found)):
            break
        found.add(key)
    return found


def _beyond(t: float, freedom: float) -> float:
    """The upper tail of Student's t distribution."""
    if freedom > NORMAL:
        return math.erfc(t / math.sqrt(2)) / 2
    import mpmath

    context = mpmath.fp if freedom < 100 else mpmath.mp  # doubles: faster, and their gamma function ends at 171
    tail = float(context.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)) / 2
    return tail if t >= 0 else 1 - tail


def _quantile(tail: float, freedom: float) -> float:
    """The t that leaves `tail`, below one half, above it."""
    low, high = 0.0, 1.0
    while _beyond(high, freedom) > tail:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, freedom) > tail else (low, middle)
    return high
