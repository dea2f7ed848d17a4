"""A build: one OM to make, to run and to measure, and where all that comes of it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import KitError
from deploy.inventory import local_path
from deploy.pipeline.model import Card

MODE_FLAGS = ("precision_mode", "precision_mode_v2")  # of ATC; one excludes the other
FILE_FLAGS = ("keep_dtype", "modify_mixlist")  # of ATC, that name a file


@dataclass(frozen=True)
class Build:
    """What `npu-convert` makes, once per batch size, and `npu-tune`, once a candidate."""

    name: str  # its steps are convert/<name>, accuracy/<name>, throughput/<name>
    folder: Path  # of the OM, its logs, logits and figures
    onnx: Path
    onnx_step: str  # the step that makes the ONNX
    batch_size: int
    flags: Mapping[str, str]  # ATC's, of the inventory
    card: Card  # of the ONNX
    persons: str = "both"  # what its rows are
    aoe_job_type: int | None = None  # tuned on the device by AOE: 1 subgraphs, 2 operators
    files: Mapping[str, Path] = field(default_factory=dict)  # ATC's flags that name a file, which is brought along

    @property
    def stem(self) -> str:
        return f"{self.card.stem}_bs{self.batch_size}"

    @property
    def om(self) -> Path:
        return self.folder / f"{self.stem}.om"


def files_of(flags: Mapping[str, str]) -> dict[str, Path]:
    """The files that ATC's flags of an inventory name, on this machine.

    Raises:
        KitError: one is not there.
    """
    found = {flag: local_path(flags[flag]) for flag in FILE_FLAGS if flag in flags}
    for flag, path in found.items():
        if not path.is_file():
            raise KitError(f"{path}: there is no such file; correct `atc.{flag}` in the inventory")
    return found
