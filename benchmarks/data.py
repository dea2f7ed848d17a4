"""What the comparisons work on: clips as the sample has them, clips that no compressor makes smaller, results."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Scratch, module
from stgcn.dataset import CLASSES, CLIP_BYTES, CLIP_DTYPE, CLIP_SHAPE, open_clips
from stgcn.sample import CHECKPOINT_NAME, DATA_NAME, LABEL_NAME

WHOLE = 19796  # samples of the real dataset
RESULT_BYTES = 4 * CLASSES
DISTINCT = 240  # 31 MB of clips, then the same again: farther than a compressor of streams looks back


@dataclass(frozen=True)
class Dataset:
    clips: Path
    labels: Path

    @property
    def flags(self) -> tuple[str | Path, ...]:
        return "--data_path", self.clips, "--label_path", self.labels


def sample(place: Scratch) -> tuple[Dataset, Path]:
    """The kit's sample, made once a run, and its checkpoint."""
    folder = place.folder / "sample"
    if not folder.exists():
        module("stgcn.sample", "--output_dir", folder, "--samples", str(DISTINCT))
    return Dataset(folder / DATA_NAME, folder / LABEL_NAME), folder / CHECKPOINT_NAME


def repeated(few: Dataset, count: int, folder: Path) -> Dataset:
    """`count` clips: those of `few`, over and over."""
    source, labels = open_clips(few.clips), _labels(few.labels)
    made = _new(folder, count, [labels[i % len(labels)] for i in range(count)])
    with made.clips.open("ab") as file:
        for first in range(0, count, len(source)):
            file.write(source[: count - first].tobytes())
    return made


def incompressible(count: int, folder: Path) -> Dataset:
    """Clips of random bits, but for one that keeps each value finite."""
    made = _new(folder, count, [0] * count)
    random = np.random.default_rng(0)
    with made.clips.open("ab") as file:
        for _ in range(count):
            file.write(random.integers(0, 2**32, CLIP_BYTES // 4, np.uint32) & np.uint32(0xBFFFFFFF))
    return made


def as_files(dataset: Dataset, folder: Path) -> Path:
    """The guide's files of the clips, as its reader copies them."""
    folder.mkdir(parents=True)
    for index, clip in enumerate(open_clips(dataset.clips)):
        clip.tofile(folder / f"{index}.bin")
    return folder


def results(folder: Path, labels: Path) -> Path:
    """A result a sample, `<i>_0.bin`: random logits that name two labels of three."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index, label in enumerate(_labels(labels)):
        logits = random.normal(size=CLASSES).astype(np.float32)
        logits[label] += 5.0 * (index % 3 > 0)
        logits.tofile(folder / f"{index}_0.bin")
    return folder


def write_labels(path: Path, labels: list[int]) -> Path:
    names = [f"clip-{index}" for index in range(len(labels))]
    path.write_bytes(pickle.dumps((names, labels), protocol=2))
    return path


def _labels(path: Path) -> list[int]:
    labels: list[int] = pickle.loads(path.read_bytes())[1]  # noqa: S301 - made above
    return labels


def _new(folder: Path, count: int, labels: list[int]) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    clips = folder / DATA_NAME
    with clips.open("wb") as file:
        header = {"descr": CLIP_DTYPE.str, "fortran_order": False, "shape": (count, *CLIP_SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
    return Dataset(clips, write_labels(folder / LABEL_NAME, labels))
