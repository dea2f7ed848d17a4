"""Shards of clips: read and packed where the dataset lies, unpacked to a file a clip where they land.

A shard travels as one stream: a tag that names its compression, then the clips from the first that is missing on.
What has landed are files, so a cut costs a clip at most, whatever wrote or compressed the stream before it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import struct
import sys
from array import array
from typing import IO, Any, Dict, Iterator, List

from . import compression, files, folders, machine, protocol
from .protocol import BLOCK, Request

MARKER = ".shard"  # in a shard's folder: what it holds, written last
PID = ".pid"  # in a shard's `.part`: who writes it
RAW_RATIO = 0.9  # a shard that compresses no better than this is sent as it is


def clips(request: Request, _operator: Any) -> Any:
    """`count` clips of `clip_bytes` from sample `first` of the .npy at `path`, or the single persons at `places`, as
    frames.

    Compressed by the first of `codecs` that this Python can and that pays on the first block.
    """
    with files.opened(request["path"]) as stream:
        blocks = (_persons if "places" in request else _whole_clips)(stream, request)
        block = next(blocks, b"")
        available = compression.codecs()
        codec = next((name for name in request["codecs"] if name in available), "raw")
        if codec != "raw":
            compress, flush = compression.encoder(codec)
            if len(compress(block) + flush()) > RAW_RATIO * len(block):
                codec = "raw"
        compress, flush = compression.encoder(codec)
        yield next(tag for tag, name in compression.TAGS.items() if name == codec)
        while block:
            yield compress(block)
            block = next(blocks, b"")
        yield flush()
    return {"codec": codec}


def _whole_clips(stream: IO[bytes], request: Request) -> Iterator[bytes]:
    size = request["clip_bytes"]
    stream.seek(_array_offset(stream, request["path"]) + size * request["first"])
    return protocol.upto(size * request["count"], stream)


def _persons(stream: IO[bytes], request: Request) -> Iterator[bytes]:
    """Person `p` of clip `i` for each [i, p] of `places`: every `persons`-th of the clip's float32 values from p on."""
    start, size, step = _array_offset(stream, request["path"]), request["clip_bytes"], request["persons"]
    block = b""
    for clip, person in request["places"]:
        stream.seek(start + size * clip)
        block += array("i", stream.read(size))[person::step].tobytes()
        if len(block) >= BLOCK:
            yield block
            block = b""
    yield block


def _array_offset(stream: IO[bytes], path: str) -> int:
    """Where a .npy's array begins: its header gives its own length (NEP 1: two bytes in version 1, four later)."""
    head = stream.read(12)
    if len(head) < 12 or head[:6] != b"\x93NUMPY":
        raise ValueError("%s is no .npy file" % path)
    form = "<H" if head[6] == 1 else "<I"
    return 8 + struct.calcsize(form) + int(struct.unpack_from(form, head, 8)[0])


def landed(request: Request, _operator: Any) -> Dict[str, Any]:
    """For each of `shards` (`first`, `count`, `sha256`), how many of its clips are in `folder` already, `count` only
    of a shard that is whole, its bytes checked; and the codecs that may be sent."""
    found = []
    for shard in request["shards"]:
        there = os.path.join(request["folder"], str(shard["first"]))
        if _is_whole(there, shard):
            found.append(shard["count"])
        else:
            sizes = (os.path.join(there + ".part", name) for name in _clip_names(shard))
            found.append(min(_leading(sizes, request["clip_bytes"]), shard["count"] - 1))
    return {"clips": found, "codecs": list(compression.codecs())}


def _leading(paths: Iterator[str], size: int) -> int:
    """How many of `paths`, from the first on, are files of `size` bytes."""
    for count, path in enumerate(paths):
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            return count
    return sys.maxsize


def unpack(request: Request, operator: Any) -> bool:
    """Write a shard as files: `first`..`first + count - 1`, a clip of `clip_bytes` each, as `folder`/<i>.bin.

    The body has the clips from the `landed`-th on; refused unless the digest of all is `sha256`.
    """
    path, size = request["folder"], request["clip_bytes"]
    with folders.placed(path, make=True) as (above, name), _only_writer(path + ".part") as part:
        sha, written = hashlib.sha256(), 0
        names = _clip_names(request)
        for clip_name in names[: request["landed"]]:
            with os.fdopen(os.open(clip_name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=part), "rb") as file:
                sha.update(file.read())
            written += 1
        read_into, clip = compression.decoder(operator), memoryview(bytearray(size))
        for clip_name in names[written:]:
            if read_into(clip) < size:
                raise ValueError("the shard at sample %d broke off at clip %d" % (request["first"], written))
            with os.fdopen(folders.create(part, clip_name), "wb") as file:
                file.write(clip)
            sha.update(clip)
            written += 1
        if read_into(clip[:1]):
            raise ValueError("the shard at sample %d holds more than it announced" % request["first"])
        if sha.hexdigest() != request["sha256"]:
            folders.remove_in(above, name + ".part")
            raise ValueError("the shard at sample %d arrived damaged, and was thrown away" % request["first"])
        os.remove(PID, dir_fd=part)
        _mark(path + ".part", request)
        folders.replace(above, name + ".part", name)
    return True


def _clip_names(shard: Request) -> List[str]:
    return ["%d.bin" % i for i in range(shard["first"], shard["first"] + shard["count"])]


def _is_whole(folder: str, shard: Request) -> bool:
    """Whether `folder` holds just this shard: by its marker while no file was touched since, else by its bytes."""
    names = _clip_names(shard)
    if not os.path.isdir(folder) or set(os.listdir(folder)) - {MARKER} != set(names):
        return False
    if files.read_json(os.path.join(folder, MARKER)) == _marker(folder, shard):
        return True
    sha = hashlib.sha256()
    for name in names:
        with files.opened(os.path.join(folder, name)) as stream:
            sha.update(stream.read())
    if sha.hexdigest() != shard["sha256"]:
        return False
    _mark(folder, shard)
    return True


def _mark(folder: str, shard: Request) -> None:
    files.write_json(os.path.join(folder, MARKER), _marker(folder, shard))


def _marker(folder: str, shard: Request) -> Dict[str, str]:
    """Good for one boot only: files are not synced one by one, and a power cut may take what they held."""
    sha = hashlib.sha256()
    for name in _clip_names(shard):
        status = os.stat(os.path.join(folder, name))
        sha.update(b"%d %d %d\n" % (status.st_size, status.st_mtime_ns, status.st_ino))
    return {"sha256": shard["sha256"], "files": sha.hexdigest(), "boot": machine.boot()}


@contextlib.contextmanager
def _only_writer(part: str) -> Iterator[int]:
    """Hold a shard's `.part`, an open folder. Its last writer may still wait on a link that is dead: it is ended."""
    with folders.opened(part, make=True) as folder:
        if not files.lock(folder):
            end_writer(part)
            fcntl.flock(folder, fcntl.LOCK_EX)
        files.write_json(os.path.join(part, PID), os.getpid())
        yield folder


def end_writer(part: str) -> None:
    pid = files.read_json(os.path.join(part, PID))
    if machine.is_pid(pid) and pid != os.getpid():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
