"""The float32 outputs of every sample."""

from pathlib import Path

import numpy as np

from twin.common import inputs, options, outputs, run, save


def main() -> None:
    given = options("ckpt", "data_path", "array_dir", "output")
    with np.load(given.ckpt) as arrays:
        weights = {name: arrays[name].astype(np.float32) for name in arrays}
    position, spread = outputs(weights, **inputs(given.data_path))
    save(Path(given.output), position.astype(np.float32))
    save(Path(given.output).with_suffix(".spread.npy"), spread.astype(np.float32))


run(main)
