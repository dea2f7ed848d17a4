"""What the other stages need to know of a dataset, found in one pass over its clips:

    python -m stgcn.index --data_path val_data.npy --label_path val_label.pkl --output_dir DIR [--shard_clips 512]

writes `labels.npy` (int64) and, last, `dataset.json`: names, and for each shard (a slice of the clips, the unit of transfer
and of work) its first clip, its number of clips and the sha256 of its raw float32 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from stgcn.dataset import check_finite, open_dataset, read_clips
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, atomic_write, remove

FORMAT = 1
SHARD_CLIPS = 512  # 63 MiB
READ_CLIPS = 16


def index_dataset(
    data: PathLike, labels: PathLike, output_dir: PathLike, shard_clips: int = SHARD_CLIPS
) -> Dict[str, Any]:
    """Write `labels.npy` and `dataset.json` into `output_dir`; returns what `dataset.json` holds.

    Raises InputError for anything wrong with the dataset (see open_dataset), a clip with NaN or infinity, or a place
    that can't be written.
    """
    if shard_clips < 1:
        raise InputError(f"--shard_clips {shard_clips} makes no shard: give 1 or more")
    clips, named = open_dataset(data, labels)
    shards = [
        _shard(clips, first, min(shard_clips, len(clips) - first), data) for first in range(0, len(clips), shard_clips)
    ]
    index = {"format": FORMAT, "samples": len(clips), "names": named.names, "shards": shards}
    folder = Path(output_dir)
    with atomic_write(folder / "labels.npy") as file:
        remove(folder / "dataset.json")  # an earlier one: it is written last, so it stands for both
        np.save(file, named.labels)
    with atomic_write(folder / "dataset.json") as file:
        file.write(json.dumps(index).encode())
    return index


def _shard(clips: np.memmap, first: int, count: int, data: PathLike) -> Dict[str, Any]:
    digest = hashlib.sha256()
    for start in range(first, first + count, READ_CLIPS):
        block = read_clips(clips, start, min(READ_CLIPS, first + count - start))
        check_finite(block, start, data)
        digest.update(memoryview(block).cast("B"))
    return {"first": first, "count": count, "sha256": digest.hexdigest()}


def main(argv: Optional[List[str]] = None) -> None:
    """Check a dataset and write its index."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.index", description=main.__doc__)
    parser.add_argument("--data_path", required=True, help="val_data.npy")
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    parser.add_argument("--output_dir", required=True, help="folder for labels.npy and dataset.json")
    parser.add_argument("--shard_clips", type=int, default=SHARD_CLIPS, help=f"clips a shard (default {SHARD_CLIPS})")
    options = parser.parse_args(argv)
    index_dataset(options.data_path, options.label_path, options.output_dir, options.shard_clips)


if __name__ == "__main__":
    run_main(main)
