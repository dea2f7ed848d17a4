"""Whether times grow or shrink while they are taken: within a run, and from its first repeat to its last. Pure.

Within a run: Mann-Kendall's test of a trend (Mann 1945, Kendall 1975; the variance with its term for ties), on medians
of consecutive blocks, at most BLOCKS of them, so that neighbours which resemble each other count once; of several
repeats the one that changed most, its p times their number (Bonferroni), for the largest of many is often large.
Between repeats: Mann and Whitney's test of the first against the last. Either counts where p is below ALPHA and the
times changed by EFFECT or more: with thousands of inferences anything is significant.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

ALPHA = 0.01
EFFECT = 0.02  # relative
BLOCKS = 50
LEAST = 8  # values, below which neither test can find anything


@dataclass(frozen=True)
class Drift:
    change: float  # relative: of the last tenth over the first, of the last repeat over the first
    p: float

    @property
    def counts(self) -> bool:
        return self.p < ALPHA and abs(self.change) >= EFFECT

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "drifts": self.counts}


def within(values: Sequence[float]) -> Drift | None:
    """Of the times of one run, in their order; None where there are too few to tell."""
    if len(values) < LEAST:
        return None
    size = -(-len(values) // BLOCKS)
    blocks = [statistics.median(values[i : i + size]) for i in range(0, len(values), size)]
    if len(blocks) < LEAST:
        return None
    score = sum((later > value) - (later < value) for i, value in enumerate(blocks) for later in blocks[i + 1 :])
    n = len(blocks)
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(blocks).values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    tenth = max(len(values) // 10, 3)
    return Drift(_change(values[:tenth], values[-tenth:]), _two_sided(score, variance))


def most(repeats: Sequence[Sequence[float]]) -> Drift | None:
    """Within the repeat that changed most; None where none has times enough."""
    trends = [trend for values in repeats if (trend := within(values))]
    found = [replace(trend, p=min(1.0, trend.p * len(trends))) for trend in trends]
    return max(found, key=lambda trend: (trend.counts, abs(trend.change)), default=None)


def between(first: Sequence[float], last: Sequence[float]) -> Drift | None:
    """Of two repeats' times; None where there are too few to tell."""
    n, m = len(first), len(last)
    if min(n, m) < LEAST:
        return None
    ordered = sorted([*((value, 0) for value in first), *((value, 1) for value in last)])
    counts = Counter(value for value, _ in ordered)
    begin, rank = 1, dict[float, float]()
    for value in dict.fromkeys(value for value, _ in ordered):
        rank[value] = begin + (counts[value] - 1) / 2
        begin += counts[value]
    above = sum(rank[value] for value in last) - m * (m + 1) / 2 - n * m / 2
    ties = sum(t**3 - t for t in counts.values()) / ((n + m) * (n + m - 1))
    return Drift(_change(first, last), _two_sided(above, n * m / 12 * (n + m + 1 - ties)))


def percentile(values: Sequence[float], q: float) -> float:
    """Between the two nearest of the ordered values, as numpy and ais_bench have it."""
    ordered = sorted(values)
    place = q / 100 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _change(first: Sequence[float], last: Sequence[float]) -> float:
    return statistics.median(last) / statistics.median(first) - 1


def _two_sided(score: float, variance: float) -> float:
    """The p-value of a score that is 0 on average, with the correction for continuity."""
    if variance <= 0 or not score:
        return 1.0
    return math.erfc(max(abs(score) - 1, 0) / math.sqrt(2 * variance))
