"""Files and clips to a host, results back: compressed, verified by sha256 on arrival, renamed into place."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from deploy.console import progress
from deploy.errors import KitError
from deploy.hosts import Host
from deploy.remote import BLOCK
from stgcn.dataset import CLIP_BYTES, open_clips
from stgcn.files import atomic_write, sha256_file
from stgcn.index import Index, Shard


def put(host: Host, local: Path, there: PurePosixPath) -> None:
    """Bring a file to a host, unless it is there with these bytes already."""
    expected = {"bytes": local.stat().st_size, "sha256": sha256_file(local)}
    if host.call("digest", {"paths": [str(there)]})[str(there)] == expected:
        return
    host.call("receive", {"path": str(there), **expected}, _blocks(local))


def get(host: Host, there: PurePosixPath, local: Path) -> None:
    """Bring a file from a host; it appears under its name whole.

    Raises:
        KitError: it is not there, or its bytes are not those that the host's own sha256 names.
    """
    expected = host.call("digest", {"paths": [str(there)]})[str(there)]
    if expected is None:
        raise KitError(f"{host.name}: {there} is not there although its step ended without an error")
    local.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(local) as stream:
        host.call("send", {"path": str(there)}, sink=stream)
    if sha256_file(local) != expected["sha256"]:
        local.unlink()
        raise KitError(f"{host.name}: {there} arrived damaged; run the command again")


def push_clips(host: Host, data: Path, index: Index, folder: PurePosixPath) -> None:
    """Bring every shard of a dataset to `folder`/<first>/<i>.bin, those with the right bytes left alone."""
    clips = open_clips(data)
    with progress(f"clips to {host.name}", index.samples) as advance:
        for shard in index.shards:
            if not _has_shard(host, shard, folder):
                _push_shard(host, clips[shard.first : shard.first + shard.count], shard, folder)
            advance(shard.count)


def clip_path(index: Index, folder: PurePosixPath, sample: int) -> PurePosixPath:
    """Where `push_clips` puts a sample."""
    first = next(s.first for s in index.shards if s.first <= sample < s.first + s.count)
    return folder / str(first) / f"{sample}.bin"


def _has_shard(host: Host, shard: Shard, folder: PurePosixPath) -> bool:
    request = {"folder": str(folder / str(shard.first)), "first": shard.first, "count": shard.count}
    return bool(host.call("digest_shard", request) == shard.sha256)


def _push_shard(host: Host, clips: np.ndarray, shard: Shard, folder: PurePosixPath) -> None:
    packed = zlib.compress(np.ascontiguousarray(clips).tobytes(), 1)
    request = {
        "folder": str(folder / str(shard.first)),
        "first": shard.first,
        "count": shard.count,
        "clip_bytes": CLIP_BYTES,
        "bytes": len(packed),
        "sha256": shard.sha256,
    }
    host.call("unpack", request, [packed])


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from iter(lambda: stream.read(BLOCK), b"")
