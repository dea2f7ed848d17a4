"""`gpu/dataset.json`, as `stgcn.index` wrote it: sample names and the shards that cover the clips."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import KitError

FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """Clips `first` .. `first + count - 1`; `sha256` is of their float32 bytes."""

    first: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """A dataset's sample names, in order, and its shards, which cover it without gap or overlap."""

    names: tuple[str, ...]
    shards: tuple[Shard, ...]

    @property
    def samples(self) -> int:
        return len(self.names)


def load_index(path: Path) -> Index:
    """Read and validate `dataset.json`.

    Raises:
        KitError: it is not such a file, or its shards leave a gap.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        index = Index(tuple(map(str, content["names"])), tuple(map(_shard, content["shards"])))
        ends = [shard.first + shard.count for shard in index.shards]
        if content["format"] != FORMAT or [shard.first for shard in index.shards] != [0, *ends[:-1]]:
            raise ValueError
        if not ends[-1] == content["samples"] == index.samples:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise KitError(f"{path}: not a format {FORMAT} dataset index; run `make gpu-stage` again") from None
    return index


def _shard(entry: Any) -> Shard:
    shard = Shard(entry["first"], entry["count"], entry["sha256"])
    if type(shard.first) is not int or type(shard.count) is not int or shard.count < 1:
        raise ValueError
    if not isinstance(shard.sha256, str):
        raise ValueError
    return shard
