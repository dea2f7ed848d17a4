"""Files that are either whole or not there, and are read only where they end."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, List, Union

from stgcn.errors import InputError

PathLike = Union[str, "os.PathLike[str]"]
READ_BYTES = 1 << 20
RECORD_BYTES = 256 << 20  # of a file that is read at once: ten times the longest that the kit writes
ASIDE = ".*." + "[0-9a-f]" * 8 + ".tmp"  # the names that aside_of gives, so that no user's file has one
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: PathLike) -> Iterator[BinaryIO]:
    """Open `path` for writing aside; on success it is fsynced and renamed into place, on failure nothing is left.

    Missing parent folders are made. What a killed process leaves aside is for `sweep`. Raises InputError if the place
    can't be written or is full.
    """
    target = Path(path)
    aside = aside_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        file = aside.open("xb")
    except OSError as error:
        raise unwritable(target, error) from error
    try:
        with file:
            with suppress(OSError):  # a file system without locks: then nothing is swept there
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
            aside.replace(target)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError) and error.errno in (*FULL, None):  # None: numpy's own, of a write that fell short
            raise unwritable(target, error) from error
        raise
    sync_folder(target.parent)


def write_whole(path: PathLike, content: bytes) -> None:
    """`atomic_write` of all that a file is to hold."""
    with atomic_write(path) as file:
        file.write(content)


def aside_of(target: Path) -> Path:
    """A name of its own beside `target`, for what is to take its place."""
    return target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")


def sweep(folder: PathLike, depth: int = 0) -> None:
    """Remove what killed processes left aside in `folder` and `depth` levels below; what is being written is locked."""
    for level in range(depth + 1):
        for aside in Path(folder).glob("*/" * level + ASIDE):
            with suppress(OSError):
                descriptor = os.open(str(aside), os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(str(aside)) if aside.is_dir() else aside.unlink()
                finally:
                    os.close(descriptor)


def remove(path: PathLike) -> None:
    """Remove a file if there is one."""
    with suppress(FileNotFoundError):
        Path(path).unlink()


def unwritable(path: PathLike, error: OSError) -> InputError:
    """What to raise when `error` shows that nothing can be written at `path`."""
    way_out = "make room or choose another place" if error.errno in (*FULL, None) else "choose another place"
    return InputError(f"can't write {path} ({error.strerror or error}): {way_out}")


def sync_folder(folder: PathLike) -> None:
    """Make the renames inside `folder` survive a power cut."""
    descriptor = os.open(str(folder), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: PathLike) -> BinaryIO:
    """Open a file for reading. Raises OSError also for a folder, and for a pipe or a device, which may never end."""
    descriptor = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would be waited for
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_record(path: PathLike, limit: int = RECORD_BYTES) -> bytes:
    """A small file's bytes. Raises OSError as open_regular does, and for a file that is larger than `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EINVAL, f"it is larger than {limit} bytes", str(path))
    return content


def sha256_file(path: PathLike) -> str:
    """The sha256 of a file's bytes, in hexadecimal; memory stays flat. Raises InputError if it can't be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            block = file.read(READ_BYTES)
            digest.update(block)
            if len(block) == READ_BYTES:
                _read_ahead(file, digest.update)
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): check the path") from error
    return digest.hexdigest()


def _read_ahead(file: BinaryIO, take: Callable[[bytes], None]) -> None:
    """Read a large file to its end: a block is read while the last one is taken, which saves a third of the time."""
    with ThreadPoolExecutor(1) as beside:
        block = file.read(READ_BYTES)
        while block:
            coming = beside.submit(file.read, READ_BYTES)
            take(block)
            block = coming.result()


def files_below(folder: PathLike) -> List[Path]:
    """The regular files in a folder and below it, in the order of their paths."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def sha256_input(path: PathLike) -> str:
    """The sha256 of a file's bytes; of a folder, that of its files' names and digests. Raises as sha256_file does."""
    if not Path(path).is_dir():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in files_below(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
