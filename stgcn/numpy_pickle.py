"""Arrays and scalars of numpy inside a pickle, made here of their bytes: none of numpy's own reconstruction is run.

Every numpy since 1.0 names the same few functions, under `numpy.core` and since 2.0 under `numpy._core`: see
`__reduce__` and `__reduce_ex__` of ndarray, generic and dtype in numpy/_core/src/multiarray.
"""

from __future__ import annotations

import mmap
import re
import sys
from typing import Any, Callable, Dict, Optional, Tuple, Union

import numpy as np

from stgcn import npy, plain_pickle

KINDS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,4}|O8?)")
ORDERS = ("<", ">", "=", "|")
Raw = Union[bytes, plain_pickle.Python2Text]


class _Dtype:
    """Stands in for numpy.dtype, whose order of bytes comes after it is made."""

    def __init__(self, name: Any, *_: Any) -> None:
        known = KINDS.fullmatch(name) if isinstance(name, str) else None
        if known is None:
            raise ValueError
        self.kind = "O" if known.group(1) == "O8" else known.group(1)
        self.dtype = np.dtype(self.kind)

    def __setstate__(self, state: Any) -> None:
        _, order, *parts = state
        if order not in ORDERS or any(part is not None for part in parts[:3]):  # a subarray, or fields
            raise ValueError
        self.dtype = np.dtype(order + self.kind)


class Array(np.ndarray):
    """Stands in for numpy.ndarray: an array of numbers, of text, or of objects that the pickle holds."""

    def __new__(cls, *_: Any) -> Array:
        raise ValueError  # numpy would allocate whatever shape it is given

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state if len(state) == 5 else (1, *state)
        dtype = _dtype(dtype)
        if dtype.hasobject:
            if not isinstance(content, list) or len(content) != _count(shape):
                raise ValueError
        else:
            content = _checked(content, shape, dtype)
        state = 1, shape, dtype, bool(is_fortran), content
        super().__setstate__(state)


class MappedArray:
    """Stands in for numpy.ndarray in a file that is read with `spans`: its numbers stay in the file until `read`."""

    shape: Tuple[int, ...]
    dtype: np.dtype

    def __new__(cls, *_: Any) -> MappedArray:
        raise ValueError

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state if len(state) == 5 else (1, *state)
        self._set(content, dtype, shape, bool(is_fortran))

    def _set(self, content: Any, dtype: Any, shape: Any, is_fortran: bool) -> None:
        self.dtype, self.shape, self.is_fortran = _dtype(dtype), shape, is_fortran
        self.bytes = _count(shape) * self.dtype.itemsize
        is_mapped = isinstance(content, plain_pickle.Span)
        self.content = content if is_mapped else _checked(content, shape, self.dtype)
        # as text, a byte of 128 or more takes two
        if self.dtype.hasobject or (is_mapped and not self.bytes <= content.size <= self.bytes * (1 + content.is_text)):
            raise ValueError

    def read(self, file: mmap.mmap) -> np.ndarray:
        """The array, of the file that it was read from. Raises ValueError if its text is none of Latin-1."""
        raw = self.content
        if isinstance(raw, plain_pickle.Span):
            span, raw = raw, file[raw.start : raw.start + raw.size]
            raw = raw.decode("utf-8").encode("latin-1") if span.is_text else raw
        array: np.ndarray = np.frombuffer(_checked(raw, self.shape, self.dtype), self.dtype)
        return array.reshape(self.shape, order="F" if self.is_fortran else "C")


def _reconstruct_mapped(kind: Any, *_: Any) -> MappedArray:
    if kind is not MappedArray:
        raise ValueError
    return object.__new__(MappedArray)


def _mapped_from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> MappedArray:
    array = object.__new__(MappedArray)
    array._set(content, dtype, shape, order == "F")
    return array


def _encode_mapped(text: Any, encoding: Any) -> Any:
    return text if isinstance(text, plain_pickle.Span) and text.is_text else _encode(text, encoding)


def _reconstruct(kind: Any, *_: Any) -> Array:
    if kind is not Array:
        raise ValueError
    return np.zeros(0, np.int8).view(Array)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Optional[Any] = None) -> Array:
    """What protocol 5 makes an array of."""
    dtype = _dtype(dtype)
    if dtype.hasobject:
        raise ValueError
    flat = np.frombuffer(_checked(content, shape, dtype), dtype)
    whole = flat.reshape(shape, order="F" if order == "F" else "C")
    array: Array = (whole if axes is None else whole.transpose(axes)).view(Array)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    """A number or text of Python's own."""
    dtype = _dtype(dtype)
    if dtype.hasobject:
        raise ValueError
    return np.frombuffer(_checked(content, (1,), dtype), dtype)[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes by protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError
    return text.encode("latin-1")


def _bytes(content: Any = b"", *encoding: Any) -> bytes:
    if isinstance(content, str):
        return _encode(content, *encoding)
    if not isinstance(content, bytes):  # bytes(10**10) would allocate that
        raise ValueError
    return content


def _dtype(stand_in: Any) -> np.dtype:
    if not isinstance(stand_in, _Dtype):
        raise ValueError
    return stand_in.dtype


def _count(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(map(npy.is_size, shape)):
        raise ValueError
    count = 1
    for size in shape:
        count *= size
    return count


def _checked(content: Any, shape: Any, dtype: np.dtype) -> bytes:
    raw = content.raw if isinstance(content, plain_pickle.Python2Text) else content
    if isinstance(raw, str):  # Python 3 that had read it of a pickle of Python 2, as numpy has it read
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes) or len(raw) != _count(shape) * dtype.itemsize:
        raise ValueError
    if dtype.kind == "U" and raw and np.frombuffer(raw, dtype.byteorder + "u4").max() > sys.maxunicode:
        raise ValueError  # Python fails at such a character in ways of its own
    return raw


OF_BYTES = [
    ("_codecs", "encode"),
    *((module, name) for module in ("__builtin__", "builtins") for name in ("bytes", "bytearray")),
]


def _allowed() -> Dict[Tuple[str, str], Callable[..., Any]]:
    allowed: Dict[Tuple[str, str], Callable[..., Any]] = {
        ("_codecs", "encode"): _encode,
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): Array,
        ("numpy", "memmap"): Array,
        ("numpy.core.memmap", "memmap"): Array,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        allowed[f"{core}.multiarray", "scalar"] = _scalar
        allowed[f"{core}.numeric", "_frombuffer"] = _from_buffer
    for module, name in OF_BYTES[1:]:
        allowed[module, name] = _bytes
    return allowed


ALLOWED: plain_pickle.Allowed = _allowed()
_IN_PLACE: Dict[Any, Any] = {
    Array: MappedArray,
    _reconstruct: _reconstruct_mapped,
    _from_buffer: _mapped_from_buffer,
    _encode: _encode_mapped,
}
# For a file that is read with `spans`
MAPPED: plain_pickle.Allowed = {name: _IN_PLACE.get(stand_in, stand_in) for name, stand_in in ALLOWED.items()}
