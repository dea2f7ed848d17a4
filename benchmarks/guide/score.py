"""The guide's scoring: a read a result, all 400 logits sorted once for each k, a Python loop over the samples.

    python -m benchmarks.guide.score --result_dir DIR --label_path val_label.pkl

The guide's script also imports cv2, for nothing; that isn't counted here.
"""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import numpy as np


def accuracy(logits: np.ndarray, labels: list[int], k: int) -> float:
    ranked = logits.argsort()
    hits = [label in ranked[index, -k:] for index, label in enumerate(labels)]
    return sum(hits) / len(hits)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide.score")
    parser.add_argument("--result_dir", required=True)
    parser.add_argument("--label_path", required=True)
    options = parser.parse_args()
    count = len(os.listdir(options.result_dir))  # noqa: PTH208 - as the guide does
    rows = [np.fromfile(os.path.join(options.result_dir, f"{index}_0.bin"), np.float32) for index in range(count)]  # noqa: PTH118
    logits = np.concatenate(rows).reshape(count, 400)
    with Path(options.label_path).open("rb") as file:
        labels = pickle.load(file)[1]  # noqa: S301 - the bench's own file
    for k in (1, 5):
        print(f"Top {k}: {100 * accuracy(logits, labels, k):.2f}%")


if __name__ == "__main__":
    main()
