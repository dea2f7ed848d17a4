"""A build: one OM to make, to run and to measure, and where all that comes of it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import KitError
from deploy.inventory import local_path
from deploy.pipeline.model import Card

MODE_FLAGS = ("precision_mode", "precision_mode_v2")  # of ATC; one excludes the other
SHARED_MODE = "cube_fp16in_fp32out"  # of both
MODES_V2 = ("fp16", "origin", SHARED_MODE, "mixed_float16")  # of the second
MIXED = ("allow_mix_precision", "allow_mix_precision_fp16", "mixed_float16")  # that heed lists of operator types
KEEP, MIXLIST = "keep_dtype", "modify_mixlist"
FILES = {
    KEEP: "keep_dtype.cfg",
    MIXLIST: "modify_mixlist.json",
}  # ATC's flags that name a file -> what the kit's is called
FILE_FLAGS = tuple(FILES)


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


def with_mode(flags: Mapping[str, str], mode: str) -> dict[str, str]:
    """ATC's flags with another precision mode, in the flag that takes it, and without what ATC refuses beside it: the
    other flag, and in a mode that is not mixed a list of operator types."""
    first, second = MODE_FLAGS
    own = second if mode in MODES_V2 and not (mode == SHARED_MODE and first in flags) else first
    kept = {flag: value for flag, value in flags.items() if flag != MIXLIST or mode in MIXED}
    return {**{own if flag in MODE_FLAGS else flag: value for flag, value in kept.items()}, own: mode}


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
