"""Streams packed and unpacked: zstd by the package or by the system's library, deflate everywhere else.

A packed stream begins with a tag, a byte that names its codec.
"""

from __future__ import annotations

import ctypes
import importlib
import zlib
from typing import Any, Callable, Dict, Optional, Tuple

from .protocol import BLOCK

TAGS = {b"z": "zstd", b"d": "deflate", b"r": "raw"}
LEVEL = 1
MIN_MATCH = 4  # a float: 20 % fewer bytes than level 1's own 6, at the same speed
WINDOW_LOG = 18  # two clips: what lies further back is out of a core's cache, and finding it costs more than it saves
WINDOW_LOG_MAX = 23  # 8 MiB: a stream that asks a receiver for more memory is refused

Encoder = Tuple[Callable[[bytes], bytes], Callable[[], bytes]]  # compress, flush
ReadInto = Callable[[memoryview], int]  # fills a buffer; less than full only at the end


def codecs() -> Dict[str, str]:
    """What this host can pack and unpack, best first: {codec: what does it}."""
    zstd = "zstandard" if _package() else "libzstd" if _library() else None
    return {**({"zstd": zstd} if zstd else {}), "deflate": "zlib"}


def encoder(codec: str) -> Encoder:
    if codec == "raw":
        return bytes, bytes
    if codec == "deflate":
        deflater = zlib.compressobj(1)
        return deflater.compress, deflater.flush
    package = _package()
    if package is None:
        return _library_encoder(_library())
    parameters = package.ZstdCompressionParameters.from_level(LEVEL, min_match=MIN_MATCH, window_log=WINDOW_LOG)
    stream = package.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress, stream.flush


def decoder(body: Any) -> ReadInto:
    """What reads a tagged stream unpacked; it inflates no more than it is asked for.

    Raises:
        ValueError: no such tag.
    """
    tag = body.read(1)
    codec = TAGS.get(tag)
    if codec is None and tag:
        raise ValueError("a shard in an unknown compression (%r) arrived" % tag)
    if codec != "zstd":
        return _filled_by((_Inflated(body) if codec == "deflate" else body).read)
    package = _package()
    if package is None:
        return _library_decoder(_library(), body)
    decompressor = package.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MAX)
    read_into: ReadInto = decompressor.stream_reader(body).readinto
    return read_into


def _filled_by(read: Callable[[int], bytes]) -> ReadInto:
    def read_into(view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            block = read(min(BLOCK, len(view) - filled))
            if not block:
                break
            view[filled : filled + len(block)] = block
            filled += len(block)
        return filled

    return read_into


class _Inflated:
    def __init__(self, body: Any) -> None:
        self._body, self._inflater = body, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        while not self._inflater.eof:  # what follows it would be unconsumed for ever
            block = self._inflater.unconsumed_tail or self._body.read(BLOCK)
            raw = self._inflater.decompress(block, size)
            if raw or not block:
                return raw
        return b""


def _package() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None


# --- libzstd by its C interface (zstd.h, stable since 1.4); distributions' own package managers bring it --------------


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer: where, of what size, how far."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t)]


_LEVEL, _WINDOW, _MATCH = 100, 101, 105  # ZSTD_cParameter
_MAX_WINDOW_LOG = 100  # ZSTD_dParameter
_CONTINUE, _END = 0, 2  # ZSTD_EndDirective


def _library() -> Optional[Any]:
    try:
        library = ctypes.CDLL("libzstd.so.1")
        for name in ("ZSTD_createCCtx", "ZSTD_createDCtx"):
            getattr(library, name).restype = ctypes.c_void_p
        for name in ("ZSTD_compressStream2", "ZSTD_decompressStream", "ZSTD_CCtx_setParameter"):
            getattr(library, name).restype = ctypes.c_size_t
        library.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
        library.ZSTD_getErrorName.restype = ctypes.c_char_p
        return library
    except (OSError, AttributeError):  # not there, or older than 1.4
        return None


def _checked(library: Any, code: int) -> int:
    if library.ZSTD_isError(code):
        raise ValueError("zstd: %s" % library.ZSTD_getErrorName(code).decode())
    return code


def _library_encoder(library: Any) -> Encoder:
    context = ctypes.c_void_p(library.ZSTD_createCCtx())
    for parameter, value in ((_LEVEL, LEVEL), (_WINDOW, WINDOW_LOG), (_MATCH, MIN_MATCH)):
        _checked(library, library.ZSTD_CCtx_setParameter(context, parameter, value))
    room = ctypes.create_string_buffer(BLOCK)

    def step(block: bytes, directive: int) -> bytes:
        source = _Buffer(ctypes.cast(ctypes.c_char_p(block), ctypes.c_void_p), len(block), 0)
        packed = []
        left = 1
        while source.at < source.size or (directive == _END and left):
            sink = _Buffer(ctypes.cast(room, ctypes.c_void_p), BLOCK, 0)
            left = _checked(
                library,
                library.ZSTD_compressStream2(context, ctypes.byref(sink), ctypes.byref(source), directive),
            )
            packed.append(room.raw[: sink.at])
        return b"".join(packed)

    return lambda block: step(block, _CONTINUE), lambda: step(b"", _END)


def _library_decoder(library: Any, body: Any) -> ReadInto:
    context = ctypes.c_void_p(library.ZSTD_createDCtx())
    _checked(library, library.ZSTD_DCtx_setParameter(context, _MAX_WINDOW_LOG, WINDOW_LOG_MAX))
    source = _Buffer(None, 0, 0)
    block = b""  # kept while `source` points into it

    def read_into(view: memoryview) -> int:
        nonlocal block
        sink = _Buffer(ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view), 0)
        while sink.at < sink.size:
            before = sink.at
            if source.at == source.size:
                block = body.read(BLOCK)
                source.data = ctypes.cast(ctypes.c_char_p(block), ctypes.c_void_p)
                source.size, source.at = len(block), 0
            _checked(library, library.ZSTD_decompressStream(context, ctypes.byref(sink), ctypes.byref(source)))
            if not block and sink.at == before:
                break
        return int(sink.at)

    return read_into
