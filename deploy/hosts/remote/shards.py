"""Shards of clips: read and packed where the dataset lies, unpacked to a file a clip where they land.

A shard travels as one stream: a tag that names its compression, then blocks of clips from the first that is missing on,
each as its length (4 bytes, big-endian) and its packed bytes. A block's own checksum vouches for it (compression.py),
and SSH's for the link: a sha256 of every clip on arrival was half of a push's time on a processor without instructions
for it. What has landed are files, so a cut costs a block at most, whatever wrote or compressed the stream before it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import struct
import sys
from array import array
from itertools import chain
from typing import IO, Any, Dict, Iterator, List

from . import compression, files, folders, processes, protocol
from .protocol import BLOCK, Request

MARKER = ".shard"  # in a shard's folder: what it holds, written last
PID = ".pid"  # in a shard's `.part`: who writes it
STORED_RATIO = 0.9  # a shard that deflate makes no smaller than this is stored
LENGTH = struct.Struct(">I")


def clips(request: Request, _operator: Any) -> Any:
    """`count` clips of `clip_bytes` from sample `first` of the .npy at `path`, or the single persons at `places`, as
    frames.

    Packed by the first of `codecs` that this Python can; with none, they are the clips' bytes and nothing else.
    """
    with files.opened(request["path"]) as stream:
        before = _identity(stream)
        blocks = (_persons if "places" in request else _whole_clips)(stream, request)
        if request["codecs"]:
            blocks = _packed(blocks, request["codecs"])
        for block in blocks:
            for start in range(0, len(block), BLOCK):
                yield block[start : start + BLOCK]
        if _identity(stream) != before:
            raise ValueError("%s was changed while it was read; run the command again" % request["path"])
    return True


def _packed(blocks: Iterator[bytes], wanted: List[str]) -> Iterator[bytes]:
    available = compression.codecs()
    codec = next((name for name in wanted if name in available), "deflate")
    first, pack = next(blocks), compression.packer(codec)
    if codec == "deflate" and len(pack(first)) > STORED_RATIO * len(first):
        pack = compression.packer(codec, compresses=False)
    yield next(tag for tag, name in compression.TAGS.items() if name == codec)
    for block in chain([first], blocks):
        packed = pack(block)
        yield LENGTH.pack(len(packed)) + packed


def _identity(stream: IO[bytes]) -> List[int]:
    status = os.fstat(stream.fileno())
    return [status.st_size, status.st_mtime_ns]


def _clips_per_block(size: int) -> int:
    return max(1, BLOCK // size)


def _whole_clips(stream: IO[bytes], request: Request) -> Iterator[bytes]:
    size = request["clip_bytes"]
    stream.seek(_array_offset(stream, request["path"]) + size * request["first"])
    left, most = request["count"], _clips_per_block(size)
    while left:
        count = min(left, most)
        block = stream.read(size * count)
        if len(block) < size * count:
            raise ValueError("%s ends before clip %d" % (request["path"], request["first"] + request["count"] - 1))
        yield block
        left -= count


def _persons(stream: IO[bytes], request: Request) -> Iterator[bytes]:
    """Person `p` of clip `i` for each [i, p] of `places`: every `persons`-th of the clip's float32 values from p on."""
    start, size, step = _array_offset(stream, request["path"]), request["clip_bytes"], request["persons"]
    places, most = request["places"], _clips_per_block(size // step)
    for first in range(0, len(places), most):
        block = []
        for clip, person in places[first : first + most]:
            stream.seek(start + size * clip)
            block.append(array("i", stream.read(size))[person::step].tobytes())
        yield b"".join(block)


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

    The body has the clips from the `landed`-th on. Those that an earlier stream left are read again: the shard is
    refused unless the digest of all is `sha256`.
    """
    path, first, written = request["folder"], request["first"], request["landed"]
    with folders.placed(path, make=True) as (above, name), _only_writer(path + ".part") as part:
        names = _clip_names(request)
        for block in _unpacked(request, operator):
            for start in range(0, len(block), request["clip_bytes"]):
                _write(part, names[written], block[start : start + request["clip_bytes"]])
                written += 1
        if operator.read(1):
            raise ValueError("the shard at sample %d holds more than it announced" % first)
        if request["landed"] and _digest(path + ".part", names) != request["sha256"]:
            folders.remove_in(above, name + ".part")
            raise ValueError("the shard at sample %d arrived damaged, and was thrown away" % first)
        os.remove(PID, dir_fd=part)
        _mark(path + ".part", request)
        folders.replace(above, name + ".part", name)
    return True


def _unpacked(request: Request, operator: Any) -> Iterator[memoryview]:
    """The blocks of a shard's body, as they come."""
    size, clip, end = request["clip_bytes"], request["landed"], request["count"]
    unpack, most = None, _clips_per_block(size)
    while clip < end:
        count = min(most, end - clip)
        broken = "the shard at sample %d broke off at clip %d" % (request["first"], clip)
        if unpack is None:
            unpack = compression.unpacker(_exactly(1, operator, broken))
        length = LENGTH.unpack(_exactly(LENGTH.size, operator, broken))[0]
        damaged = "the shard at sample %d arrived damaged at clip %d" % (request["first"], clip)
        if length > size * count + (size * count >> 6) + 1024:  # what does not compress grows by less
            raise ValueError("%s (a block of %d bytes)" % (damaged, length))
        packed = _exactly(length, operator, broken)
        try:
            block = unpack(packed, size * count)
        except Exception as error:  # the compression package has some of its own
            raise ValueError("%s (%s)" % (damaged, error)) from None
        yield memoryview(block)
        clip += count


def _exactly(size: int, body: Any, broken: str) -> bytes:
    found = b"".join(protocol.upto(size, body))
    if len(found) < size:
        raise ValueError(broken)
    return found


def _write(folder: int, name: str, clip: memoryview) -> None:
    file = folders.create(folder, name)
    try:
        if os.write(file, clip) != len(clip):  # a disk that is all but full takes a part, without an error
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def _clip_names(shard: Request) -> List[str]:
    return ["%d.bin" % i for i in range(shard["first"], shard["first"] + shard["count"])]


def _is_whole(folder: str, shard: Request) -> bool:
    """Whether `folder` holds just this shard: by its marker while no file was touched since, else by its bytes."""
    names = _clip_names(shard)
    if not os.path.isdir(folder) or set(os.listdir(folder)) - {MARKER} != set(names):
        return False
    if files.read_json(os.path.join(folder, MARKER)) == _marker(folder, shard):
        return True
    if _digest(folder, names) != shard["sha256"]:
        return False
    _mark(folder, shard)
    return True


def _digest(folder: str, names: List[str]) -> str:
    """sha256 of the bytes of files that follow one another; a link among them is refused."""
    sha = hashlib.sha256()
    with folders.opened(folder) as opened:
        for name in names:
            with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened), "rb") as stream:
                sha.update(stream.read())
    return sha.hexdigest()


def _mark(folder: str, shard: Request) -> None:
    files.write_json(os.path.join(folder, MARKER), _marker(folder, shard))


def _marker(folder: str, shard: Request) -> Dict[str, str]:
    """Good for one boot only: files are not synced one by one, and a power cut may take what they held."""
    sha = hashlib.sha256()
    for name in _clip_names(shard):
        status = os.stat(os.path.join(folder, name))
        sha.update(b"%d %d %d\n" % (status.st_size, status.st_mtime_ns, status.st_ino))
    return {"sha256": shard["sha256"], "files": sha.hexdigest(), "boot": processes.boot()}


@contextlib.contextmanager
def _only_writer(part: str) -> Iterator[int]:
    """Hold a shard's `.part`, an open folder. Its last writer may still wait on a link that is dead: it is ended."""
    with folders.opened(part, make=True) as folder:
        end_writer(part)
        fcntl.flock(folder, fcntl.LOCK_EX)
        files.write_json(os.path.join(part, PID), os.getpid())
        yield folder


def end_writer(part: str) -> None:
    """End who holds a shard's `.part`. Where nobody does, the number that was left there is another process's now."""
    with folders.opened(part) as folder:
        pid: Any = None if files.lock(folder) else files.read_json(os.path.join(part, PID))
    if processes.is_pid(pid) and pid != os.getpid():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
