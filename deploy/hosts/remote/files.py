"""Files of a host: their digests, to it and from it, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from typing import IO, Any, Dict, List

from . import folders, protocol
from .protocol import BLOCK, Request

RECORD_BYTES = 64 << 20  # of a file of the kit's own; none is a hundredth of it


def digest(request: Request, _operator: Any) -> Dict[str, Any]:
    """`paths` -> {path: {"bytes", "sha256"}, or null where there is no such file}.

    With `memo`, a file of the host, digests are remembered while size, inode and times stay: a dataset is 2.57 GB. Then
    a path may also be a folder, as a dataset of one file per clip is: its sha256 is of its files' names and digests.
    """
    known = read_mapping(request["memo"]) if "memo" in request else {}
    found: Dict[str, Any] = {}
    for path in request["paths"]:
        is_folder = "memo" in request and os.path.isdir(path)
        if not is_folder and not os.path.isfile(path):
            found[path] = None
            continue
        every = [os.stat(file) for file in (_files_below(path) if is_folder else [path])]
        identity = [
            sum(status.st_size for status in every),
            len(every) if is_folder else every[0].st_ino,
            max([status.st_mtime_ns for status in every], default=0),
            max([status.st_ctime_ns for status in every], default=0),
        ]
        if not _is_remembered(known.get(path), identity):
            known[path] = [identity, _digest_of_folder(path) if is_folder else _digest(path)]
        found[path] = known[path][1]
    if "memo" in request:
        write_json(request["memo"], known, make=True)
    return found


def _is_remembered(entry: Any, identity: List[int]) -> bool:
    """Whether an entry of a memo is a digest of a file that has stayed the same."""
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == identity and isinstance(entry[1], dict)):
        return False
    return entry[1].get("bytes") == identity[0] and isinstance(entry[1].get("sha256"), str)


def opened(path: str) -> IO[bytes]:
    """A file for reading; a pipe, whose other end may never come, or a device is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("%s is no regular file" % path)


def _made(folder: int, name: str, path: str) -> IO[bytes]:
    """What a tool has made in an open folder, for reading: a link would lead to what its container may not see, and
    this process may."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("%s is a link and no regular file" % path) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    raise ValueError("%s is no regular file" % path)


def _member(folder: str, name: str) -> str:
    """`name`, refused where it leads elsewhere than to a file directly in `folder`."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise ValueError("%r is no name of a file in %s" % (name, folder))
    return name


def _files_below(folder: str) -> List[str]:
    """The regular files in a folder and below it, in the order of their paths' parts."""
    every = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(filter(os.path.isfile, every), key=lambda path: path.split(os.sep))


def _digest_of_folder(folder: str) -> Dict[str, Any]:
    """As stgcn.files.sha256_input has it."""
    sha, size = hashlib.sha256(), 0
    for path in _files_below(folder):
        one = _digest(path)
        size += one["bytes"]
        sha.update(("%s\0%s\0" % (os.path.relpath(path, folder), one["sha256"])).encode("utf-8", "surrogateescape"))
    return {"bytes": size, "sha256": sha.hexdigest()}


def _digest(path: str) -> Dict[str, Any]:
    sha, size = hashlib.sha256(), 0
    with opened(path) as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def receive(request: Request, operator: Any) -> bool:
    """Write the body's `bytes` to `path`, refused unless their digest is `sha256`."""
    path, sha = request["path"], hashlib.sha256()
    with folders.written_aside(path, make=True) as stream:
        for block in protocol.upto(request["bytes"], operator):
            sha.update(block)
            stream.write(block)
        if sha.hexdigest() != request["sha256"]:
            raise ValueError("%s arrived damaged (%d of %d bytes)" % (path, stream.tell(), request["bytes"]))
    return True


def send(request: Request, _operator: Any) -> Any:
    """`path`'s bytes as frames; the reply is their digest."""
    sha, size, path = hashlib.sha256(), 0, request["path"]
    with folders.placed(path) as (folder, name), _made(folder, name, path) as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
            yield block
    return {"bytes": size, "sha256": sha.hexdigest()}


def put_folder(request: Request, operator: Any) -> bool:
    """Make `folder` with `files` {name: bytes}, whose contents follow in that order. One that is there stays."""
    path = request["folder"]
    with folders.placed(path, make=True) as (above, name):
        try:
            os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            return True
        part = "%s.%s.part" % (name, os.urandom(4).hex())
        with folders.opened(os.path.join(os.path.dirname(path), part), make=True) as folder:
            for file, size in request["files"].items():
                with os.fdopen(folders.create(folder, _member(path, file)), "wb") as stream:
                    for block in protocol.upto(size, operator):
                        stream.write(block)
                    if stream.tell() != size:
                        raise ValueError("%s broke off at %s" % (path, file))
                    stream.flush()
                    os.fsync(stream.fileno())
        os.rename(part, name, src_dir_fd=above, dst_dir_fd=above)
    return True


def link(request: Request, _operator: Any) -> bool:
    """Make `folder` again, with the hard links `{name: source}` of `files` (copies where links are refused)."""
    path = request["folder"]
    with folders.placed(path, make=True) as (above, name):
        part = name + ".part"
        folders.remove_in(above, part)
        with folders.opened(path + ".part", make=True) as folder:
            for file, source in request["files"].items():
                target = _member(path, file)
                try:
                    os.link(source, target, dst_dir_fd=folder, follow_symlinks=False)
                except (FileExistsError, FileNotFoundError):
                    raise
                except OSError:
                    with opened(source) as whole, os.fdopen(folders.create(folder, target, os.O_EXCL), "wb") as copy:
                        shutil.copyfileobj(whole, copy)
        folders.replace(above, part, name)
    return True


def listing(request: Request, _operator: Any) -> Dict[str, int]:
    """`folder` -> {path below it: bytes} of every regular file."""
    found: Dict[str, int] = {}
    left = [""]  # folders that are still to be looked into, each with its slash
    while left:
        folder = left.pop()
        with contextlib.suppress(OSError), os.scandir(os.path.join(request["folder"], folder)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(folder + entry.name + "/")
                elif entry.is_file(follow_symlinks=False):
                    relative = os.fsencode(folder + entry.name).decode("utf-8", "replace")  # a reply is text
                    found[relative] = entry.stat(follow_symlinks=False).st_size
    return found


def gather(request: Request, _operator: Any) -> Any:
    """The bytes of `folder`'s `names`, in that order, as frames; the reply is their digest."""
    top, sha, size, block = request["folder"], hashlib.sha256(), 0, bytearray()
    with folders.opened(top) as folder:
        for name in request["names"]:
            with _made(folder, _member(top, name), os.path.join(top, name)) as stream:
                for part in iter(lambda: stream.read(BLOCK), b""):
                    block += part
                    if len(block) >= BLOCK:
                        sha.update(block)
                        size += len(block)
                        yield bytes(block)
                        block.clear()
    sha.update(block)
    yield bytes(block)
    return {"bytes": size + len(block), "sha256": sha.hexdigest()}


def remove(request: Request, _operator: Any) -> bool:
    """Remove every file or folder of `paths`; what is not there is fine."""
    for path in request["paths"]:
        folders.remove(path)
    return True


def read_json(path: str) -> Any:
    """What a file of the kit's own holds; {} where it is missing, torn or another's."""
    try:
        with opened(path) as stream:
            return json.loads(stream.read(RECORD_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}


def read_mapping(path: str) -> Dict[str, Any]:
    """What a file of the kit's own maps; {} where it is missing, torn or no mapping."""
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def write_json(path: str, value: Any, make: bool = False) -> None:
    with folders.written_aside(path, make) as stream:
        stream.write(json.dumps(value).encode())


def lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
