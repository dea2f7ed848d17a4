"""JSON from anywhere: what Python's own reader lets through or fails at in ways of its own is a ValueError here."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Dict, List, NoReturn, Tuple, Union

from stgcn.files import RECORD_BYTES, PathLike, read_record

_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
DIGITS = 1000  # of a whole number: Python before 3.7.14 reads a long one in quadratic time


def loads(text: Union[str, bytes]) -> Any:
    """The value of a JSON text, which is UTF-8 where it is bytes.

    Raises ValueError for any other, for what JSON cannot say and Python reads (NaN, infinity, also as 1e400), for a key
    that stands twice, for half of a surrogate pair, and for nesting too deep to read.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(
            text,
            parse_constant=_refuse,
            parse_int=_whole_number,
            parse_float=_finite,
            object_pairs_hook=_distinct,
        )
        if _ESCAPED.search(text) or _SURROGATE.search(text):
            _refuse_surrogates(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def load(path: PathLike, limit: int = RECORD_BYTES) -> Any:
    """What a JSON file of at most `limit` bytes holds. Raises ValueError as `loads` does, OSError as `read_record`."""
    return loads(read_record(path, limit))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")


def _whole_number(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than a number can be")
    return number


def _distinct(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:100]!r} stands twice")
            seen.add(key)
    return found


def _refuse_surrogates(value: Any) -> None:
    """Raises ValueError for a text that no encoding can say."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise ValueError("half of a surrogate pair is no character")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
