"""What a dataset's clips and labels tell of known mistakes, before hours are spent on a wrong accuracy.

Ranges are those of the converters in mmskeleton: of Kinetics-skeleton x and y within -0.5..0.5 and a score within 0..1,
of NTU RGB+D x, y and depth in metres as the camera saw them; in both an absent person is all zero.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any, Dict, List

import numpy as np

from stgcn.cards import Card

NTU_NAME = re.compile(r"S\d{3}C(\d{3})P(\d{3})R\d{3}A(\d{3})")
# Of which the two benchmarks train: Shahroudy et al., NTU RGB+D, CVPR 2016
XSUB_TRAINING_SUBJECTS = {1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38}
XVIEW_TRAINING_CAMERAS = {2, 3}
TRAINING_SAMPLES = {"st_gcn.kinetics": 240436, "st_gcn.ntu-xsub": 40091, "st_gcn.ntu-xview": 37646}
KINETICS_VALIDATION_CLIPS = 50  # of a class, at most

HALF_IMAGE = 0.55  # how far from the centre a joint may be, with room for rounding
FEW = 0.01  # share of joints or bodies that may be odd
ENOUGH = 5  # samples per class, from which on a class without any is odd


def _any_channel(flags: np.ndarray) -> np.ndarray:
    """Whether any of the channels of (n, C, ...) is flagged, (n, ...)."""
    return functools.reduce(np.logical_or, flags.swapaxes(0, 1))


def _any_joint(flags: np.ndarray, persons: int) -> np.ndarray:
    """Whether any of the joints (..., V * M) of each person is flagged, (..., M)."""
    of_person = np.tile(np.eye(persons, dtype=np.float32), (flags.shape[-1] // persons, 1))
    counted: np.ndarray = flags.astype(np.float32) @ of_person > 0
    return counted


def _differs(values: np.ndarray, distance: int) -> np.ndarray:
    """Whether each value of an array differs from that which is so many places behind it, of the values' shape: in one
    go over the whole array, since numpy is slow on pieces of its rows. The last ones of a row tell of the next row."""
    flat = values.reshape(-1)
    found = np.zeros(flat.shape, bool)
    np.not_equal(flat[distance:], flat[:-distance], out=found[:-distance])
    return found.reshape(values.shape)


class Preflight:
    """Counts over the clips that it is given; then what they are, and what is wrong."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._persons_first = card.network != "st_gcn"
        self._clips = self._seen = self._unscored = self._full_score = self._far = 0
        self._bodies = self._points = self._twins = 0
        self._used: List[int] = []
        self._empty_frames = 0
        self._absent: np.ndarray = np.zeros(0)
        self._low = self._high = self._sum = self._size = np.zeros(0)

    def add(self, rows: np.ndarray) -> None:
        """Take in clips, float32 (n, *row_shape)."""
        clips = np.ascontiguousarray(rows.transpose(0, 4, 2, 3, 1)) if self._persons_first else rows
        sizes = np.abs(clips)
        self._count_ranges(clips, sizes)
        persons = clips.shape[4]
        values = clips.reshape(*clips.shape[:3], -1)  # (n, C, T, V * M): numpy is slow on axes as short as persons
        present = values != 0
        placed = _any_channel(present[:, : self._card.skeleton.dimensions])
        seen = _any_channel(present)  # (n, T, V * M)
        bodies = _any_joint(seen, persons)  # (n, T, M)
        frames: Any = np.any(bodies, axis=2)  # (n, T)
        self._clips += len(clips)
        self._seen += int(np.count_nonzero(seen))
        self._bodies += int(np.count_nonzero(bodies))
        self._empty_frames += int(np.count_nonzero(~frames))
        last = frames.shape[1] - frames[:, ::-1].argmax(axis=1)
        self._used += np.where(frames.any(axis=1), last, 0).tolist()
        absent = np.count_nonzero(~bodies.any(axis=1), axis=0)
        self._absent = absent if not self._absent.size else self._absent + absent
        moved = _differs(values, persons)[:, : self._card.skeleton.dimensions, :, :-persons]  # to the next joint
        spread = _any_joint(_any_channel(moved), persons)
        self._points += int(np.count_nonzero(bodies & ~spread))
        if persons > 1:
            same = ~_differs(values, 1).reshape(len(clips), -1, persons)[..., 0].any(axis=1)
            self._twins += int(np.count_nonzero(same & frames.any(axis=1)))
        if self._card.skeleton.dimensions == 2:
            self._unscored += int(np.count_nonzero(placed & ~present[:, 2]))
            self._full_score += int(np.count_nonzero(values[:, 2] == 1))
            self._far += int(np.count_nonzero(_any_channel(sizes.reshape(values.shape)[:, :2] > HALF_IMAGE)))

    def _count_ranges(self, clips: np.ndarray, sizes: np.ndarray) -> None:
        axes = (0, 2, 3, 4)
        low, high = clips.min(axis=axes), clips.max(axis=axes)
        total = clips.sum(axis=axes, dtype=np.float64)
        size = sizes.sum(axis=axes, dtype=np.float64)
        if not self._low.size:
            self._low, self._high, self._sum, self._size = low, high, total, size
        else:
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
            self._sum, self._size = self._sum + total, self._size + size

    def facts(self, labels: np.ndarray) -> Dict[str, Any]:
        """What `dataset.json` keeps of it. Ranges are over all values, means over the joints that are seen."""
        used, every = sorted(self._used), max(self._clips, 1)
        return {
            "channels": [
                {"min": float(low), "max": float(high), "mean": float(mean)}
                for low, high, mean in zip(self._low, self._high, self._mean(self._sum))
            ],
            "empty_frames": self._empty_frames / (every * self._frames()),
            "absent_persons": [float(count) / every for count in self._absent],
            "empty_clips": used.count(0),
            "frames_in_use": {"min": used[0], "median": used[len(used) // 2], "max": used[-1]} if used else None,
            "samples_per_class": np.bincount(labels, minlength=self._card.classes).tolist(),
            "published_samples": self._card.published.samples,
        }

    def warnings(self, names: List[str], labels: np.ndarray) -> List[str]:
        """A sentence for each known mistake, with its cure."""
        found = self._of_bodies()
        if self._seen and not self._persons_first:
            found += self._of_image() if self._card.skeleton.dimensions == 2 else self._of_camera()
        return found + self._of_labels(names, labels)

    def _mean(self, total: np.ndarray) -> np.ndarray:
        mean: np.ndarray = total / max(self._seen, 1)
        return mean

    def _frames(self) -> int:
        return self._card.row_shape[1]

    def _of_bodies(self) -> List[str]:
        found = []
        empty = self._used.count(0)
        if empty > self._clips / 2:
            found.append(f"{empty} of {self._clips} clips are all zero: convert the dataset again")
        misplaced = (
            self._points > FEW * self._bodies and self._unscored <= FEW * self._seen
        )  # that has its own sentence
        if misplaced and not self._persons_first:
            found.append(
                f"in {self._points / self._bodies:.0%} of the frames with a person all joints lie on one point, so "
                "absent "
                "persons are not zero: set them to zero after centring"
            )
        if self._twins > max(1, FEW * self._clips):
            found.append(
                f"the second person of {self._twins} of {self._clips} clips repeats the first: leave an absent person "
                "zero"
            )
        return found

    def _is_misplaced(self) -> bool:
        """Whether absent persons lie on a point other than zero; mmaction2's pipeline leaves absent joints on one."""
        return self._points > FEW * self._bodies and not self._persons_first

    def _of_image(self) -> List[str]:
        """Mistakes in x, y and score."""
        found = []
        low, high, score = self._low[:2], self._high[:2], (self._low[2], self._high[2])
        mean, size = self._mean(self._sum)[:2], self._mean(self._size)[:2]
        if score == (0, 0):
            found.append(
                "the score channel is zero throughout, so it is missing: convert with the pose estimator's scores"
            )
        elif self._full_score >= self._seen:
            found.append("every score is 1, so the scores are missing: convert with the pose estimator's scores")
        elif score[0] < 0 or score[1] > 2:
            found.append(
                f"the third channel is within {score[0]:.4g}..{score[1]:.4g} and scores are within 0..1: it is no "
                "score, "
                "convert with the pose estimator's scores"
            )
        elif self._unscored > FEW * self._seen:
            found.append(
                f"{self._unscored / self._seen:.0%} of the joints have a place and no score, so absent joints are not "
                "zero: "
                "set x and y to zero where the score is zero, after centring"
            )
        if size.max() > 2:
            found.append(
                f"x and y reach {max(high.max(), -low.min()):.4g}, so they are in pixels: divide by the width and "
                "height of "
                "the image, then subtract 0.5"
            )
        elif low.min() >= 0 and mean.min() > 0.2:
            found.append("x and y are never negative, so they are not centred: subtract 0.5, but from absent joints")
        elif self._far > 0.1 * self._seen:
            found.append(
                f"{self._far / self._seen:.0%} of the joints lie beyond -0.5..0.5: divide x and y by the width and "
                "height "
                "of the image, then subtract 0.5"
            )
        return found

    def _of_camera(self) -> List[str]:
        """Mistakes in x, y and depth."""
        if self._mean(self._size).max() > 50:
            return [
                f"coordinates reach {self._high.max():.4g}, so they are no metres: give the camera's x, y and z in "
                "metres, "
                "neither pixels nor millimetres"
            ]
        found = []
        if self._mean(self._sum)[2] < 0.3:
            found.append(
                f"the depth is {self._mean(self._sum)[2]:.2g} m on average, so the coordinates are centred on a body: "
                "give "
                "those of the camera, as mmskeleton's converter leaves them"
            )
        if self._clips >= 16 and min(self._used) == self._frames() and not self._is_misplaced():
            found.append(
                f"every clip fills all {self._frames()} frames, so short ones were padded by repeating them: pad with "
                "zeros"
            )
        return found

    def _of_labels(self, names: List[str], labels: np.ndarray) -> List[str]:
        found = []
        card, samples = self._card, len(labels)
        if samples == TRAINING_SAMPLES.get(card.name):
            found.append(
                f"{samples} samples are those of the training split: give the validation split's data and labels"
            )
        counts = np.bincount(labels, minlength=card.classes)
        if samples >= ENOUGH * card.classes and not counts[0] and counts[1:].all():
            found.append("no sample has label 0 and every other has some, so they may be counted from 1: subtract 1")
        if card.name == "st_gcn.kinetics" and samples == card.published.samples:
            most = int(counts.max())
            if most > KINETICS_VALIDATION_CLIPS:
                found.append(
                    f"a class has {most} samples and in the validation split at most {KINETICS_VALIDATION_CLIPS}: give "
                    "the "
                    "validation split's labels"
                )
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            found.append(
                f"{len(repeated)} names stand more than once ({repeated[0]}), so names are mixed up: remake the label "
                "file"
            )
        return found + self._of_ntu_names(names, labels)

    def _of_ntu_names(self, names: List[str], labels: np.ndarray) -> List[str]:
        """A name of NTU RGB+D says class, subject and camera."""
        said = [(index, match) for index, match in enumerate(map(NTU_NAME.match, names)) if match]
        if not said:
            return []
        card = self._card
        if card.name == "st_gcn.kinetics":
            return [
                f"{len(said)} names are those of NTU RGB+D ({names[said[0][0]]}): set the model to that of the dataset"
            ]
        found = []
        wrong = [index for index, match in said if int(match.group(3)) - 1 != labels[index]]
        if wrong:
            one = wrong[0]
            cure = "make the label file again, with names and labels in one order"
            if all(int(match.group(3)) == labels[index] for index, match in said):
                cure = "they are counted from 1, so subtract 1"
            found.append(
                f"{len(wrong)} labels are not the class that the sample's name says ({names[one]}: {labels[one]}): "
                f"{cure}"
            )
        group, training = (1, XVIEW_TRAINING_CAMERAS) if card.name.endswith("xview") else (2, XSUB_TRAINING_SUBJECTS)
        trained = sum(int(match.group(group)) in training for _, match in said)
        if trained:
            found.append(
                f"{trained} of {len(names)} samples are of the training split by their names: give the validation "
                "split of "
                "the model's benchmark"
            )
        return found
