"""Unpickling that runs no code: a pickle from a shared drive is a program, and this reads only its data.

Python's own pure-Python unpickler is used: the C one allocates, and fills, a memo as long as any index that a four-byte
instruction claims, so a file of a few bytes could take all memory. Of its instructions those are left out that allocate
what they claim (BYTEARRAY8), hash what they are given (sets), or come from outside the file.
"""

from __future__ import annotations

import mmap
import os
import pickle
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from stgcn.errors import InputError
from stgcn.files import PathLike, open_regular

Allowed = Mapping[Tuple[str, str], Any]


class UnexpectedNameError(ValueError):
    """The pickle names a class or function that isn't allowed."""


DIGITS = 1000  # of a number written as text: Python before 3.7.14 reads a long one in quadratic time

_Act = Callable[[Any], None]
_REFUSED = b"".join(
    (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, b"\x96\x97\x98", pickle.EXT1, pickle.EXT2, pickle.EXT4)
)  # \x96 to \x98 are protocol 5's, which Python 3.7 does not know: BYTEARRAY8, NEXT_BUFFER, READONLY_BUFFER


def check_key(key: Any) -> None:
    """Raise ValueError for a key that isn't text or a number: hashing one of nested tuples may take for ever."""
    if not isinstance(key, (str, bytes, int)):
        raise ValueError("a key is neither text nor a number")


def _with_plain_keys(act: _Act, keys: slice) -> _Act:
    """`act`, once the objects at the stack's places `keys` may be hashed."""

    def checked(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            check_key(key)
        act(unpickler)

    return checked


def _of_few_digits(act: _Act) -> _Act:
    def checked(unpickler: Any) -> None:
        readline = unpickler.readline
        line = readline()
        if len(line) > DIGITS:
            raise ValueError("a number is too long")
        unpickler.readline = lambda: line
        act(unpickler)
        unpickler.readline = readline

    return checked


def _build(unpickler: Any) -> None:
    """BUILD sets any attribute of any object: it may only give its state to what a stand-in has made."""
    if not any(type(unpickler.stack[-2]) is stand_in for stand_in in unpickler.allowed.values()):
        raise ValueError("it changes what it hasn't made")
    pickle._Unpickler.dispatch[pickle.BUILD[0]](unpickler)


def _enter_frame(unpickler: Any) -> None:
    """A frame is a hint of how much to read at once, and all is mapped: its length is passed over."""
    unpickler.read(8)


def _dispatch() -> Dict[int, _Act]:
    acts = {code: act for code, act in pickle._Unpickler.dispatch.items() if code not in _REFUSED}
    for code in (pickle.INT[0], pickle.LONG[0]):
        acts[code] = _of_few_digits(acts[code])
    for code in (pickle.DICT[0], pickle.SETITEMS[0]):  # what follows the mark is all of the stack
        acts[code] = _with_plain_keys(acts[code], slice(None, None, 2))
    acts[pickle.SETITEM[0]] = _with_plain_keys(acts[pickle.SETITEM[0]], slice(-2, -1))
    acts[pickle.BUILD[0]] = _build
    acts[pickle.FRAME[0]] = _enter_frame
    return acts


class _PlainUnpickler(pickle._Unpickler):
    dispatch = _dispatch()

    def __init__(self, file: Any, allowed: Allowed, persistent_load: Optional[Callable[[Any], Any]]) -> None:
        # Python 2 wrote text as bytes; names are only shown, so a doubtful character is better than a refusal.
        super().__init__(file, encoding="utf-8", errors="replace")
        self.allowed = allowed
        self.load_outside = persistent_load
        self.file = file

    def load(self) -> Any:
        """As the base does, but straight from the file: its reader of frames takes half of the time."""
        self.read, self.readline = self.file.read, self.file.readline
        self.metastack: List[Any] = []
        self.stack: List[Any] = []
        self.append, self.proto = self.stack.append, 0
        read, dispatch = self.read, self.dispatch
        try:
            while True:
                dispatch[read(1)[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value

    def persistent_load(self, pid: Any) -> Any:
        if self.load_outside is None:
            raise ValueError("it refers to data outside it")
        return self.load_outside(pid)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise UnexpectedNameError(f"{module}.{name}") from None


def load(file: Any, allowed: Allowed, persistent_load: Optional[Callable[[Any], Any]] = None) -> Any:
    """The next object pickled in `file` (a mapped file or BytesIO: neither reads beyond its end).

    `allowed` maps (module, name) to what stands in for it; `persistent_load` is called for each reference to data
    outside the pickle. Raises UnexpectedNameError for any other name, ValueError for bytes that are no whole pickle.
    """
    try:
        return _PlainUnpickler(file, allowed, persistent_load).load()
    except UnexpectedNameError:
        raise
    except Exception as error:  # a damaged pickle can make its instructions fail in any way
        raise ValueError("it isn't a whole pickle") from error


@contextmanager
def mapped(path: PathLike) -> Iterator[mmap.mmap]:
    """A file's bytes, mapped for reading. Raises InputError if the file is missing, empty or unreadable."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InputError(f"{path} is empty: copy it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): check the path") from error
