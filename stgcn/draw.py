"""Samples as bodies that the verdict's page draws (docs/own-model.md):

    python -m stgcn.draw --inputs rows.npy --output drawings.json [--model NAME]

A byte per coordinate: joints of each person, frame after frame, x to the right and y downwards.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from stgcn import npy
from stgcn.cards import Card, card_of, program
from stgcn.errors import InputError, run_main
from stgcn.files import write_whole

FORMAT = 1
ABSENT = 255  # in place of a coordinate
SCALE = 254
FRAMES_PER_SECOND = 15  # every second frame of the datasets' 30


def positions(row: np.ndarray, card: Card) -> Tuple[np.ndarray, np.ndarray]:
    """Where each joint is on a picture, (frames, persons, joints, 2), and whether it was seen, without the last axis.

    A row is (channels, frames, joints, persons), or with mmaction2 (persons, frames, joints, channels). Of 3D joints
    mmskeleton's y is up; mmaction2's pipeline has turned the spine along z.
    """
    values = row.transpose(1, 0, 2, 3) if card.is_annotated else row.transpose(1, 3, 2, 0)
    values = values.astype(np.float32)
    seen = np.isfinite(values).all(axis=-1) & values.any(axis=-1)
    if card.skeleton.dimensions == 2:
        return values[..., :2], seen & (values[..., 2] > 0)
    up = 2 if card.is_annotated else 1
    return np.stack([values[..., 0], -values[..., up]], axis=-1), seen


def drawing(row: np.ndarray, card: Card) -> Dict[str, Any]:
    """A row as {"persons", "frames", "width", "height", "joints"}; padding behind the last frame is left out.

    `joints` is base64 of uint8 (frames, persons, joints, 2), scaled so that the longer side of the box that holds every
    joint is SCALE; ABSENT where a joint was not seen. Persons who are nowhere are left out.
    """
    places, seen = positions(row, card)
    persons = [person for person in range(seen.shape[1]) if seen[:, person].any()]
    if not persons:
        return {"persons": 0, "frames": 0, "width": SCALE, "height": SCALE, "joints": ""}
    last = int(np.flatnonzero(seen.any(axis=(1, 2)))[-1]) + 1
    places, seen = places[:last:2, persons], seen[:last:2, persons]
    if not seen.any():  # seen in frames that are not drawn
        return {"persons": 0, "frames": 0, "width": SCALE, "height": SCALE, "joints": ""}
    low, high = places[seen].min(axis=0), places[seen].max(axis=0)
    size = np.maximum(high - low, 1e-6)
    scaled = np.where(seen[..., None], np.rint((places - low) / size.max() * SCALE), ABSENT)
    width, height = np.rint(size / size.max() * SCALE).astype(int)
    return {
        "persons": len(persons),
        "frames": len(places),
        "width": int(width),
        "height": int(height),
        "joints": base64.b64encode(scaled.astype(np.uint8).tobytes()).decode(),
    }


def main(argv: Optional[List[str]] = None) -> None:
    """Draw the rows of a file."""
    parser = program("draw", main.__doc__)
    parser.add_argument("--inputs", required=True, help=".npy of the rows")
    parser.add_argument("--output", required=True, help="JSON to write")
    options = parser.parse_args(argv)
    card = card_of(options.model)
    try:
        rows = npy.load(options.inputs)
        if rows.shape[1:] != card.shape():
            raise ValueError(f"rows of {rows.shape[1:]}, not of {card.shape()}")
    except (OSError, ValueError) as error:
        raise InputError(f"can't draw {options.inputs} ({error}): make it again") from error
    content = {
        "format": FORMAT,
        "frames_per_second": FRAMES_PER_SECOND,
        "limbs": [list(edge) for edge in card.skeleton.edges],
        "samples": [drawing(row, card) for row in rows],
    }
    write_whole(options.output, json.dumps(content).encode())


if __name__ == "__main__":
    run_main(main)
