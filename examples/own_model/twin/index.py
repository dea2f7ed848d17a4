"""The samples, their labels, and an array per input, cut into shards."""

import hashlib
import json
from pathlib import Path

import numpy as np

from twin.common import INPUTS, inputs, options, run, save

SHARD = 32  # rows; a real model's are about 64 MiB


def main() -> None:
    given = options("data_path", "label_path", "output_dir", "array_dir")
    arrays, labels = inputs(given.data_path), np.load(given.label_path)
    count = len(labels)
    described = []
    for name, (dtype, shape) in INPUTS.items():
        array = np.ascontiguousarray(arrays[name])
        if array.shape != (count, *shape):
            raise ValueError(f"{given.data_path}: {name} is {array.shape}, not {(count, *shape)}")
        save(Path(given.array_dir) / f"{name}.npy", array)
        parts = [(first, array[first : first + SHARD]) for first in range(0, count, SHARD)]
        shards = [
            {"first": first, "count": len(part), "sha256": hashlib.sha256(part.tobytes()).hexdigest()}
            for first, part in parts
        ]
        described.append({"name": name, "file": f"{name}.npy", "dtype": dtype, "shape": list(shape), "shards": shards})
    folder = Path(given.output_dir)
    save(folder / "labels.npy", labels.astype(np.float32))
    names = [f"sample-{i}" for i in range(count)]
    index = {"format": 2, "samples": count, "names": names, "rows": None, "inputs": described}
    (folder / "dataset.json").write_text(json.dumps(index))


run(main)
