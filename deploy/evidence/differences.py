"""Where two JSON texts differ, of which one follows from what is kept and the other was found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.errors import KitError

REL_TOLERANCE = 1e-9  # of recomputed floats: another numpy may add in another order
Json = Any


def refuse_difference(path: Path, expected: Json, found: Json, source: str, where: str = "") -> None:
    """Raise KitError at the first value of `expected` that `found` does not have; `found` may have more keys."""
    for place, wanted, there in differences(expected, found, where):
        raise KitError(f"{path}: {place} is {_short(there)}, and {source} give {_short(wanted)}")


def refuse_any_difference(path: Path, expected: Json, found: Json, source: str) -> None:
    """The same both ways: `found` may have no key more."""
    refuse_difference(path, expected, found, source)
    for place, there, _ in differences(found, expected):
        raise KitError(f"{path}: {place} is {_short(there)}, and {source} give none")


def differences(expected: Json, found: Json, where: str = "") -> Iterator[tuple[str, Json, Json]]:
    """(place, expected, found) of each value in which two JSON texts differ; `found` may hold more keys."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            place = f"{where}.{key}".lstrip(".")
            if key in found:
                yield from differences(value, found[key], place)
            else:
                yield place, value, None
    elif all(isinstance(each, (list, tuple)) for each in (expected, found)) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(expected, found, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif not _same(expected, found):
        yield where, expected, found


def _same(a: Json, b: Json) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
        return numbers and math.isclose(a, b, rel_tol=REL_TOLERANCE, abs_tol=1e-15)
    return type(a) is type(b) and bool(a == b)


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
