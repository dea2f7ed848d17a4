"""What the kit runs on a host: file operations, one process an operation, no packages needed (Python >= 3.7).

    python3 remote.py OPERATION < request

The request is one line of JSON, then the raw bytes it announces, if any; the reply is one line of JSON on standard
output, `{"ok": ...}` or `{"error": "one sentence"}`. Paths are absolute. Files appear under their names only whole:
written aside, synced, renamed. The same file serves this machine and, pushed over SSH, any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zlib
from typing import IO, Any, Callable, Dict, Iterator, List

BLOCK = 1 << 20
# Newer ais_bench refuses inputs that others can write, and output folders wider than 0750.
os.umask(0o027)

Request = Dict[str, Any]


def digest(request: Request, _body: IO[bytes]) -> Dict[str, Dict[str, Any] | None]:
    """`paths` -> {path: {"bytes", "sha256"}, or null where there is no such file}."""
    return {path: _digest(path) if os.path.isfile(path) else None for path in request["paths"]}


def _digest(path: str) -> Dict[str, Any]:
    sha, size = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
            size += len(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def digest_shard(request: Request, _body: IO[bytes]) -> str | None:
    """sha256 over `folder`/<first>.bin and the `count - 1` that follow; null unless the folder holds just these."""
    folder, first = request["folder"], request["first"]
    names = ["%d.bin" % i for i in range(first, first + request["count"])]
    if not os.path.isdir(folder) or set(os.listdir(folder)) != set(names):
        return None
    sha = hashlib.sha256()
    for name in names:
        with open(os.path.join(folder, name), "rb") as stream:
            sha.update(stream.read())
    return sha.hexdigest()


def receive(request: Request, body: IO[bytes]) -> bool:
    """Write the body's `bytes` to `path`, refused unless their digest is `sha256`."""
    path = request["path"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = path + ".part"
    sha = hashlib.sha256()
    with open(part, "wb") as stream:
        for block in _blocks(body, request["bytes"]):
            sha.update(block)
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    if sha.hexdigest() != request["sha256"]:
        os.remove(part)
        raise ValueError("%s arrived damaged (sha256 %s, not %s)" % (path, sha.hexdigest(), request["sha256"]))
    os.replace(part, path)
    return True


def unpack(request: Request, body: IO[bytes]) -> bool:
    """Write one shard as files: clip `first + i` of the body's zlib stream becomes `folder`/<first + i>.bin.

    `count` clips of `clip_bytes` each, refused unless the digest of the raw bytes is `sha256`.
    """
    folder, first, size = request["folder"], request["first"], request["clip_bytes"]
    part = folder + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    sha = hashlib.sha256()
    raw = _inflate(body, request["bytes"], size * request["count"])
    pending = bytearray()
    written = 0
    for block in raw:
        sha.update(block)
        pending += block
        while len(pending) >= size:
            with open(os.path.join(part, "%d.bin" % (first + written)), "wb") as stream:
                stream.write(pending[:size])
            del pending[:size]
            written += 1
    if pending or written != request["count"] or sha.hexdigest() != request["sha256"]:
        shutil.rmtree(part)
        raise ValueError("the shard at sample %d arrived damaged (%d of %d clips)" % (first, written, request["count"]))
    _replace_folder(part, folder)
    return True


def _inflate(body: IO[bytes], size: int, limit: int) -> Iterator[bytes]:
    """Decompressed blocks, never more than `limit` bytes in all: a bomb ends as a damaged shard."""
    inflater = zlib.decompressobj()
    for block in _blocks(body, size):
        while block:
            raw = inflater.decompress(block, BLOCK)
            limit -= len(raw)
            if limit < 0:
                raise ValueError("a shard holds more than it announced")
            yield raw
            block = inflater.unconsumed_tail


def link(request: Request, _body: IO[bytes]) -> bool:
    """Make `folder` anew with the hard links `{name: source}` of `files` (copies where links are refused)."""
    folder = request["folder"]
    part = folder + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    for name, source in request["files"].items():
        target = os.path.join(part, name)
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            shutil.copyfile(source, target)
    _replace_folder(part, folder)
    return True


def listing(request: Request, _body: IO[bytes]) -> Dict[str, int]:
    """`folder` -> {path below it: bytes} of every regular file."""
    top = request["folder"]
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found[os.path.relpath(path, top)] = os.path.getsize(path)
    return found


def pack(request: Request, _body: IO[bytes]) -> Dict[str, Any]:
    """Concatenate `folder`'s `names`, in that order, into `path`; the reply is its digest."""
    part = request["path"] + ".part"
    with open(part, "wb") as packed:
        for name in request["names"]:
            with open(os.path.join(request["folder"], name), "rb") as stream:
                shutil.copyfileobj(stream, packed)
        packed.flush()
        os.fsync(packed.fileno())
    os.replace(part, request["path"])
    return _digest(request["path"])


def send(request: Request, _body: IO[bytes]) -> str:
    """Write `path`'s bytes after the reply: the reply is `{"ok": size}`, the file follows."""
    path = request["path"]
    with open(path, "rb") as stream:
        _reply({"ok": os.fstat(stream.fileno()).st_size})
        shutil.copyfileobj(stream, sys.stdout.buffer, BLOCK)
    sys.stdout.buffer.flush()
    raise SystemExit(0)


def remove(request: Request, _body: IO[bytes]) -> bool:
    """Remove every file or folder of `paths`; what is not there is fine."""
    for path in request["paths"]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    return True


def _blocks(body: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        block = body.read(min(BLOCK, size))
        if not block:
            raise ValueError("the connection ended %d bytes early" % size)
        size -= len(block)
        yield block


def _replace_folder(part: str, folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)


def _reply(reply: Dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


OPERATIONS: Dict[str, Callable[[Request, IO[bytes]], Any]] = {
    operation.__name__: operation
    for operation in (digest, digest_shard, receive, unpack, link, listing, pack, send, remove)
}


def main(arguments: List[str]) -> int:
    body = sys.stdin.buffer
    try:
        request = json.loads(body.readline())
        _reply({"ok": OPERATIONS[arguments[0]](request, body)})
    except (OSError, ValueError, zlib.error) as error:
        _reply({"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
