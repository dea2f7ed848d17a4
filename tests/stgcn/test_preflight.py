"""Known mistakes of datasets, each made here of a sound one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, List

import numpy as np
import pytest

from stgcn import index
from stgcn.cards import CARDS, KINETICS, Card
from stgcn.preflight import Preflight
from tests.stgcn.conftest import write_labels

XSUB = CARDS["st_gcn.ntu-xsub"]


def sound(card: Card = KINETICS, clips: int = 16) -> np.ndarray:
    """Clips of a person who moves, whole in the picture, and in half of them of a second; padded with zeros."""
    random = np.random.RandomState(0)
    made = np.zeros((clips, *card.row_shape), np.float32)
    for number, clip in enumerate(made):
        frames = 60 + 10 * number
        for person in range(1 + number % 2):
            shape = (3, frames, card.joints)
            values = random.uniform(-0.4, 0.4, size=shape)
            values[2] = random.uniform(0.1, 0.9, size=shape[1:]) if card is KINETICS else 3 + values[2]
            seen = random.uniform(size=shape[1:]) < 0.9
            clip[:, :frames, :, person] = values * seen
    return made


def warnings(clips: np.ndarray, card: Card = KINETICS, names: Any = None, labels: Any = None) -> List[str]:
    preflight = Preflight(card)
    for first in range(0, len(clips), 3):
        preflight.add(clips[first : first + 3])
    count = len(clips)
    given = [f"n{i}" for i in range(count)] if names is None else names
    return preflight.warnings(given, np.zeros(count, np.int64) if labels is None else np.array(labels))


@pytest.mark.parametrize("card", [card for card in CARDS.values() if card.network == "st_gcn"], ids=lambda c: c.name)
def test_nothing_is_said_of_a_sound_one(card: Card) -> None:
    assert warnings(sound(card), card) == []


def absent_centred(clips: np.ndarray) -> None:
    clips[:, :2][np.repeat((clips[:, 2:] == 0), 2, axis=1)] = -0.5


def bodies_on_a_point(clips: np.ndarray) -> None:
    clips -= np.array([0.1, 0.2, 0.0])[:, None, None, None] * ~clips.any(axis=(1, 3), keepdims=True)


def in_pixels(clips: np.ndarray) -> None:
    clips[:, :2] = (clips[:, :2] + 0.5) * 300 * (clips[:, 2:] > 0)


def not_centred(clips: np.ndarray) -> None:
    clips[:, :2] = (clips[:, :2] + 0.5) * (clips[:, 2:] > 0)


def twice_as_large(clips: np.ndarray) -> None:
    clips[:, :2] *= 2


def second_repeated(clips: np.ndarray) -> None:
    clips[..., 1] = clips[..., 0]


def without_score(clips: np.ndarray) -> None:
    clips[:, 2] = 0


def with_full_score(clips: np.ndarray) -> None:
    clips[:, 2] = clips[:, 2] > 0


def with_depth(clips: np.ndarray) -> None:
    clips[:, 2] = 3 * (clips[:, 2] > 0) - 5 * (clips[:, 2] > 0.5)


def all_zero(clips: np.ndarray) -> None:
    clips[1:] = 0


@pytest.mark.parametrize(
    ("mistake", "fault"),
    [
        (absent_centred, "absent joints are not zero"),
        (bodies_on_a_point, "absent (persons|joints) are not zero"),
        (in_pixels, "in pixels"),
        (not_centred, "not centred: subtract 0.5"),
        (twice_as_large, "beyond -0.5..0.5"),
        (second_repeated, "repeats the first"),
        (without_score, "score channel is zero"),
        (with_full_score, "scores are missing"),
        (with_depth, "it is no score"),
        (all_zero, "15 of 16 clips are all zero"),
    ],
)
def test_a_mistake_in_a_picture_is_told_alone(mistake: Callable[[np.ndarray], None], fault: str) -> None:
    clips = sound()
    mistake(clips)
    (warning,) = warnings(clips)
    assert re.search(fault, warning)


def in_millimetres(clips: np.ndarray) -> None:
    clips *= 1000


def centred_on_a_body(clips: np.ndarray) -> None:
    clips[:, 2] -= 3 * (clips[:, 2] > 0)


def padded_by_repeating(clips: np.ndarray) -> None:
    for clip in clips:
        clip[:] = np.resize(clip[:, :60].transpose(1, 0, 2, 3), clip.transpose(1, 0, 2, 3).shape).transpose(1, 0, 2, 3)


@pytest.mark.parametrize(
    ("mistake", "fault"),
    [
        (in_millimetres, "metres"),
        (centred_on_a_body, "centred on a body"),
        (padded_by_repeating, "pad with zeros"),
        (bodies_on_a_point, "absent persons are not zero"),
        (second_repeated, "repeats the first"),
    ],
)
def test_a_mistake_in_camera_coordinates_is_told_alone(mistake: Callable[[np.ndarray], None], fault: str) -> None:
    clips = sound(XSUB)
    mistake(clips)
    (warning,) = warnings(clips, XSUB)
    assert fault in warning


def ntu(subject: int, camera: int, action: int, take: int = 1) -> str:
    return f"S001C{camera:03}P{subject:03}R{take:03}A{action:03}.skeleton"


class TestLabels:
    def test_the_names_of_ntu_say_their_class(self) -> None:
        names = [ntu(3, 1, action) for action in range(1, 17)]
        right = np.arange(16)
        assert warnings(sound(XSUB), XSUB, names, right) == []
        (warning,) = warnings(sound(XSUB), XSUB, names, right + 1)
        assert "subtract 1" in warning
        (warning,) = warnings(sound(XSUB), XSUB, names, right[::-1])
        assert re.search(f"16 labels .*{names[0]}.* one order", warning)

    @pytest.mark.parametrize(("name", "subject", "camera"), [("st_gcn.ntu-xsub", 1, 1), ("st_gcn.ntu-xview", 3, 2)])
    def test_the_names_of_ntu_say_their_split(self, name: str, subject: int, camera: int) -> None:
        names = [ntu(3, 1, 1, take) for take in range(15)] + [ntu(subject, camera, 1)]
        (warning,) = warnings(sound(CARDS[name]), CARDS[name], names)
        assert "1 of 16 samples are of the training split" in warning

    def test_names_of_another_dataset_and_twice_the_same_are_told(self) -> None:
        assert "set the model" in warnings(sound(), names=[ntu(3, 1, 1, take) for take in range(16)])[0]
        assert "same" in warnings(sound(), names=["same"] * 16)[0]

    def test_the_training_splits_size_and_what_its_classes_hold_are_told(self) -> None:
        def of_labels(labels: np.ndarray) -> List[str]:
            return Preflight(KINETICS).warnings([str(i) for i in range(len(labels))], labels)

        even = np.arange(19796) % 400
        assert of_labels(even) == []
        assert "training split" in of_labels(np.arange(240436) % 400)[0]
        assert "at most 50" in of_labels(even[np.r_[0:10000, 0:9796]] // 2)[0]
        assert "subtract 1" in of_labels(1 + np.arange(8000) % 399)[0]


def test_the_index_says_what_it_found_and_keeps_it(tmp_path: Path, capsys: Any) -> None:
    clips = sound()
    in_pixels(clips)
    np.save(str(tmp_path / "d.npy"), clips)
    labels = write_labels(tmp_path / "l.pkl", list(range(16)))
    options = ["--data_path", str(tmp_path / "d.npy"), "--label_path", str(labels), "--output_dir", str(tmp_path)]
    index.main(options)
    assert "warning: x and y reach" in capsys.readouterr().out
    found = index.write_index(tmp_path / "d.npy", labels, tmp_path)["preflight"]
    assert len(found["warnings"]) == 1
    assert found["channels"][0]["max"] == clips[:, 0].max()
    assert found["frames_in_use"] == {"min": 60, "median": 140, "max": 210}
    assert found["absent_persons"] == [0, 0.5]
    assert found["empty_frames"] == pytest.approx(1 - np.mean([60 + 10 * i for i in range(16)]) / 300)
    assert sum(found["samples_per_class"]) == found["samples_per_class"].count(1) == 16
