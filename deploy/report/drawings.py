"""The noted samples as their model draws them, for the page."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from deploy.errors import KitError
from deploy.pipeline.model import Model, Skeleton, run_command
from stgcn import plain_json

HEADS = ("head", "nose")  # the joint that stands for the head, where the model has one of these

Byte = Annotated[int, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=0, le=10_000)]


class Drawing(BaseModel):
    """One sample; `joints` is base64 of uint8 (frames, persons, joints, 2)."""

    persons: Count
    frames: Count
    width: Byte
    height: Byte
    joints: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=1 << 20)]


class _Drawn(BaseModel):
    format: Literal[1]
    frames_per_second: Annotated[float, Field(gt=0, le=1000)]
    limbs: list[tuple[Count, Count]]
    samples: list[Drawing]


@dataclass(frozen=True)
class Drawings:
    """`skeleton` is what the page's script needs to draw `samples`."""

    skeleton: Mapping[str, Any] | None = None
    samples: Mapping[int, Mapping[str, Any]] | None = None


def draw(model: Model, rows: Mapping[int, np.ndarray]) -> Drawings:
    """Have the model draw one row of each sample.

    Raises:
        KitError: it does not, or what it wrote is of another form.
    """
    if not rows or model.card.skeleton is None:
        return Drawings()
    with tempfile.TemporaryDirectory() as folder:
        given, path = Path(folder) / "rows.npy", Path(folder) / "drawings.json"
        np.save(given, np.stack(list(rows.values())))
        run_command(model, "draw", "--inputs", str(given), "--output", str(path))
        try:
            drawn = _Drawn.model_validate(plain_json.load(path))
        except (OSError, ValueError, ValidationError) as error:
            raise KitError(
                f"{model.card.package}.draw wrote what is no drawing ({error}); see docs/own-model.md"
            ) from None
    if len(drawn.samples) != len(rows):
        raise KitError(f"{model.card.package}.draw drew {len(drawn.samples)} samples of {len(rows)}")
    samples = dict(zip(rows, (sample.model_dump() for sample in drawn.samples), strict=True))
    return Drawings(_skeleton(model.card.skeleton, drawn), samples)


def _skeleton(skeleton: Skeleton, drawn: _Drawn) -> dict[str, Any]:
    head = next((skeleton.joints.index(name) for name in HEADS if name in skeleton.joints), None)
    sides = {"left": skeleton.left, "right": skeleton.right}
    limbs = [list(limb) for limb in drawn.limbs]
    return {"joints": len(skeleton.joints), "limbs": limbs, **sides, "head": head, "rate": drawn.frames_per_second}
