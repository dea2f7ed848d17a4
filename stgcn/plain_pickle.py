"""Unpickling that runs no code: a pickle from a shared drive is a program, and this reads only its data.

Python's own pure-Python unpickler is used: the C one allocates, and fills, a memo as long as any index that a four-byte
instruction claims, so a file of a few bytes could take all memory. Of its instructions those are replaced that allocate
what they claim (BYTEARRAY8) or hash what they are given (sets), and those refused that refer to something outside the
file. Protocols 0 to 5 are read, whatever Python runs this.
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


class Skipped:
    """Stands in for any harmless object that nobody reads: whatever it was made of is dropped."""

    def __new__(cls, *_: Any, **__: Any) -> Skipped:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


class Python2Text(str):
    """A string of Python 2, which held text or bytes: as text of UTF-8, with the bytes as `raw`."""

    raw: bytes

    def __new__(cls, raw: bytes) -> Python2Text:
        # Names are only shown, so a doubtful character is better than a refusal
        text = super().__new__(cls, raw.decode("utf-8", "replace"))
        text.raw = raw
        return text


class Span:
    """Where in the file a long run of bytes lies, which is left there; of text, its UTF-8."""

    def __init__(self, start: int, size: int, is_text: bool) -> None:
        self.start, self.size, self.is_text = start, size, is_text


SPAN = 2048  # bytes: a shorter run is read at once
DIGITS = 1000  # of a number written as text: Python before 3.7.14 reads a long one in quadratic time
PROTOCOL = 5
KEY_LIMIT = 16  # items of a tuple that is a key: its hash takes so many steps each time

_Act = Callable[[Any], None]
BYTEARRAY8, NEXT_BUFFER, READONLY_BUFFER = b"\x96", b"\x97", b"\x98"  # protocol 5's, which Python 3.7 does not know
_REFUSED = b"".join((NEXT_BUFFER, READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4))


def check_key(key: Any) -> None:
    """Raise ValueError for a key that may take for ever to hash, as nested tuples, or to look up among its like.

    Integers are held to 64 bits, and NaN is refused: of wider ones, and of NaN, any number can have one hash.
    """
    parts = key if type(key) is tuple and len(key) <= KEY_LIMIT else (key,)
    for part in parts:
        if isinstance(part, int):
            allowed = part.bit_length() <= 64
        elif isinstance(part, float):
            allowed = part == part
        else:
            allowed = part is None or part is Skipped or isinstance(part, (str, bytes, Skipped))
        if not allowed:
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


def _read_protocol(unpickler: Any) -> None:
    unpickler.proto = unpickler.read(1)[0]
    if unpickler.proto > PROTOCOL:
        raise ValueError(f"its protocol {unpickler.proto} is unknown")


def _push_bytes(unpickler: Any) -> None:
    """BYTEARRAY8, of which no more is allocated than the file has."""
    size = int.from_bytes(unpickler.read(8), "little")
    content = unpickler.read(size)
    if len(content) != size:
        raise ValueError("it is cut short")
    unpickler.append(content)


def _skip_set(unpickler: Any) -> None:
    unpickler.append(Skipped())


def _skip_items(unpickler: Any) -> None:
    unpickler.pop_mark()


def _skip_frozenset(unpickler: Any) -> None:
    unpickler.pop_mark()
    unpickler.append(Skipped())


def _left_in_place(act: _Act, width: int, is_text: bool) -> _Act:
    """`act`, which reads a run of bytes after its length of `width` bytes, but for a long one a Span."""

    def push(unpickler: Any) -> None:
        file = unpickler.file
        size = int.from_bytes(file.read(width), "little")
        start = file.tell()
        if size < SPAN:
            file.seek(start - width)
            act(unpickler)
        else:
            file.seek(start + size)  # which raises beyond a mapped file's end
            unpickler.append(Span(start, size, is_text))

    return push


def _dispatch() -> Dict[int, _Act]:
    acts = {code: act for code, act in pickle._Unpickler.dispatch.items() if code not in _REFUSED}
    for code in (pickle.INT[0], pickle.LONG[0]):
        acts[code] = _of_few_digits(acts[code])
    for code in (pickle.DICT[0], pickle.SETITEMS[0]):  # what follows the mark is all of the stack
        acts[code] = _with_plain_keys(acts[code], slice(None, None, 2))
    acts[pickle.SETITEM[0]] = _with_plain_keys(acts[pickle.SETITEM[0]], slice(-2, -1))
    acts[pickle.BUILD[0]] = _build
    acts[pickle.FRAME[0]] = _enter_frame
    acts[pickle.PROTO[0]] = _read_protocol
    acts[BYTEARRAY8[0]] = _push_bytes
    acts[pickle.EMPTY_SET[0]] = _skip_set
    acts[pickle.ADDITEMS[0]] = _skip_items
    acts[pickle.FROZENSET[0]] = _skip_frozenset
    return acts


class _PlainUnpickler(pickle._Unpickler):
    dispatch = _dispatch()

    def __init__(self, file: Any, allowed: Allowed, persistent_load: Optional[Callable[[Any], Any]]) -> None:
        super().__init__(file)
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

    def _decode_string(self, value: bytes) -> Python2Text:
        return Python2Text(value)

    def persistent_load(self, pid: Any) -> Any:
        if self.load_outside is None:
            raise ValueError("it refers to data outside it")
        return self.load_outside(pid)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise UnexpectedNameError(f"{module}.{name}") from None


def _span_dispatch() -> Dict[int, _Act]:
    acts = _dispatch()
    for code, width, is_text in (
        (pickle.BINBYTES, 4, False),
        (pickle.BINBYTES8, 8, False),
        (BYTEARRAY8, 8, False),
        (pickle.BINUNICODE, 4, True),
        (pickle.BINUNICODE8, 8, True),
    ):
        acts[code[0]] = _left_in_place(acts[code[0]], width, is_text)
    return acts


class _SpanUnpickler(_PlainUnpickler):
    dispatch = _span_dispatch()


def load(
    file: Any, allowed: Allowed, persistent_load: Optional[Callable[[Any], Any]] = None, spans: bool = False
) -> Any:
    """The next object pickled in `file` (a mapped file or BytesIO: neither reads beyond its end).

    `allowed` maps (module, name) to what stands in for it; `persistent_load` is called for each reference to data
    outside the pickle. With `spans`, long bytes and texts of a mapped file stay there: a Span stands in for each.
    Raises UnexpectedNameError for any other name, ValueError for bytes that are no whole pickle.
    """
    try:
        return (_SpanUnpickler if spans else _PlainUnpickler)(file, allowed, persistent_load).load()
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
