"""Clips as the page draws them: joints of two persons, frame after frame, a byte a coordinate."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from stgcn.skeletons import OPENPOSE

FRAMES_A_SECOND = 15  # the dataset's 30, every second one
_ABSENT = 255  # in place of a coordinate
_SCALE = 254


def drawing(clip: np.ndarray) -> dict[str, Any]:
    """A clip (3, 300, 18, 2) as {"persons", "frames", "width", "height", "joints"}.

    `joints` is base64 of uint8 (frames, persons, 18, 2): x to the right, y downwards, scaled so that the longer side of
    the box that holds every joint is 254; 255 where a joint was not seen. Padding behind the last frame is left out.
    """
    position, score = clip[:2], clip[2]
    seen = (score > 0) & np.isfinite(position).all(axis=0)  # (300, 18, 2)
    persons = [p for p in range(seen.shape[2]) if seen[:, :, p].any()]
    if not persons:
        return {"persons": 0, "frames": 0, "width": _SCALE, "height": _SCALE, "joints": ""}
    last = int(np.flatnonzero(seen.any(axis=(1, 2)))[-1]) + 1
    seen = seen[:last:2, :, persons].transpose(0, 2, 1)  # (frames, persons, 18)
    points = position[:, :last:2, :, persons].transpose(1, 3, 2, 0)  # (frames, persons, 18, 2)
    low, high = points[seen].min(axis=0), points[seen].max(axis=0)
    size = np.maximum(high - low, 1e-6)
    scaled = np.where(seen[..., None], np.rint((points - low) / size.max() * _SCALE), _ABSENT)
    width, height = np.rint(size / size.max() * _SCALE).astype(int)
    return {
        "persons": len(persons),
        "frames": len(points),
        "width": int(width),
        "height": int(height),
        "joints": base64.b64encode(scaled.astype(np.uint8).tobytes()).decode(),
    }


def skeleton() -> dict[str, Any]:
    """What the page needs to draw: joints, limbs (pairs of joints), sides, the head's joint, frames per second."""
    return {
        "joints": 18,
        "limbs": [list(bone) for bone in OPENPOSE.edges],
        "left": [5, 6, 7, 11, 12, 13, 15, 17],
        "right": [2, 3, 4, 8, 9, 10, 14, 16],
        "head": 0,
        "rate": FRAMES_A_SECOND,
    }
