"""JSON from anywhere: what Python's own reader lets through or fails at in ways of its own is a ValueError here."""

from __future__ import annotations

import json
from typing import Any, NoReturn, Union

from stgcn.files import RECORD_BYTES, PathLike, read_record

DIGITS = 1000  # of a whole number: Python before 3.7.14 reads a long one in quadratic time


def loads(text: Union[str, bytes]) -> Any:
    """The value of a JSON text. Raises ValueError for any other, NaN and infinity, and nesting too deep to read."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load(path: PathLike, limit: int = RECORD_BYTES) -> Any:
    """What a JSON file of at most `limit` bytes holds. Raises ValueError as `loads` does, OSError as `read_record`."""
    return loads(read_record(path, limit))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")


def _whole_number(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError("a number is too long")
    return int(digits)
