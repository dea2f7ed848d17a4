"""The smallest set that has to be kept, by as few tests as may be: a test is a conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Passes = Callable[[Sequence[str]], bool]


def smallest(names: Sequence[str], passes: Passes, guess: int | None = None) -> list[str]:
    """A set of `names` that passes, no member of which can go; it is known that all of them pass and none fails.

    The last member of the shortest passing prefix is needed: it is set aside, and the search begins again before it. If
    the first `guess` are such a set, it takes a test for each and one more, and one alone where it is one; a culprit
    among n whose place says nothing takes log2 n and two more. No set is tested twice.
    """
    known: dict[frozenset[str], bool] = {frozenset(): False, frozenset(names): True}

    def test(kept: Sequence[str]) -> bool:
        key = frozenset(kept)
        if key not in known:
            known[key] = passes(kept)
        return known[key]

    found: list[str] = []
    left = list(names)
    end = len(left) if guess is None else guess  # where the shortest passing prefix should end
    guesses = [end, end - 1]
    while left:
        low, high = 0, len(left)  # the first `high` pass with what was found
        while low < high:
            middle = guesses.pop(0) if guesses else (low + high) // 2
            if not low <= middle < high:
                continue
            if test([*found, *left[:middle]]):
                high = middle
            else:
                low = middle + 1
        if not high:
            break
        found.append(left[high - 1])
        left = left[: high - 1]
        end = len(left) if high == end else 0  # the guess was right, so the next one is needed too; or none else may be
        guesses = [max(end - 1, 0)]
    for name in list(found):  # that more is kept does no harm was taken for granted so far
        without = [other for other in found if other != name]
        if test(without):
            found = without
    return found
