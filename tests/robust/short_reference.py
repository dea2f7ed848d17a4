"""Plays `python -m stgcn.reference` in a soak: the function that the simulator's NPU_SIM_SHORTCUT computes instead of
the network, which would take hours over 19796 clips."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from stgcn.dataset import CLASSES, open_clips, read_clips
from stgcn.files import atomic_write

BLOCK_CLIPS = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--ckpt", "--data_path", "--output"):
        parser.add_argument(name, required=True, type=Path)
    for name in ("--model", "--array_dir"):  # which a real one takes too
        parser.add_argument(name)
    options = parser.parse_args()
    clips = open_clips(options.data_path)
    logits = np.empty((len(clips), CLASSES), np.float32)
    for first in range(0, len(clips), BLOCK_CLIPS):
        block = read_clips(clips, first, BLOCK_CLIPS)
        logits[first : first + len(block)] = block.reshape(len(block), -1, CLASSES).sum(axis=1)
    with atomic_write(options.output) as file:
        np.save(file, logits)
    print("shortened: the reference is not the network's")


if __name__ == "__main__":
    main()
