"""Blocks packed and unpacked: zstd by the package or by the system's library, deflate everywhere else.

Every packed block stands alone and ends with a checksum of what was packed (zstd: XXH64, RFC 8878; zlib: Adler-32,
RFC 1950): it unpacks to the very bytes of the sender, and to the size that its receiver asks for, or is refused.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
import zlib
from typing import Any, Callable, Dict, Optional, Union

TAGS = {b"z": "zstd", b"d": "deflate"}
LEVEL = 1
MIN_MATCH = 4  # a float: 20 % fewer bytes than level 1's own 6
WINDOW_LOG = 18  # two clips: what lies further back is out of a core's cache, and finding it costs more than it saves
TARGET_LENGTH = 1  # literals are left as they are: a third less time to pack, half to unpack, 1 % more bytes

Pack = Callable[[bytes], bytes]
Unpack = Callable[[bytes, int], Union[bytes, memoryview]]  # a packed block and its size unpacked


def codecs() -> Dict[str, str]:
    """What this host can pack and unpack, best first: {codec: what does it}."""
    zstd = "zstandard" if _package() else "libzstd" if _library() else None
    return {**({"zstd": zstd} if zstd else {}), "deflate": "zlib"}


def packer(codec: str, compresses: bool = True) -> Pack:
    """What packs a block. Without `compresses`, deflate stores it; zstd sees for itself that nothing is gained."""
    if codec == "deflate":
        return lambda block: zlib.compress(block, LEVEL if compresses else 0)
    package = _package()
    if package is None:
        return _library_packer(_library())
    parameters = package.ZstdCompressionParameters.from_level(
        LEVEL,
        min_match=MIN_MATCH,
        window_log=WINDOW_LOG,
        target_length=TARGET_LENGTH,
        write_checksum=True,
        write_content_size=True,
    )
    pack: Pack = package.ZstdCompressor(compression_params=parameters).compress
    return pack


def unpacker(tag: bytes) -> Unpack:
    """What unpacks the blocks behind `tag`.

    It raises ValueError or the package's own error for a block that is damaged, cut, or of another size, and takes no
    more memory than that size, whatever the block claims. What it returns may be overwritten by the next block.

    Raises:
        ValueError: no such tag.
    """
    codec = TAGS.get(tag)
    if codec is None:
        raise ValueError("a shard in an unknown compression (%r) arrived" % tag)
    if codec == "deflate":
        return _inflated
    package = _package()
    if package is None:
        return _library_unpacker(_library())
    decompressor = package.ZstdDecompressor()

    def unpack(block: bytes, size: int) -> bytes:
        if package.frame_content_size(block) != size:  # so much would be allocated
            raise ValueError("zstd: a block is not of the size that was announced")
        raw: bytes = decompressor.decompress(block)
        return raw

    return unpack


def _inflated(block: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(block, size + 1)
    if not inflater.eof or len(raw) != size:
        raise ValueError("deflate: a block is not of the size that was announced")
    return raw


def _package() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None


# --- libzstd by its C interface (zstd.h, stable since 1.4); distributions' own package managers bring it --------------

_PARAMETERS = {100: LEVEL, 101: WINDOW_LOG, 105: MIN_MATCH, 106: TARGET_LENGTH, 201: 1}  # ZSTD_cParameter; a checksum


def _library() -> Optional[Any]:
    try:
        library = ctypes.CDLL("libzstd.so.1")
        for name in ("ZSTD_createCCtx", "ZSTD_createDCtx"):
            getattr(library, name).restype = ctypes.c_void_p
        for name in ("ZSTD_compress2", "ZSTD_decompressDCtx", "ZSTD_CCtx_setParameter", "ZSTD_compressBound"):
            getattr(library, name).restype = ctypes.c_size_t
        sized = (ctypes.c_void_p, ctypes.c_size_t)
        for name in ("ZSTD_compress2", "ZSTD_decompressDCtx"):
            getattr(library, name).argtypes = [ctypes.c_void_p, *sized, ctypes.c_char_p, ctypes.c_size_t]
        for name in ("ZSTD_freeCCtx", "ZSTD_freeDCtx"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.ZSTD_CCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
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


def _library_packer(library: Any) -> Pack:
    context = library.ZSTD_createCCtx()
    for parameter, value in _PARAMETERS.items():
        _checked(library, library.ZSTD_CCtx_setParameter(context, parameter, value))

    def pack(block: bytes) -> bytes:
        room = ctypes.create_string_buffer(library.ZSTD_compressBound(len(block)))
        size = _checked(library, library.ZSTD_compress2(context, room, len(room), block, len(block)))
        return memoryview(room)[:size].tobytes()

    weakref.finalize(pack, library.ZSTD_freeCCtx, context)
    return pack


def _library_unpacker(library: Any) -> Unpack:
    context = library.ZSTD_createDCtx()
    room = ctypes.create_string_buffer(0)

    def unpack(block: bytes, size: int) -> memoryview:
        nonlocal room
        if len(room) < size:
            room = ctypes.create_string_buffer(size)
        if _checked(library, library.ZSTD_decompressDCtx(context, room, size, block, len(block))) != size:
            raise ValueError("zstd: a block is not of the size that was announced")
        return memoryview(room).cast("B")[:size]

    weakref.finalize(unpack, library.ZSTD_freeDCtx, context)
    return unpack
