"""The guide's preprocessing: two passes over the clips, each of which writes every file.

    python -m benchmarks.guide.preprocess --data_path val_data.npy --label_path val_label.pkl --output_dir DIR

The first pass holds the whole array in memory, tells of every sample in four lines and writes its label as int32. The
second goes through a DataLoader of batch size 1 with one worker, over a memory map as mmskeleton's feeder makes it,
tells of every sample in a line and writes both files again, the label as int64. The guide's script imports mmskeleton
as well, which takes longer still; that isn't counted here.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset


class Feeder(Dataset[tuple[np.ndarray, int]]):
    """Clips (3, 300, 18, 2) and their labels."""

    def __init__(self, data: str, labels: str) -> None:
        self.clips = np.load(data, mmap_mode="r")
        self.labels = read_labels(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.array(self.clips[index]), self.labels[index]


def read_labels(path: str) -> list[int]:
    with Path(path).open("rb") as file:
        labels: list[int] = pickle.load(file)[1]  # noqa: S301 - the bench's own file
    return labels


def first_pass(data: str, labels: str, clip_folder: Path, label_folder: Path) -> None:
    clips = np.load(data)
    for index, label in enumerate(read_labels(labels)):
        print("=" * 20, "clip and label", "=" * 20)
        print(f"[INFO] clip {index}")
        print(f"[INFO] label {label}")
        print("=" * 56)
        np.array(clips[index][None]).tofile(clip_folder / f"{index}.bin")
        np.array([label], np.int32).tofile(label_folder / f"{index}.bin")


def second_pass(data: str, labels: str, clip_folder: Path, label_folder: Path) -> None:
    for index, (clip, label) in enumerate(DataLoader(Feeder(data, labels), shuffle=False, num_workers=1)):
        print(f"[INFO] clip {index}")
        np.array(clip).tofile(clip_folder / f"{index}.bin")
        np.array(label).tofile(label_folder / f"{index}.bin")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide.preprocess")
    for flag in ("--data_path", "--label_path", "--output_dir"):
        parser.add_argument(flag, required=True)
    options = parser.parse_args()
    folders = [Path(options.output_dir, name) for name in ("val_data", "val_label")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for write in (first_pass, second_pass):
        write(options.data_path, options.label_path, *folders)


if __name__ == "__main__":
    main()
