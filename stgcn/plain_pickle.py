"""Unpickling that runs no code: a pickle from a shared drive is a program, and this reads only its data.

Python's own pure-Python unpickler is used: the C one allocates, and fills, a memo as long as any index that a four-byte
instruction claims, so a file of a few bytes could take all memory.
"""

from __future__ import annotations

import mmap
import pickle
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple

from stgcn.errors import InputError
from stgcn.files import PathLike

Allowed = Mapping[Tuple[str, str], Any]


class UnexpectedNameError(ValueError):
    """The pickle names a class or function that isn't allowed."""


class _PlainUnpickler(pickle._Unpickler):
    def __init__(self, file: Any, allowed: Allowed, persistent_load: Optional[Callable[[Any], Any]]) -> None:
        # Python 2 wrote text as bytes; names are only shown, so a doubtful character is better than a refusal.
        super().__init__(file, encoding="utf-8", errors="replace")
        self.allowed = allowed
        self.load_outside = persistent_load

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
        if Path(path).stat().st_size == 0:
            raise InputError(f"{path} is empty: copy it again")
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): check the path") from error
