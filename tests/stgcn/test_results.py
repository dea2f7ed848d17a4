"""Results that are read at once, ahead by a second process, or can't be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import pytest

from stgcn import results
from stgcn.errors import InputError

NAMES = [f"clip-{i}" for i in range(12)]


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.RandomState(0).normal(size=(12, 400)).astype(np.float32)


@pytest.fixture
def folder(logits: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for index, row in enumerate(logits):
        row.tofile(str(folder / f"{index}_0.bin"))
    return folder


def ahead(result_dir: Path, names: Sequence[str]) -> memoryview:
    with results.read_ahead(result_dir, 400) as read:
        return read(names)


def at_once(result_dir: Path, names: Sequence[str]) -> memoryview:
    return results.read(result_dir, names, 400)


both_ways = pytest.mark.parametrize("read", [at_once, ahead])


@both_ways
@pytest.mark.parametrize("output", [0, 1])
def test_they_are_matched_by_name(folder: Path, logits: np.ndarray, read: results.Read, output: int) -> None:
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("_0.", f"_{output}."))
    (folder / "st_gcn_summary.json").write_text("{}")
    (folder / "notes").mkdir()
    assert bytes(read(folder, NAMES)) == logits.tobytes()


@both_ways
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: (folder / "7_0.bin").unlink(), r"misses the result of sample 7 \(clip-7\)"),
        (lambda folder: (folder / "11_0.bin").unlink(), r"misses the result of sample 11 \(clip-11\)"),
        (lambda folder: (folder / "12_0.bin").touch(), "holds 12_0.bin and there are only 12 samples"),
        (lambda folder: (folder / "12_0.bin").write_bytes(bytes(1600)), "holds 12_0.bin and there are only 12"),
        (lambda folder: (folder / "7_1.bin").touch(), "sample 7 has two results"),
        (lambda folder: (folder / "7_0.bin").write_bytes(bytes(1596)), r"sample 7 \(clip-7\) .* isn't 1600 bytes"),
        (lambda folder: (folder / "7_0.bin").write_bytes(bytes(1604)), r"sample 7 \(clip-7\) .* isn't 1600 bytes"),
        (lambda folder: (folder / "7_0.bin").write_bytes(b""), r"sample 7 \(clip-7\) .* isn't 1600 bytes"),
    ],
)
def test_a_bad_one_is_named(folder: Path, read: results.Read, damage: Callable[[Path], Any], fault: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=fault):
        read(folder, NAMES)


@both_ways
def test_a_missing_folder_is_named(tmp_path: Path, read: results.Read) -> None:
    with pytest.raises(InputError, match="missing"):
        read(tmp_path / "missing", NAMES)


def test_a_folder_may_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sample 0"):
        ahead(tmp_path, NAMES)
