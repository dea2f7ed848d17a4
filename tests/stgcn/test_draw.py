"""Rows of every model as bodies on a picture."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from stgcn.cards import CARDS, card_of
from stgcn.draw import ABSENT, SCALE, drawing, main


def joints_of(found: dict, joints: int) -> np.ndarray:
    shape = (found["frames"], found["persons"], joints, 2)
    return np.frombuffer(base64.b64decode(found["joints"]), np.uint8).reshape(shape)


def test_a_clip_keeps_its_persons_frames_and_shape() -> None:
    clip = np.zeros((3, 300, 18, 2), np.float32)
    clip[0, :100, :, 1] = np.linspace(-0.4, 0.4, 18)
    clip[1, :100, :, 1] = np.linspace(0, 0.2, 18)
    clip[2, :100, :, 1] = 0.5
    clip[2, :100, 3, 1] = 0
    found = drawing(clip, card_of("st_gcn.kinetics"))
    assert (found["persons"], found["frames"], found["width"]) == (1, 50, SCALE)
    assert found["height"] == pytest.approx(SCALE / 4, abs=1)
    joints = joints_of(found, 18)
    assert joints[0, 0, 0].tolist() == [0, 0]
    assert joints[0, 0, 17].tolist() == [SCALE, found["height"]]
    assert joints[0, 0, 3].tolist() == [ABSENT, ABSENT]


@pytest.mark.parametrize("name", CARDS)
def test_nobody_is_drawn_of_an_empty_row(name: str) -> None:
    card = card_of(name)
    assert drawing(np.zeros(card.shape(), np.float32), card)["persons"] == 0


@pytest.mark.parametrize("name", CARDS)
def test_the_head_of_a_standing_body_is_above_its_feet(name: str) -> None:
    """In each model's own axes: 2D pictures have y down, mmskeleton's 3D y up, mmaction2's pipeline z up."""
    card = card_of(name)
    names = card.skeleton.joints
    head = names.index("head" if "head" in names else "nose")
    foot = names.index("left ankle")
    body = np.full((1, 10, len(names), 3), 0.5, np.float32)  # persons, frames, joints, channels
    vertical = 1 if card.skeleton.dimensions == 2 or not card.is_annotated else 2
    up = -1 if card.skeleton.dimensions == 2 else 1
    body[..., head, vertical], body[..., foot, vertical] = 0.5 + 0.4 * up, 0.5 - 0.4 * up
    persons = np.concatenate([body, np.zeros_like(body)])
    row = np.zeros(card.shape(), np.float32)
    if card.is_annotated:
        row[:, :10] = persons
    else:
        row[:, :10] = persons.transpose(3, 1, 2, 0)
    found = drawing(row, card)
    assert (found["persons"], found["frames"]) == (1, 5)
    joints = joints_of(found, len(names))
    assert joints[0, 0, head, 1] == 0
    assert joints[0, 0, foot, 1] == found["height"] == SCALE


def test_the_command_draws_every_row(tmp_path: Path) -> None:
    card = card_of("st_gcn.ntu-xsub")
    np.save(tmp_path / "rows.npy", np.ones((3, *card.shape()), np.float32))
    main(["--model", card.name, "--inputs", str(tmp_path / "rows.npy"), "--output", str(tmp_path / "drawn.json")])
    content = json.loads((tmp_path / "drawn.json").read_text())
    assert content["format"] == 1
    assert content["limbs"] == [list(edge) for edge in card.skeleton.edges]
    assert len(content["samples"]) == 3
