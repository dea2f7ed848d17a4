"""Clips in the forms that users have them, read as the rows that a model takes: float32, C order, two persons.

Besides the dataset's own val_data.npy these are arrays of float16 and float64, of either order of bytes, in Fortran
order, of one person; and the folder of JSON files in which Kinetics-skeleton is distributed, one clip a file. Of
mmaction2's models they are an annotation file, of each of whose samples several rows are made.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from stgcn import npy, plain_json
from stgcn.annotations import Annotations
from stgcn.cards import Card
from stgcn.dataset import (
    CLIP_DTYPE,
    Labels,
    array_header,
    check_pairs,
    is_name,
    load_labels,
    open_clips,
    read_clips,
    read_label_file,
)
from stgcn.errors import InputError, shown
from stgcn.files import PathLike

ROWS = "rows.npy"  # what the index writes of clips in any form but the dataset's own
PERSONS_READ = 5  # of a frame in JSON, the first so many; of these the best are kept
JSON_BYTES = 64 << 20  # of one clip; the longest of Kinetics-skeleton is a thirtieth of it
FEW, MANY = 16, 256  # clips read at once: where one follows another, and where the file is strewn with each


class Source:
    """The clips at `path`, as rows of `shape`. `conversion` says what is done to them, or is empty if nothing is."""

    block = FEW  # as many clips as are best read at once

    def __init__(self, path: PathLike, samples: int, conversion: str) -> None:
        self.path, self.samples, self.conversion = Path(path), samples, conversion

    def read(self, first: int, count: int) -> np.ndarray:
        """A copy of the clips from `first` on, at most `count`: float32 (count, *shape)."""
        raise NotImplementedError


class _InPlace(Source):
    def __init__(self, clips: np.memmap) -> None:
        super().__init__(str(clips.filename), len(clips), "")
        self._clips = clips

    def read(self, first: int, count: int) -> np.ndarray:
        return read_clips(self._clips, first, count)


class _Layout(NamedTuple):
    """How an array of clips lies in its file."""

    dtype: np.dtype
    is_fortran: bool
    offset: int  # bytes
    shape: Tuple[int, ...]  # (N, ...)


class _Array(Source):
    """An array of another type, order or number of persons."""

    def __init__(self, path: PathLike, layout: _Layout, card: Card, conversion: str) -> None:
        super().__init__(path, layout.shape[0], conversion)
        self._layout, self._row = layout, card.row_shape
        self._values = int(np.prod(layout.shape[1:]))
        self.block = MANY if layout.is_fortran else FEW

    def read(self, first: int, count: int) -> np.ndarray:
        count = min(count, self.samples - first)
        clips = self._strewn(first, count) if self._layout.is_fortran else self._in_a_row(first, count)
        rows = np.zeros((count, *self._row), CLIP_DTYPE)
        with np.errstate(over="ignore"):  # beyond float32: infinity, which is named where it is looked for
            rows[..., : self._persons(clips)] = clips.reshape(*rows.shape[:-1], -1)
        return rows

    def _persons(self, clips: np.ndarray) -> int:
        return clips.size // int(np.prod((len(clips), *self._row[:-1])))

    def _in_a_row(self, first: int, count: int) -> np.ndarray:
        dtype, _, offset, shape = self._layout
        start = offset + first * self._values * dtype.itemsize
        values = np.fromfile(str(self.path), dtype, count * self._values, offset=start)
        self._check_whole(len(values), count * self._values)
        return values.reshape(count, *shape[1:])

    def _strewn(self, first: int, count: int) -> np.ndarray:
        """In Fortran order the samples are the axis that runs fastest: a few numbers of each place of a clip."""
        dtype, _, offset, shape = self._layout
        values = np.empty((self._values, count), dtype)
        with self.path.open("rb") as file:
            for place, row in enumerate(values):
                start = offset + (place * self.samples + first) * dtype.itemsize
                content = os.pread(file.fileno(), row.nbytes, start)
                self._check_whole(len(content), row.nbytes)
                row[:] = np.frombuffer(content, dtype)
        clips: np.ndarray = values.reshape(*reversed(shape[1:]), count).transpose()
        return clips

    def _check_whole(self, found: int, wanted: int) -> None:
        if found != wanted:
            raise InputError(f"{self.path} was cut short while it was read: copy it again")


class _Annotated(Source):
    """The rows of mmaction2's annotations, those of a sample after one another."""

    def __init__(self, path: PathLike, annotations: Annotations, card: Card) -> None:
        samples = len(annotations.labels.names)
        super().__init__(path, samples * card.rows_per_sample, "mmaction2's annotations")
        self._annotations, self.block = annotations, card.rows_per_sample

    def read(self, first: int, count: int) -> np.ndarray:
        every, last = self.block, min(first + count, self.samples)
        samples = range(first // every, -(-last // every))
        rows = np.concatenate([self._annotations.read(sample) for sample in samples])
        return rows[first - samples[0] * every : last - samples[0] * every]


class _Folder(Source):
    """Kinetics-skeleton as it is distributed, by the rule of mmskeleton's own converter.

    That is `deprecated/tools/data_processing/kinetics_gendata.py` with `KineticsFeeder` at b4c076b: of each frame the
    first five persons; x and y less 0.5; a joint without a score is all zero; in each frame the persons in the order of
    their joints' summed scores, the best two kept; all in float64, rounded to float32 at the end. Its samples come in
    the order of the folder, whatever that is, and here in the order of their names.
    """

    def __init__(self, path: PathLike, files: List[str], labels: np.ndarray, card: Card) -> None:
        super().__init__(path, len(files), "a folder of JSON files, one clip a file")
        self._files, self._labels, self._row = files, labels, card.row_shape

    def read(self, first: int, count: int) -> np.ndarray:
        count = min(count, self.samples - first)
        return np.stack([self._clip(sample) for sample in range(first, first + count)])

    def _clip(self, sample: int) -> np.ndarray:
        path, label = self.path / self._files[sample], int(self._labels[sample])
        try:
            content = plain_json.load(path, JSON_BYTES)
            clip = _clip_of_json(content, self._row)
            own = content["label_index"]
        except OSError as error:
            raise InputError(f"can't read {path} ({error.strerror}): copy it again") from error
        except (LookupError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(f"{path} isn't a clip of Kinetics-skeleton: copy it again") from error
        except ValueError as error:
            raise InputError(f"{path} isn't a clip of Kinetics-skeleton ({error}): copy it again") from error
        if own != label or type(own) is not int:
            raise InputError(
                f"{path} says label {shown(own)} and the label file {label}: give the label file of the same split"
            )
        return clip


def _clip_of_json(content: Any, row: Tuple[int, ...]) -> np.ndarray:
    """A clip, float32 of shape `row`; of anything else an error of whatever kind."""
    channels, frames, joints, persons = row
    seen = np.zeros((channels, frames, joints, PERSONS_READ))
    for entry in content["data"]:
        frame = entry["frame_index"]
        if type(frame) is not int or not 0 <= frame < frames:
            raise ValueError(f"its frame {shown(frame)} is outside 0..{frames - 1}")
        for person, skeleton in enumerate(entry["skeleton"][:PERSONS_READ]):
            pose, score = skeleton["pose"], skeleton["score"]
            numbers = {type(number) for number in pose + score} <= {int, float}
            if not numbers or (len(pose), len(score)) != (2 * joints, joints):
                raise ValueError(f"person {person} of frame {frame} isn't {joints} joints with x, y and score")
            seen[:, frame, :, person] = np.array([pose[0::2], pose[1::2], score])
    seen[:2] -= 0.5
    seen[:2, seen[2] == 0] = 0
    order = (-seen[2].sum(axis=1)).argsort(axis=1, kind="stable")  # (frames, persons)
    best = np.take_along_axis(seen, order[None, :, None, :persons], axis=3)
    with np.errstate(over="ignore"):
        return best.astype(CLIP_DTYPE)


def open_source(data: PathLike, labels: PathLike, card: Card) -> Tuple[Source, Labels]:
    """The clips in whatever form, and their names and labels.

    Of a model with several rows per sample `samples` counts rows. Raises InputError for a form that isn't known, as
    open_clips and load_labels do, and if the numbers of clips and labels differ.
    """
    if card.is_annotated:
        annotations = Annotations(data, card)
        return _Annotated(data, annotations, card), annotations.labels
    if Path(data).is_dir():
        return _open_folder(Path(data), labels, card)
    source, named = open_array(data, card), load_labels(labels, card)
    check_pairs(data, source.samples, labels, len(named.labels))
    return source, named


def labels_of(labels: PathLike, card: Card) -> Labels:
    """Names and labels, of a label file or of annotations. Raises InputError as load_labels and Annotations do."""
    return Annotations(labels, card).labels if card.is_annotated else load_labels(labels, card)


def open_array(data: PathLike, card: Card) -> Source:
    """The clips of a .npy. Raises InputError as open_clips does, for other types and shapes than those above."""
    header, offset, size = array_header(data)
    descr, is_fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    layouts = {card.row_shape: ""}
    if card.network == "st_gcn":  # persons are its last axis
        for shape_of_one in ((*card.row_shape[:-1], 1), card.row_shape[:-1]):
            layouts[shape_of_one] = "one person (padded)"
    known = isinstance(shape, tuple) and all(map(npy.is_size, shape)) and len(shape) > 1 and shape[0] > 0
    dtype = FLOATS.get(descr) if isinstance(descr, str) else None
    if not known or shape[1:] not in layouts or dtype is None or not isinstance(is_fortran, bool):
        return _InPlace(open_clips(data, card))  # which says what is wrong
    persons = layouts[shape[1:]]
    if dtype == CLIP_DTYPE and not is_fortran and not persons:
        return _InPlace(open_clips(data, card))
    parts = [dtype.name, "big-endian" * (descr[0] == ">"), "in Fortran order" * is_fortran, persons]
    layout = _Layout(dtype, is_fortran, offset, shape)
    expected = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != expected:
        raise InputError(
            f"{data} is {size} bytes and its header promises {min(expected, npy.SIZE_LIMIT)}: it was cut short or "
            "damaged, copy it again"
        )
    return _Array(data, layout, card, ", ".join(filter(None, parts)))


def open_rows(data: PathLike, array_dir: "PathLike | None", card: Card) -> np.memmap:
    """The clips as a model takes them: `data` itself, or what the index made of it in `array_dir`."""
    made = Path(array_dir) / ROWS if array_dir is not None else None
    if made is not None and card.is_annotated:
        return open_clips(made, card)
    if made is not None and made.exists() and (Path(data).is_dir() or open_array(data, card).conversion):
        return open_clips(made, card)
    return open_clips(data, card)


FLOATS = {order + kind: np.dtype(order + kind) for order in "<>" for kind in ("f2", "f4", "f8")}


def _open_folder(folder: Path, labels: PathLike, card: Card) -> Tuple[Source, Labels]:
    if card.network != "st_gcn" or card.skeleton.dimensions != 2:
        raise InputError(f"{folder} is a folder, and {card.name} takes no folder of JSON files: give its array")
    named, without_skeleton = read_label_file(labels, card)
    label_of = {_identity(name): int(label) for name, label in zip(named.names, named.labels)}
    left_out = {_identity(name) for name in without_skeleton}
    try:
        present = sorted(entry.name for entry in os.scandir(str(folder)) if entry.name.endswith(".json"))
    except OSError as error:
        raise InputError(f"can't read {folder} ({error.strerror}): check the path") from error
    files = [name for name in present if not name.startswith(".") and _identity(name) not in left_out]
    for name in files:
        if not is_name(name):
            raise InputError(f"{folder} holds a file whose name is no sample's ({shown(name)}): rename it")
        if _identity(name) not in label_of:
            raise InputError(
                f"{labels} has no label of {name} in {folder}: give the folder and label file of one split"
            )
    if not files:
        raise InputError(f"{folder} holds no clip of {labels} (<name>.json): give the folder with the clips themselves")
    values = np.array([label_of[_identity(name)] for name in files], np.int64)
    return _Folder(folder, files, values, card), Labels(files, values)


def _identity(name: str) -> str:
    """What the converter takes for a clip's key in the label file: its file's name up to the first dot."""
    return name.split(".")[0]
