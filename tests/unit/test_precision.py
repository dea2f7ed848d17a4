"""`fab npu-precision`: the search takes few tests and leaves nothing superfluous, and what the ranking sees."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from deploy.precision.search import smallest


@pytest.mark.parametrize("count", [1, 2, 5, 40, 127])
@pytest.mark.parametrize("culprits", [1, 2, 3, 8])
def test_the_search_finds_the_culprits_wherever_they_are(count: int, culprits: int) -> None:
    names = [str(i) for i in range(count)]
    for seed in range(30):
        needed = set(random.Random(seed).sample(names, min(culprits, count)))
        tests: list[frozenset[str]] = []

        def passes(kept: Sequence[str]) -> bool:
            tests.append(frozenset(kept))  # noqa: B023 (called in this turn alone)
            return needed <= tests[-1]  # noqa: B023

        assert set(smallest(names, passes, culprits)) == needed
        assert len(tests) == len(set(tests))
        assert len(tests) <= len(needed) * (math.log2(count) + 3)


@pytest.mark.parametrize("culprits", [1, 2, 8])
def test_a_right_guess_takes_a_test_for_each(culprits: int) -> None:
    names, tests = [str(i) for i in range(100)], []

    def passes(kept: Sequence[str]) -> bool:
        tests.append(kept)
        return set(names[:culprits]) <= set(kept)

    assert sorted(smallest(names, passes, culprits), key=int) == names[:culprits]
    assert len(tests) == (1 if culprits == 1 else 1 + culprits)


def test_nothing_superfluous_is_left_where_more_does_harm() -> None:
    """A set that passes need not pass with more in it."""
    good = [frozenset("a"), frozenset("abcd")]
    assert smallest(list("abcd"), lambda kept: frozenset(kept) in good, 4) in (["a"], list("dcba"))
