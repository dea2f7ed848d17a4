"""Arrays in .npy files, believed only as far as their bytes go: a header may claim any shape.

Format: NEP 1, https://numpy.org/neps/nep-0001-npy-format.html (versions 1.0 to 3.0).
"""

from __future__ import annotations

import ast
import os
import re
import struct
from typing import Any, BinaryIO

import numpy as np

from stgcn.files import PathLike, atomic_write, open_regular

MAGIC = b"\x93NUMPY"
HEADER_LIMIT = 10000  # numpy's own bound on a header that it will parse
NESTING = re.compile(rb"[^\w\s,.:<>='\"]|lambda|not|else")
NESTING_LIMIT = 200  # of all that nests: Python 3.7's own parser complains on stderr of more than it can hold
DTYPES = [f"<{kind}{size}" for kind, sizes in (("f", "248"), ("i", "248"), ("u", "248")) for size in sizes]
SIZE_LIMIT = 1 << 64  # of a dimension: beyond it a number is a joke, and Python won't print it


def read_header(file: BinaryIO) -> Any:
    """The header's dict; ValueError says why there is none. `file` is left at the first byte of the array."""
    preamble = file.read(8)
    if preamble[:6] != MAGIC or len(preamble) < 8:
        raise ValueError("it has no .npy header")
    length_format = {1: "<H", 2: "<I", 3: "<I"}.get(preamble[6])
    if length_format is None:
        raise ValueError(f"its .npy version {preamble[6]} is unknown")
    length_bytes = file.read(struct.calcsize(length_format))
    if len(length_bytes) < struct.calcsize(length_format):
        raise ValueError("its header is cut short")
    length = struct.unpack(length_format, length_bytes)[0]
    if length > HEADER_LIMIT:
        raise ValueError(f"its header claims {length} bytes")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("its header is cut short")
    if len(NESTING.findall(text)) > NESTING_LIMIT:
        raise ValueError("its header is nested too deeply")
    try:
        header = ast.literal_eval(text.decode("utf-8" if preamble[6] == 3 else "latin-1"))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is damaged")
    return header


def is_size(value: object) -> bool:
    """Whether `value` can be a dimension of an array."""
    return type(value) is int and 0 <= value < SIZE_LIMIT


def save(path: PathLike, values: np.ndarray) -> None:
    """Write a whole array, as `atomic_write` does."""
    with atomic_write(path) as file:
        np.save(file, values)


def load(path: PathLike) -> np.ndarray:
    """A whole array of numbers, in C order. Raises ValueError for any other file, OSError where it can't be read."""
    with open_regular(path) as file:
        header = read_header(file)
        descr, shape = header["descr"], header["shape"]
        if descr not in DTYPES or header["fortran_order"] is not False:
            raise ValueError("it holds no numbers in C order")
        dtype = np.dtype(descr)
        if not isinstance(shape, tuple) or not all(map(is_size, shape)):
            raise ValueError("its shape is damaged")
        count = 1
        for size in shape:
            count *= size
        promised = file.tell() + count * dtype.itemsize
        if promised != os.fstat(file.fileno()).st_size:
            raise ValueError(f"its header promises {min(promised, SIZE_LIMIT)} bytes and it has another number")
        return np.fromfile(file, dtype, count).reshape(shape)
