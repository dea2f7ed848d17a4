"""mmaction2's skeleton annotations, and the rows that its test pipeline makes of them (v1.2.0, joint stream).

An annotation file (ntu60_2d.pkl, ntu60_3d.pkl) is a pickle of {"split": {name: [sample names]}, "annotations": [...]},
or of the list alone. An annotation is a dict: `frame_dir` (the sample's name), `label`, `total_frames`, `keypoint`
(persons, frames, joints, 2 or 3), and of 2D `keypoint_score` (persons, frames, joints) and `img_shape` (height, width).

The pipeline's steps are PreNormalize2D or 3D, GenSkeFeat, UniformSampleFrames (10 clips of 100 frames), PoseDecode and
FormatGCNInput. They compute in whatever type the file has, mostly float16, and so does this: the rows are theirs bit
for bit.
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from typing import Any, Dict, List, Tuple

import numpy as np

from stgcn import npy, numpy_pickle, plain_pickle
from stgcn.cards import Card
from stgcn.dataset import CLIP_DTYPE, NAME_LIMIT, Labels, is_name
from stgcn.errors import InputError, shown
from stgcn.files import PathLike, open_regular

SPLIT = "xsub_val"
SEED = 255  # of every sample's sampling
IMAGE_SHAPE = (1080, 1920)  # where an annotation has none
MIDDLE_OF_SPINE = 1
SPINE, SHOULDERS = (0, 1), (4, 8)  # from the base to the middle; from the left to the right

Annotation = Dict[str, Any]


class Annotations:
    """The validation samples of an annotation file, in its order. Their arrays stay in the file until they are read.

    Raises InputError for a file that is missing, damaged or may run code, and for a sample without a printable name or
    with a label that is no class.
    """

    def __init__(self, path: PathLike, card: Card) -> None:
        self._path, self._card = path, card
        self._content = _mapped(path)
        self._annotations = _validation(path, self._content)
        self.labels = _labels(path, self._annotations, card)

    def read(self, sample: int) -> np.ndarray:
        """The rows of one sample, float32 (10, *card.row_shape).

        Raises InputError, naming the sample, for what mmaction2's pipeline cannot take.
        """
        try:
            return rows(_with_arrays(self._annotations[sample], self._content), self._card)
        except (ValueError, TypeError, LookupError) as error:
            raise InputError(
                f"sample {self.labels.names[sample]} of {self._path} can't be used ({error}): correct or remove it"
            ) from error


def rows(annotation: Annotation, card: Card) -> np.ndarray:
    """The rows of one sample, float32 (10, 2, 100, V, 3). Raises ValueError for what the pipeline cannot take."""
    keypoint = annotation["keypoint"]
    dimensions = card.skeleton.dimensions
    if keypoint.ndim != 4 or keypoint.shape[2:] != (card.joints, dimensions):
        raise ValueError(f"its keypoint has shape {keypoint.shape}, not (persons, frames, {card.joints}, {dimensions})")
    if keypoint.dtype.kind != "f":
        raise ValueError(f"its keypoint is {keypoint.dtype}, not of floating point")
    if annotation["total_frames"] != keypoint.shape[1] or keypoint.shape[1] < 1:
        raise ValueError(
            f"total_frames is {shown(annotation['total_frames'])} and its keypoint has {keypoint.shape[1]}"
        )
    if not np.isfinite(keypoint).all():
        raise ValueError("its keypoint holds NaN or infinity")
    if dimensions == 2:
        bodies = _with_score(_scaled(keypoint, annotation.get("img_shape", IMAGE_SHAPE)), annotation)
    else:
        bodies = _turned(keypoint)
    persons, frames, joints, channels = card.row_shape
    clips = bodies[:persons, sampled_frames(bodies.shape[1], frames, card.rows_per_sample)].astype(CLIP_DTYPE)
    padded = np.zeros((persons, *clips.shape[1:]), CLIP_DTYPE)
    padded[: len(clips)] = clips
    by_clip = padded.reshape(persons, card.rows_per_sample, frames, joints, channels)
    result: np.ndarray = np.ascontiguousarray(by_clip.transpose(1, 0, 2, 3, 4))
    return result


def _scaled(keypoint: np.ndarray, image_shape: Any) -> np.ndarray:
    """Pixels to -1..1, in the type that they have. A joint at (0, 0), which is an absent one, goes to (-1, -1)."""
    height, width = image_shape
    if not (npy.is_size(height) and npy.is_size(width) and height and width):
        raise ValueError(f"its img_shape is {shown(image_shape)}")
    scaled: np.ndarray = keypoint.copy()
    for axis, size in ((0, width), (1, height)):
        scaled[..., axis] = (keypoint[..., axis] - size / 2) / (size / 2)
    return scaled


def _with_score(keypoint: np.ndarray, annotation: Annotation) -> np.ndarray:
    score = annotation["keypoint_score"]
    if score.shape != keypoint.shape[:-1]:
        raise ValueError(f"its keypoint_score has shape {score.shape}, not {keypoint.shape[:-1]}")
    scored: np.ndarray = np.concatenate([keypoint, score[..., None]], axis=-1)
    return scored


def _turned(bodies: np.ndarray) -> np.ndarray:
    """Frames without the main person left out, centred on its spine in the first, and turned.

    First its spine is turned to z, then its shoulders to x, which tips the spine again unless they are at right angles.
    Of two persons the main one is who is in more frames. Absent joints, which are all zero, stay zero.
    """
    with np.errstate(over="ignore"):  # a float16 sum, only whose being zero matters
        if bodies.sum() == 0:
            return bodies
    if len(bodies) > 2:
        raise ValueError(f"it has {len(bodies)} persons, and PreNormalize3D takes one or two")
    present = np.any(np.abs(bodies.astype(np.float64)) > 1e-8, axis=(2, 3))
    if len(bodies) == 2 and present[0].sum() < present[1].sum():
        bodies, present = bodies[::-1], present[::-1]
    if not present[0].any():
        raise ValueError("its persons are empty, and not zero")
    bodies = bodies[:, present[0]]
    seen = ((bodies != 0).sum(axis=-1) > 0)[..., None]
    bodies = (bodies - bodies[0, 0, MIDDLE_OF_SPINE].copy()) * seen
    for (start, end), target in ((SPINE, (0, 0, 1)), (SHOULDERS, (1, 0, 0))):
        turn = _rotation(bodies[0, 0, end] - bodies[0, 0, start], target)
        bodies = np.einsum("mtvc,dc->mtvd", bodies, turn)
    return bodies


def _rotation(vector: np.ndarray, target: Tuple[int, int, int]) -> np.ndarray:
    """The rotation, float64 (3, 3), that turns a vector to a target direction: Euler and Rodrigues' formula.

    The vector's own type rounds its norm, as numpy's does.
    """
    axis, goal = np.cross(vector, target), np.array(target)
    if np.abs(vector).sum() < 1e-6:
        angle = 0.0
    else:
        cosine = np.dot(vector / np.linalg.norm(vector), goal / np.linalg.norm(goal))
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    if np.abs(axis).sum() < 1e-6 or abs(angle) < 1e-6:
        return np.eye(3)
    a = np.cos(angle / 2)
    b, c, d = -(axis / np.sqrt(np.dot(axis, axis))) * np.sin(angle / 2)
    return np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c + a * d), 2 * (b * d - a * c)],
        [2 * (b * c - a * d), a * a + c * c - b * b - d * d, 2 * (c * d + a * b)],
        [2 * (b * d + a * c), 2 * (c * d - a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip


@lru_cache(maxsize=None)
def sampled_frames(total: int, frames: int = 100, clips: int = 10) -> np.ndarray:
    """Which of `total` frames the clips have, int64 (clips * frames,), the same for every sample of that length.

    Fewer than a clip needs are repeated from a start of each clip's own. Up to twice as many, some are left out; of
    more, one of each of `frames` equal segments is taken: which, is drawn from numpy's legacy generator.
    """
    random = np.random.RandomState(SEED)
    taken: List[np.ndarray] = []
    bounds = np.array([i * total // frames for i in range(frames + 1)])
    for clip in range(clips):
        if total < frames:
            start = clip if total < clips else clip * total // clips
            taken.append(np.arange(start, start + frames) % total)
        elif total < 2 * frames:
            left_out = np.zeros(frames + 1, np.int64)
            left_out[random.choice(frames + 1, total - frames, replace=False)] = 1
            taken.append(np.arange(frames) + np.cumsum(left_out)[:-1])
        else:
            taken.append(bounds[:-1] + random.randint(np.diff(bounds)))
    return np.concatenate(taken)


def _mapped(path: PathLike) -> mmap.mmap:
    try:
        with open_regular(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # the latter of an empty file
        raise InputError(f"can't read {path} ({getattr(error, 'strerror', error)}): check the path") from error


def _validation(path: PathLike, content: mmap.mmap) -> List[Annotation]:
    try:
        return _chosen(plain_pickle.load(content, numpy_pickle.MAPPED, spans=True))
    except plain_pickle.UnexpectedNameError as error:
        raise InputError(
            f"{path} names {error}, and annotations are lists, dicts and arrays: it may run code, don't trust it"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path} isn't an annotation file ({error}): give mmaction2's own, for instance ntu60_2d.pkl"
        ) from error


def _chosen(loaded: Any) -> List[Annotation]:
    """The annotations of the split SPLIT, or of a list without splits all."""
    split = None
    if isinstance(loaded, dict):
        splits, loaded = loaded.get("split"), loaded.get("annotations")
        split = splits.get(SPLIT) if isinstance(splits, dict) else None
        if not isinstance(split, list) or not all(isinstance(name, str) for name in split):
            raise ValueError(f"it has no split {SPLIT}")
    if not isinstance(loaded, list) or not all(isinstance(each, dict) for each in loaded):
        raise ValueError("it holds no list of annotations")
    chosen = set(split) if split is not None else None
    annotations = [each for each in loaded if chosen is None or _name(each) in chosen]
    if not annotations:
        raise ValueError(f"none of its {len(loaded)} annotations is of {SPLIT}")
    return annotations


def _name(annotation: Annotation) -> Any:
    name = annotation.get("filename", annotation.get("frame_dir"))
    return name if isinstance(name, str) else None


def _labels(path: PathLike, annotations: List[Annotation], card: Card) -> Labels:
    names, labels = [], []
    for index, annotation in enumerate(annotations):
        name, label = _name(annotation), annotation.get("label")
        if not is_name(name):
            raise InputError(
                f"the frame_dir of sample {index} in {path} isn't printable text of at most {NAME_LIMIT} characters: "
                "correct the annotation"
            )
        if type(label) is not int or not 0 <= label < card.classes:
            raise InputError(
                f"label {shown(label)} of sample {name} in {path} is outside 0..{card.classes - 1}: "
                "give the annotations of NTU RGB+D 60"
            )
        names.append(name)
        labels.append(label)
    return Labels(names, np.array(labels, np.int64))


def _with_arrays(annotation: Annotation, content: mmap.mmap) -> Annotation:
    """An annotation whose arrays are read, in this machine's order of bytes."""
    arrays = {}
    for key in ("keypoint", "keypoint_score"):
        if isinstance(annotation.get(key), numpy_pickle.MappedArray):
            array = annotation[key].read(content)
            arrays[key] = array.astype(array.dtype.newbyteorder("="))
        elif key in annotation:
            raise ValueError(f"its {key} isn't an array")
    if "keypoint" not in arrays:
        raise ValueError("it has no keypoint")
    return {**annotation, **arrays}
