"""Files and clips to a host, results back: compressed, resumable, verified on arrival, renamed into place."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from deploy.console import say
from deploy.errors import KitError
from deploy.hosts.host import Host, Writer
from deploy.hosts.remote import compression
from deploy.hosts.remote.protocol import BLOCK
from deploy.pipeline.index import Array, Shard
from deploy.progress import progress
from deploy.workqueue import in_parallel
from stgcn.files import atomic_write, sha256_file

FILE_BYTES = 8 << 30  # of an artefact that comes back; none is a tenth of it
STREAMS = 3  # shards in flight: one is read and packed while others are on the wire and unpacked


@dataclass(frozen=True)
class Pushed:
    """What bringing a dataset to a host took."""

    shards: int
    kept: int  # shards that were there already
    raw_bytes: int  # of the clips that were missing
    wire_bytes: int  # that they were sent as
    seconds: float

    def __str__(self) -> str:
        rate = self.raw_bytes / max(self.seconds, 1e-9) / 1e6
        sent = f"{self.raw_bytes / 1e6:.1f} MB sent as {self.wire_bytes / 1e6:.1f} MB in {self.seconds:.1f} s"
        return f"{self.shards} shard{'s' * (self.shards != 1)}, {self.kept} there already, {sent} ({rate:.0f} MB/s)"


def put(host: Host, local: Path, there: PurePosixPath) -> None:
    """Bring a file to a host, unless it is there with these bytes already."""
    expected = {"bytes": local.stat().st_size, "sha256": sha256_file(local)}
    if host.call("digest", {"paths": [str(there)]}).get(str(there)) == expected:
        return
    host.call("receive", {"path": str(there), **expected}, _blocks(local))


def get(host: Host, there: PurePosixPath, local: Path) -> None:
    """Bring a file from a host; it appears under its name whole.

    Raises:
        KitError: it is not there, larger than FILE_BYTES, or its bytes are not those that the host's own sha256 names.
    """
    with atomic_write(local) as stream:
        arrived = _Hashed(Limited(stream, FILE_BYTES, f"{host.name}: {there}"))
        sent = host.call("send", {"path": str(there)}, sink=arrived)
        if arrived.sha256 != sent["sha256"]:
            raise KitError(f"{host.name}: {there} arrived damaged; run the command again")


def gather(host: Host, folder: PurePosixPath, names: Sequence[str], size: int) -> bytes:
    """The bytes of a host's files, one behind the other, `size` in all.

    Raises:
        KitError: they are more or fewer, or not those that the host's own sha256 names.
    """
    found = io.BytesIO()
    arrived = _Hashed(Limited(found, size, f"{host.name}: {folder}"))
    sent = host.call("gather", {"folder": str(folder), "names": list(names)}, sink=arrived)
    if arrived.sha256 != sent["sha256"]:
        raise KitError(f"{host.name}: what is in {folder} arrived damaged; run the command again")
    if sent["bytes"] != size:
        raise KitError(f"{host.name}: {sent['bytes']} bytes are in {folder} instead of {size}; run it again")
    return found.getvalue()


def put_folder(host: Host, sources: Sequence[Path], folder: PurePosixPath) -> None:
    """Bring small files to a folder of a host whose name says their version."""
    contents = {path.name: path.read_bytes() for path in sources}
    request = {"folder": str(folder), "files": {name: len(data) for name, data in contents.items()}}
    host.call("put_folder", request, contents.values())


def push_rows(source: Host, data: PurePosixPath, array: Array, host: Host, folder: PurePosixPath) -> Pushed:
    """Bring every row of `array`, in `data`, a .npy on `source`, to `folder`/<shard>/<i>.bin on `host`.

    Shards with the right bytes are left alone, one that was cut goes on at its first missing clip. The stream passes
    through this machine.
    """
    shards = [{"first": s.first, "count": s.count, "sha256": s.sha256} for s in array.shards]
    size = array.row_bytes
    request = {"folder": str(folder), "clip_bytes": size, "shards": shards}
    there = host.call("landed", request)
    if len(there["clips"]) != len(shards):
        raise KitError(f"{host.name}: it tells of {len(there['clips'])} shards and was asked for {len(shards)}")
    landed = {s.first: min(n, s.count) for s, n in zip(array.shards, there["clips"], strict=True)}
    missing = [shard for shard in array.shards if landed[shard.first] < shard.count]
    if not missing:
        return Pushed(len(shards), len(shards), 0, 0, 0.0)
    wire, start = _Counter(), time.monotonic()
    with progress(f"{array.name} to {host.name}", array.rows) as advance:
        advance(sum(landed.values()))

        def push(shard: Shard) -> None:
            before, left = landed[shard.first], shard.count - landed[shard.first]
            what = {**_wanted(array, shard.first + before, left), "path": str(data), "codecs": there["codecs"]}
            stream = source.stream("clips", what)
            whole = {"first": shard.first, "count": shard.count, "sha256": shard.sha256, "landed": before}
            request = {"folder": str(folder / str(shard.first)), "clip_bytes": size, **whole}
            host.call("unpack", request, wire.counted(stream))
            advance(left)

        in_parallel(missing, STREAMS, push)
    raw = size * sum(shard.count - landed[shard.first] for shard in missing)
    pushed = Pushed(len(shards), len(shards) - len(missing), raw, wire.bytes, time.monotonic() - start)
    say(f"  {array.name} to {host.name}: {pushed}", "dim")
    return pushed


def read_row(source: Host, data: PurePosixPath, array: Array, row: int) -> np.ndarray:
    """One row of an input, of `data`, a .npy on `source`, in the input's dtype and shape.

    Raises:
        KitError: its host does not give it up.
    """
    request = {**_wanted(array, row, 1), "path": str(data), "codecs": []}
    sent = io.BytesIO()
    source.call("clips", request, sink=Limited(sent, array.row_bytes, f"{source.name}: row {row}"))
    values = sent.getvalue()
    if len(values) != array.row_bytes:
        raise KitError(f"{source.name}: row {row} cannot be read from {data}; check `dataset.data`")
    return np.frombuffer(values, np.dtype(array.dtype).newbyteorder("<")).reshape(array.shape)


def pack_shard(source: Host, data: PurePosixPath, array: Array, shard: Shard) -> bytes:
    """A shard of an input, of `data`, a .npy on `source`, in the form that a host's `unpack` takes."""
    what = {**_wanted(array, shard.first, shard.count), "path": str(data), "codecs": list(compression.codecs())}
    return b"".join(source.stream("clips", what))


def _wanted(array: Array, first: int, count: int) -> dict[str, Any]:
    """What the source is to read: rows that follow one another, or those at their places in larger ones."""
    size = {"clip_bytes": array.row_bytes * array.step}
    if array.places is None:
        return {**size, "first": first, "count": count}
    return {**size, "places": list(array.places[first : first + count]), "persons": array.step}


def clip_path(shards: Sequence[Shard], folder: PurePosixPath, sample: int) -> PurePosixPath:
    """Where `push_rows` puts a sample of one of `shards`."""
    first = next(s.first for s in shards if s.first <= sample < s.first + s.count)
    return folder / str(first) / f"{sample}.bin"


class Limited:
    """Writes on, up to so many bytes."""

    def __init__(self, stream: IO[bytes], limit: int, what: str) -> None:
        self._stream, self._limit, self._what, self._seen = stream, limit, what, 0

    def write(self, block: bytes) -> None:
        self._seen += len(block)
        if self._seen > self._limit:
            raise KitError(f"{self._what}: more than {self._limit} bytes came, so it is not what was asked for")
        self._stream.write(block)


class _Hashed:
    def __init__(self, stream: Writer) -> None:
        self._stream, self._sha = stream, hashlib.sha256()

    def write(self, block: bytes) -> None:
        self._sha.update(block)
        self._stream.write(block)

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()


class _Counter:
    """Bytes that passed, over all streams."""

    def __init__(self) -> None:
        self.bytes, self._lock = 0, threading.Lock()

    def counted(self, blocks: Iterator[bytes] | Any) -> Iterator[bytes]:
        for block in blocks:
            with self._lock:
                self.bytes += len(block)
            yield block


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from iter(lambda: stream.read(BLOCK), b"")
