"""The accuracy of sets of outputs, as the model's own `metrics` command computes it (docs/own-model.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploy.errors import KitError
from deploy.pipeline.model import Model, run_command
from stgcn import plain_json


def holds(off: Mapping[str, float], gates: Mapping[str, float], wrong: int, samples: int) -> bool:
    """Whether the gates hold over some of the samples, `wrong` of which get another answer than fp32's.

    Errors that cancel in a metric do not in the answers. Of few samples one may be a tie.
    """
    return all(error <= gates[key] for key, error in off.items()) and wrong <= max(
        1, int(min(gates.values()) * samples)
    )


class Score(BaseModel):
    """A value per metric; `counts` has the whole number that a share is of the samples, where the model tells it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    counts: dict[str, Annotated[int, Field(ge=0)]] = {}

    def as_json(self) -> dict[str, Any]:
        return {**{f"{key}_hits": count for key, count in self.counts.items()}, **self.metrics}


class _Scores(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    scores: list[Score]


def scores(model: Model, labels: Path, sets: Sequence[Sequence[Path]], samples: int) -> list[Score]:
    """The score of each set of outputs (a .npy per output of the model) over the first so many samples.

    Raises:
        KitError: the command's own sentence, or what it wrote is not of the form.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        options = ["--labels", str(labels), "--samples", str(samples), "--result", str(path)]
        for outputs in sets:
            options += ["--outputs", ",".join(map(str, outputs))]
        run_command(model, "metrics", *options)
        try:
            found = _Scores.model_validate_json(json.dumps(plain_json.load(path))).scores
        except (OSError, ValidationError, ValueError) as error:
            raise KitError(f"{model.card.package}.metrics wrote no scores ({error}); see docs/own-model.md") from None
    keys = {metric.key for metric in model.card.metrics}
    if len(found) != len(sets) or any(score.metrics.keys() != keys or score.counts.keys() - keys for score in found):
        raise KitError(
            f"{model.card.package}.metrics did not write {', '.join(sorted(keys))} of {len(sets)} sets; "
            "see docs/own-model.md"
        )
    return found
