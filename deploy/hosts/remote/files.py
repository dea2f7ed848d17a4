"""Files of a host: their digests, to it and from it, and written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
from typing import IO, Any, Dict, Iterator, List

from . import protocol
from .protocol import BLOCK, Body, Request

RECORD_BYTES = 64 << 20  # of a file of the kit's own; none is a hundredth of it


def digest(request: Request, _body: Body) -> Dict[str, Any]:
    """`paths` -> {path: {"bytes", "sha256"}, or null where there is no such file}.

    With `memo`, a file of the host, digests are remembered while size, inode and times stay: a dataset is 2.57 GB.
    """
    known = read_mapping(request["memo"]) if "memo" in request else {}
    found: Dict[str, Any] = {}
    for path in request["paths"]:
        if not os.path.isfile(path):
            found[path] = None
            continue
        status = os.stat(path)
        identity = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        if not _is_remembered(known.get(path), identity):
            known[path] = [identity, _digest(path)]
        found[path] = known[path][1]
    if "memo" in request:
        write_json(request["memo"], known)
    return found


def _is_remembered(entry: Any, identity: List[int]) -> bool:
    """Whether an entry of a memo is a digest of a file that has stayed the same."""
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == identity and isinstance(entry[1], dict)):
        return False
    return entry[1].get("bytes") == identity[0] and isinstance(entry[1].get("sha256"), str)


def opened(path: str, flags: int = 0) -> IO[bytes]:
    """A file for reading; a pipe, whose other end may never come, or a device is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("%s is no regular file" % path)


def _made(path: str) -> IO[bytes]:
    """What a tool has made, for reading: a link would lead to what its container may not see, and this process may."""
    if os.path.islink(path):
        raise ValueError("%s is a link and no regular file" % path)
    return opened(path, os.O_NOFOLLOW)


def _member(folder: str, name: str) -> str:
    """The path of `name` directly in `folder`, refused where it leads elsewhere."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise ValueError("%r is no name of a file in %s" % (name, folder))
    return os.path.join(folder, name)


def _digest(path: str) -> Dict[str, Any]:
    sha, size = hashlib.sha256(), 0
    with opened(path) as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def receive(request: Request, body: Body) -> bool:
    """Write the body's `bytes` to `path`, refused unless their digest is `sha256`."""
    path = request["path"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sha = hashlib.sha256()
    with _aside(path) as stream:
        for block in protocol.upto(request["bytes"], body):
            sha.update(block)
            stream.write(block)
        if sha.hexdigest() != request["sha256"]:
            raise ValueError("%s arrived damaged (%d of %d bytes)" % (path, stream.tell(), request["bytes"]))
    return True


def send(request: Request, _body: Body) -> Dict[str, Any]:
    """`path`'s bytes as frames; the reply is their digest."""
    sha, size = hashlib.sha256(), 0
    with _made(request["path"]) as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
            protocol.frame(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def plant(request: Request, body: Body) -> bool:
    """Make `folder` with `files` {name: bytes}, whose contents follow in that order. One that is there stays."""
    folder = request["folder"]
    if os.path.isdir(folder):
        return True
    part = "%s.%d.part" % (folder, os.getpid())
    os.makedirs(part)
    for name, size in request["files"].items():
        with open(_member(part, name), "wb") as stream:
            for block in protocol.upto(size, body):
                stream.write(block)
            if stream.tell() != size:
                raise ValueError("%s broke off at %s" % (folder, name))
    os.rename(part, folder)
    return True


def link(request: Request, _body: Body) -> bool:
    """Make `folder` anew with the hard links `{name: source}` of `files` (copies where links are refused)."""
    folder = request["folder"]
    part = folder + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    for name, source in request["files"].items():
        target = _member(part, name)
        try:
            os.link(source, target)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:
            shutil.copyfile(source, target)
    replace_folder(part, folder)
    return True


def listing(request: Request, _body: Body) -> Dict[str, int]:
    """`folder` -> {path below it: bytes} of every regular file."""
    top = request["folder"]
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                relative = os.fsencode(os.path.relpath(path, top)).decode("utf-8", "replace")  # a reply is text
                found[relative] = os.path.getsize(path)
    return found


def pack(request: Request, _body: Body) -> Dict[str, Any]:
    """Concatenate `folder`'s `names`, in that order, into `path`; the reply is its digest."""
    with _aside(request["path"]) as packed:
        for name in request["names"]:
            with _made(_member(request["folder"], name)) as stream:
                shutil.copyfileobj(stream, packed)
    return _digest(request["path"])


def remove(request: Request, _body: Body) -> bool:
    """Remove every file or folder of `paths`; what is not there is fine. `if_empty` folders go if nothing is left."""
    for path in request["paths"]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    for path in request.get("if_empty", []):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return True


@contextlib.contextmanager
def _aside(path: str) -> Iterator[IO[bytes]]:
    """Open `path` for writing aside: synced and renamed at the end, removed on failure."""
    part = "%s.%d.part" % (path, os.getpid())
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        with open(part, "xb") as stream:  # never through a link that somebody left there
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


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


def write_json(path: str, value: Any) -> None:
    part = path + ".new"
    with open(part, "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(part, path)


def replace_folder(part: str, folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)


def lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
