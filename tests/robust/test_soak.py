"""The soak in short: what the NPU stages need does not grow with the number of clips. `make soak` is the long one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stgcn.dataset import CLIP_BYTES
from tests.pipeline.npu_job import NpuJob
from tests.robust import soak
from tests.robust.interrupted import left_aside

pytestmark = pytest.mark.full

FEW, MANY = 128, 1280  # more shards than are sent at a time, both
# A process that holds every fourth clip is found; an interpreter's own memory, part of which a look at a process that
# is soon over may miss, is well below it.
ALLOWED_MB = (MANY - FEW) * CLIP_BYTES / 1e6 / 4
ALLOWED_FILES = 64  # three shards in flight are two processes each, of three pipes


def needs_of(folder: Path, samples: int) -> dict[str, Any]:
    folder.mkdir()
    job = NpuJob(folder, samples, batch_sizes=[64], benchmark={"loop": 1, "max_repeats": 1, "idle_timeout_s": 4})
    job.play(SHORTCUT="1")
    job.connections()
    needs: dict[str, soak.Need] = {}
    for stage in ("npu-convert", "npu-bench"):
        soak.watch(stage, folder / "inventory.yaml", needs)
    assert not left_aside(folder)
    return {"needs": {kind: vars(need) for kind, need in needs.items()}}


def test_memory_and_open_files_are_flat(tmp_path: Path) -> None:
    few, many = needs_of(tmp_path / "few", FEW), needs_of(tmp_path / "many", MANY)
    grown = soak.growth(few, many)
    assert {"fab npu-bench", "python -m ais_bench"} <= grown.keys()
    for kind in ("fab npu-bench", "host: clips", "host: unpack", "host: pack"):
        if kind in grown:  # else it was too short to be seen
            assert grown[kind]["resident_mb"] < ALLOWED_MB, kind
            assert many["needs"][kind]["open_files"] < ALLOWED_FILES, kind
