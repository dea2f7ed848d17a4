"""What the other stages need to know of a dataset, found in one pass over its clips:

    python -m stgcn.index --data_path val_data.npy --label_path val_label.pkl --output_dir DIR [--shard_clips 512]

writes `labels.npy` (int64) and, last, `dataset.json`: the samples' names, and the dataset's shards. A shard is a slice
of the clips, the unit of transfer and of work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import List, Optional

import numpy as np

from stgcn import plain_json
from stgcn.dataset import check_finite, is_name, open_dataset, read_clips
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, atomic_write, remove

FORMAT = 1
SHARD_CLIPS = 1024  # 127 MiB
READ_CLIPS = 16


@dataclass(frozen=True)
class Shard:
    """Clips `first` to `first + count - 1`; `sha256` is of their raw float32 bytes."""

    first: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What `dataset.json` holds (format 1). The shards follow one another and cover the samples."""

    samples: int
    names: List[str]
    shards: List[Shard]


def write_index(data: PathLike, labels: PathLike, output_dir: PathLike, shard_clips: int = SHARD_CLIPS) -> Index:
    """Write `labels.npy` and `dataset.json` into `output_dir`.

    Raises InputError for anything wrong with the dataset (see open_dataset), a clip with NaN or infinity, or a place
    that can't be written.
    """
    if shard_clips < 1:
        raise InputError(f"--shard_clips {shard_clips} makes no shard: give 1 or more")
    clips, named = open_dataset(data, labels)
    starts = range(0, len(clips), shard_clips)
    shards = [_shard(clips, first, min(shard_clips, len(clips) - first)) for first in starts]
    index = Index(len(clips), named.names, shards)
    folder = Path(output_dir)
    with atomic_write(folder / "labels.npy") as file:
        remove(folder / "dataset.json")  # an earlier one: it is written last, so it stands for both
        np.save(file, named.labels)
    with atomic_write(folder / "dataset.json") as file:
        file.write(json.dumps({"format": FORMAT, **asdict(index)}).encode())
    return index


def load_index(path: PathLike) -> Index:
    """Read a `dataset.json`. Raises InputError if it is missing, damaged or of another format."""
    try:
        content = plain_json.load(path)
        if content.pop("format") != FORMAT:
            raise ValueError
        index = Index(content["samples"], content["names"], [Shard(**shard) for shard in content["shards"]])
        if not _is_whole(index):
            raise ValueError
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): index the dataset again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} isn't an index of format {FORMAT}: index the dataset again") from error
    return index


def _is_whole(index: Index) -> bool:
    """Whether the fields are of their types, and the shards follow one another and cover the samples."""
    end = 0
    for shard in index.shards:
        numbers = type(shard.first) is int and type(shard.count) is int and shard.count > 0
        if not numbers or shard.first != end or not isinstance(shard.sha256, str):
            return False
        end += shard.count
    names = isinstance(index.names, list) and all(is_name(name) for name in index.names)
    return names and type(index.samples) is int and len(index.names) == index.samples == end


def _shard(clips: np.memmap, first: int, count: int) -> Shard:
    digest = hashlib.sha256()
    for start in range(first, first + count, READ_CLIPS):
        block = read_clips(clips, start, min(READ_CLIPS, first + count - start))
        check_finite(block, start, clips.filename)
        digest.update(block.reshape(-1).data)
    return Shard(first, count, digest.hexdigest())


def main(argv: Optional[List[str]] = None) -> None:
    """Check a dataset and write its index."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.index", description=main.__doc__)
    parser.add_argument("--data_path", required=True, help="val_data.npy")
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    parser.add_argument("--output_dir", required=True, help="folder for labels.npy and dataset.json")
    parser.add_argument("--shard_clips", type=int, default=SHARD_CLIPS, help=f"clips a shard (default {SHARD_CLIPS})")
    options = parser.parse_args(argv)
    index = write_index(options.data_path, options.label_path, options.output_dir, options.shard_clips)
    print(f"{index.samples} samples in {len(index.shards)} shards, indexed in {options.output_dir}")


if __name__ == "__main__":
    run_main(main)
