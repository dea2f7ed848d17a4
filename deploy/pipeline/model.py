"""The model as this side knows it: a card (`model.json`), and the package whose commands do what only the model can.

docs/own-model.md is the contract. A card of the kit's own is in stgcn/cards.py, that of one's own in
FOLDER/model.json; the export writes it to gpu/model.json with the inputs and outputs of the graph that it wrote.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from deploy.errors import KitError, did_you_mean
from deploy.interrupt import ended_by_interrupt
from deploy.inventory import Inventory
from deploy.pipeline.sources import sources_sha256
from stgcn import cards, plain_json

FORMAT = 1
COMMAND_S = 3600  # that a command on this side may take
BUNDLED = Path(cards.__file__).resolve().parent  # the package of the kit's own models
CARD = "model.json"

# numpy's names of the types, little-endian, and their bytes per value
DTYPES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$")]  # also the name of a file
Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
Module = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Joint = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Capability = Literal["bench", "fold", "labels", "blocks", "draw", "sample"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)  # built when first used


class Tensor(_Part):
    """An input or an output of the ONNX; `shape` is a row's, without the batch."""

    name: TensorName
    dtype: Literal["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]
    shape: list[PositiveInt]

    @property
    def row_bytes(self) -> int:
        return DTYPES[self.dtype] * math.prod(self.shape)


class Metric(_Part):
    """One figure of accuracy; `gate` is the relative error that passes, the inventory's where it is null."""

    key: Key
    title: Line
    better: Literal["higher", "lower"]
    unit: Literal["share", "number"] = "share"  # a share is shown in percent
    gate: Annotated[float, Field(gt=0, lt=1)] | None = None


class Skeleton(_Part):
    """What draws a sample's bodies; joints are counted from 0."""

    joints: list[Line]
    limbs: list[tuple[Joint, Joint]]
    left: list[Joint]
    right: list[Joint]
    dimensions: Literal[2, 3]


class Published(_Part):
    """The published accuracy: of the checkpoint whose sha256 begins so, on that many samples."""

    samples: PositiveInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    metrics: dict[Key, Finite]
    data_url: Line | None = None  # where the validation set is published
    checkpoint_url: Line | None = None


class Guide(_Part):
    """Another's figures, shown beside one's own; throughput in samples/s by batch size."""

    chip: Line
    metrics: dict[Key, Finite]
    throughput: dict[
        Annotated[str, Field(pattern=r"^[1-9][0-9]*$")], Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ]


class Files(_Part):
    """What the inventory says by default."""

    data: Line
    labels: Line
    checkpoint: Line


class Card(_Part):
    """What `model.json` holds (format 1)."""

    format: Literal[1]
    name: Name
    title: Line
    package: Module
    inputs: Annotated[list[Tensor], Field(min_length=1)]
    outputs: Annotated[list[Tensor], Field(min_length=1)]
    metrics: Annotated[list[Metric], Field(min_length=1)]
    rows_per_sample: PositiveInt = 1
    classes: list[Line] | None = None
    skeleton: Skeleton | None = None
    published: Published | None = None
    guide: Guide | None = None
    files: Files | None = None
    variants: Annotated[list[Name], Field(min_length=1)] = ["reference"]
    persons: Annotated[list[Literal["both", "nonempty"]], Field(min_length=1)] = ["both"]
    sources: list[Name] = []
    capabilities: list[Capability] = []

    @property
    def stem(self) -> str:
        """What the files of the graph are called: the name up to its first dot."""
        return self.name.partition(".")[0]

    def gates(self, default: float) -> dict[str, float]:
        """By metric, the relative error that passes: its own, else the inventory's."""
        return {metric.key: metric.gate or default for metric in self.metrics}

    @field_validator("inputs", "outputs", "metrics")
    @classmethod
    def _distinct(cls, parts: list[Tensor] | list[Metric]) -> list[Tensor] | list[Metric]:
        names = [part.key if isinstance(part, Metric) else part.name for part in parts]
        if len(set(names)) != len(names):
            raise ValueError("give each a name of its own")
        return parts

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        known = {metric.key for metric in self.metrics}
        for part in (self.published, self.guide):
            if part and set(part.metrics) - known:
                raise ValueError(f"{sorted(set(part.metrics) - known)[0]} is not among `metrics`")
        if self.classes is not None and self.outputs[0].shape != [len(self.classes)]:
            raise ValueError(f"`classes` names {len(self.classes)}, and the first output is {self.outputs[0].shape}")
        if self.rows_per_sample > 1 and "fold" not in self.capabilities:
            raise ValueError("rows_per_sample above 1 needs the command `fold` among `capabilities`")
        return self


def input_files(inventory: Inventory, card: Card) -> Files:
    """What the model reads: as the inventory names it, else as its card does.

    Raises:
        KitError: neither does.
    """
    named, default = inventory.dataset, card.files
    if named and inventory.checkpoint:
        return Files(data=named.data, labels=named.labels, checkpoint=inventory.checkpoint)
    if default is None:
        raise KitError(
            f"model {card.name}: name `dataset` and `checkpoint` in the inventory, for its card has no `files`"
        )
    return Files(
        data=named.data if named else default.data,
        labels=named.labels if named else default.labels,
        checkpoint=inventory.checkpoint or default.checkpoint,
    )


def published(inventory: Inventory, card: Card) -> dict[str, float | int] | None:
    """The published accuracy and its `samples`: the inventory's, else the card's.

    Raises:
        KitError: the inventory's names what is none of the model's metrics.
    """
    if inventory.reference is None:
        return {**card.published.metrics, "samples": card.published.samples} if card.published else None
    known = {metric.key for metric in card.metrics}
    if others := sorted(inventory.reference.keys() - known - {"samples"}):
        raise KitError(
            f"reference.{others[0]} in the inventory is no metric of {card.name}: {', '.join(sorted(known))}"
        )
    return {**inventory.reference, "samples": int(inventory.reference.get("samples", 0))}


@dataclass(frozen=True)
class Model:
    """A card, and where its package lies."""

    card: Card
    package: Path  # the folder of the package

    @property
    def path(self) -> Path:
        """What Python must have on its path to import the package."""
        return self.package.parent

    @cached_property
    def sha256(self) -> str:
        """Over the package's sources, and the card of one's own."""
        own = self.package.parent / CARD
        return sources_sha256(self.package, *([] if self.package == BUNDLED else [own]))

    def command(self, python: str, name: str, *options: str) -> list[str]:
        """The argument list of one of the package's commands."""
        return [python, "-u", "-m", f"{self.card.package}.{name}", "--model", self.card.name, *options]


def run_command(model: Model, name: str, *options: str) -> None:
    """Run one of the package's commands on this side, with the kit's own Python.

    Raises:
        KitError: its own sentence, or that it did not end in time.
    """
    path = os.pathsep.join(filter(None, [str(model.path), os.environ.get("PYTHONPATH")]))
    command = model.command(sys.executable, name, *options)
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            with ended_by_interrupt(process.kill):  # which arrives in the main thread alone
                said = process.communicate(timeout=COMMAND_S)[1]
        except subprocess.TimeoutExpired:
            raise KitError(
                f"{model.card.package}.{name} did not end within {COMMAND_S} s; correct the model's package"
            ) from None
        finally:
            process.kill()
    if process.returncode != 0:
        lines = said.decode("utf-8", "replace").splitlines() or ["it said nothing"]
        sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise KitError(sentences[-1] if sentences else f"{model.card.package}.{name} failed: {lines[-1]}")


def read_card(path: Path) -> Card:
    """Read a `model.json`.

    Raises:
        KitError: naming the file, the key and what is allowed.
    """
    try:
        return _checked(json.dumps(plain_json.load(path)), path)
    except OSError as error:
        raise KitError(f"{path}: cannot be read ({error.strerror}); correct `model` in the inventory") from None
    except ValueError as error:
        raise KitError(f"{path}: not a JSON file ({error}); see docs/own-model.md") from None


def _checked(text: str, name: object) -> Card:
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the card"
        raise KitError(f"{name}: {where}: {first['msg']}; see docs/own-model.md") from None


def find(name: str, folder: Path) -> Model:
    """The model that the inventory names: one of the kit's own, or else the folder of one's own (`folder`).

    Raises:
        KitError: there is neither, the card is not of the form, or its package is not beside it.
    """
    if name in (*cards.CARDS, *cards.ALIASES):
        return Model(_checked(json.dumps(cards.card_of(name).as_json()), name), BUNDLED)
    if not folder.is_dir():
        known = (*cards.CARDS, *cards.ALIASES)
        raise KitError(
            f"model: {name!r} is neither a model of the kit nor a folder{did_you_mean(name, known)} the kit's are "
            f"{', '.join(known)}; correct it in the inventory"
        )
    own = read_card(folder / CARD)
    package = folder / own.package
    if not (package / "__init__.py").is_file():
        raise KitError(f"{folder / CARD}: its package {own.package!r} is not beside it; see docs/own-model.md")
    return Model(own, package)
