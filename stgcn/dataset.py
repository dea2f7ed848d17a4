"""A dataset: clips in `val_data.npy`, names and labels in `val_label.pkl`.

A clip is float32 of the model's row shape, for st_gcn.kinetics (3, 300, 18, 2): x, y and score; frames; OpenPose
joints; persons.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from stgcn import npy, numpy_pickle, plain_json, plain_pickle
from stgcn.cards import KINETICS, Card
from stgcn.errors import InputError, shown
from stgcn.files import PathLike, open_regular

# Of st_gcn.kinetics; for what takes any model see its card
CHANNELS, FRAMES, JOINTS, PERSONS = CLIP_SHAPE = (3, 300, 18, 2)
CLASSES = 400
CLIP_VALUES = CHANNELS * FRAMES * JOINTS * PERSONS
CLIP_BYTES = 4 * CLIP_VALUES
CLIP_DTYPE = np.dtype("<f4")
# What a sample of a model is: a clip with both of its persons, or a person who is seen, alone
SAMPLE_SHAPES = {"both": CLIP_SHAPE, "nonempty": (*CLIP_SHAPE[:-1], 1)}
NAME_LIMIT = 255  # characters of a sample's name; the dataset's are of 11


class Labels(NamedTuple):
    """What `val_label.pkl` holds: `names` (N sample names) and `labels` (int64, shape (N,), each a class)."""

    names: List[str]
    labels: np.ndarray


def open_clips(path: PathLike, card: Card = KINETICS) -> np.memmap:
    """The clips as a read-only memory map, float32 of shape (N, *card.row_shape); nothing is read but the header.

    Raises InputError for a missing, damaged or truncated file and for any other dtype, rank or trailing shape.
    """
    header, offset, size = array_header(path)
    shape = _checked_shape(path, header, card)
    expected = offset + shape[0] * int(np.prod(shape[1:])) * CLIP_DTYPE.itemsize  # exact, however much is claimed
    if size != expected:
        raise InputError(
            f"{path} is {size} bytes and its header promises {expected}: it was cut short or damaged, copy it again"
        )
    return np.memmap(path, CLIP_DTYPE, mode="r", offset=offset, shape=shape)


def array_header(path: PathLike) -> Tuple[Any, int, int]:
    """The header of a .npy, the offset of its array and the size of the file, in bytes. Raises InputError for none."""
    try:
        with open_regular(path) as file:
            return npy.read_header(file), file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): check the path") from error
    except ValueError as error:
        raise InputError(f"{path} isn't a clip array ({error}): give the dataset's val_data.npy") from error


def read_clips(clips: np.memmap, first: int, count: int) -> np.ndarray:
    """A copy of `clips[first:first + count]`, read instead of mapped: resident memory stays flat over a whole file."""
    path = str(clips.filename)
    count = min(count, len(clips) - first)
    size = int(np.prod(clips.shape[1:]))
    values = np.fromfile(path, CLIP_DTYPE, count * size, offset=clips.offset + first * size * CLIP_DTYPE.itemsize)
    if len(values) != count * size:
        raise InputError(f"{path} was cut short while it was read: copy it again")
    return values.reshape(count, *clips.shape[1:])


def check_finite(clips: np.ndarray, first: int, path: object) -> None:
    """Raise InputError naming the first of `clips` that holds NaN or infinity; `first` is the index of `clips[0]`."""
    flat = clips.reshape(-1)
    with np.errstate(over="ignore"):  # large values overflow here and are looked at one by one below
        if np.isfinite(np.einsum("i,i->", flat, flat)):  # one pass at memory speed, on this thread alone
            return
    bad = np.flatnonzero(~np.isfinite(clips).reshape(len(clips), -1).all(axis=1))
    if len(bad):
        raise InputError(f"sample {first + bad[0]} of {path} holds NaN or infinity: remake that clip or leave it out")


def load_labels(path: PathLike, card: Card = KINETICS) -> Labels:
    """Names and labels from a pickle of `(names, labels)`, by any Python's protocol and any numpy, or from JSON.

    In JSON they are such a pair, an object with `names` and `labels`, an object of names with their labels, or one of
    names with objects that hold `label_index`, as Kinetics-skeleton's own; there a sample whose `has_skeleton` is false
    is left out. Raises InputError for a missing or damaged file, a pickle that names anything but numpy's arrays and
    numbers, lists that don't pair up, names that aren't short printable text, and labels that are no class.
    """
    return read_label_file(path, card)[0]


def read_label_file(path: PathLike, card: Card) -> Tuple[Labels, List[str]]:
    """As load_labels, and the names of the samples that are left out."""
    left_out: List[str] = []
    try:
        with plain_pickle.mapped(path) as content:
            if _is_json(content):
                pair = _pair_of_json(plain_json.load(path), left_out)
            else:
                pair = plain_pickle.load(content, numpy_pickle.ALLOWED)
            names, labels = _name_and_label_lists(pair)
    except plain_pickle.UnexpectedNameError as error:
        raise InputError(
            f"{path} names {error}, and a label file holds only lists and arrays: it may run code, don't trust it"
        ) from error
    except OSError as error:
        raise InputError(f"can't read {path} ({error.strerror}): check the path") from error
    except ValueError as error:
        raise InputError(f"{path} isn't a label file ({error}): give the dataset's val_label.pkl") from error
    _check_classes(path, labels, card.classes)
    return Labels(names, np.array(labels, dtype=np.int64)), left_out


def _check_classes(path: PathLike, labels: List[int], classes: int) -> None:
    for index, label in enumerate(labels):
        if not 0 <= label < classes:
            counted = min(labels) == 1 and max(labels) == classes
            cure = "they are counted from 1, so subtract 1" if counted else "remake the label file"
            raise InputError(f"label {shown(label)} of sample {index} in {path} is outside 0..{classes - 1}: {cure}")


def check_pairs(data: PathLike, clips: int, labels: PathLike, count: int) -> None:
    """Raise InputError where there aren't as many labels as clips."""
    if clips != count:
        raise InputError(
            f"{data} holds {clips} clips and {labels} holds {count} labels: give the two files of one dataset"
        )


def is_name(value: object) -> bool:
    """Whether `value` can name a sample: printable, for tables have one a line, and short, for it takes a pickle but a
    few bytes to repeat one."""
    return isinstance(value, str) and value.isprintable() and len(value) <= NAME_LIMIT


def class_names() -> List[str]:
    """The 400 class names of Kinetics-400 in the order of the labels."""
    return KINETICS.class_names


def _checked_shape(path: PathLike, header: Any, card: Card) -> Tuple[int, ...]:
    descr = header["descr"]
    shape: Tuple[int, ...] = header["shape"]
    if not isinstance(descr, str) or descr[1:2] != "f":
        raise InputError(
            f"{path} holds dtype {shown(descr)} and clips are float32 ({CLIP_DTYPE.str}): convert the array"
        )
    sizes = isinstance(shape, tuple) and all(map(npy.is_size, shape))  # 300.0 == 300
    if not sizes or shape[1:] != card.row_shape or shape[0] < 1:
        expected = ", ".join(map(str, card.row_shape))
        cure = "give the val_data.npy of its dataset"
        if card.network == "st_gcn" and sizes and shape[1:2] == (2,) and shape[2:] == card.row_shape[1:]:
            cure = "its third channel is missing" + ", the score" * (card.skeleton.dimensions == 2)
        raise InputError(
            f"{path} has shape {shown(shape)} and the clips of {card.name} are (N, {expected}), N at least 1: {cure}"
        )
    if descr != CLIP_DTYPE.str:
        raise InputError(
            f"{path} holds dtype {shown(descr)} and clips are float32 ({CLIP_DTYPE.str}): the index converts floats of "
            "other types, give its rows.npy"
        )
    if header["fortran_order"] is not False:
        raise InputError(
            f"{path} is in Fortran order and clips are in C order: the index converts it, give its rows.npy"
        )
    return shape


def _is_json(content: mmap.mmap) -> bool:
    """Whether a label file is JSON: no instruction of a pickle begins with one of its brackets."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


def _pair_of_json(content: Any, left_out: List[str]) -> Any:
    if not isinstance(content, dict):
        return content
    if content.keys() == {"names", "labels"}:
        return content["names"], content["labels"]
    names, labels = [], []
    for name, entry in content.items():
        if isinstance(entry, dict):
            if entry.get("has_skeleton", True) is False:
                left_out.append(name)
                continue
            entry = entry.get("label_index")
        names.append(name)
        labels.append(entry)
    return names, labels


def _name_and_label_lists(content: Any) -> Tuple[List[str], List[int]]:
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise ValueError("it doesn't hold a pair of names and labels")
    names, labels = (_as_list(part) for part in content)
    if len(names) != len(labels):
        raise ValueError(f"it holds {len(names)} names and {len(labels)} labels")
    for index, name in enumerate(names):
        if not is_name(name):
            raise ValueError(f"the name of sample {index} isn't printable text of at most {NAME_LIMIT} characters")
    for index, label in enumerate(labels):
        if type(label) is not int:
            raise ValueError(f"the label of sample {index} isn't an integer")
    return [str(name) for name in names], labels


def _as_list(part: Any) -> List[Any]:
    """The values of a list, or of an array of one dimension; an array of one value stands for its value."""
    if isinstance(part, np.ndarray):
        part = np.asarray(part).reshape(-1).tolist() if part.size == len(np.atleast_1d(part)) else None
    if not isinstance(part, (list, tuple)):
        raise ValueError("its names and labels aren't lists")
    values = [value.item() if isinstance(value, np.ndarray) and value.size == 1 else value for value in part]
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
