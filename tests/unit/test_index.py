"""dataset.json as this side reads it: whole, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.pipeline.index import read_index

SHARDS = [{"first": 0, "count": 2, "sha256": "0" * 64}, {"first": 2, "count": 1, "sha256": "1" * 64}]
ARRAY = {"name": "a", "file": None, "dtype": "float32", "shape": [2, 3], "shards": SHARDS}
MASK = {"name": "mask", "file": "mask.npy", "dtype": "int64", "shape": [5], "shards": SHARDS}
WHOLE: dict[str, Any] = {
    "format": 2,
    "samples": 3,
    "names": ["x", "y", "z"],
    "rows": None,
    "inputs": [ARRAY, MASK],
}
ROWS = {**WHOLE, "samples": 2, "names": ["x", "y"], "rows": [[0, 1], [2, 1]]}


def written(folder: Path, content: Any) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


def test_inputs_of_other_types_have_their_own_rows(tmp_path: Path) -> None:
    index = read_index(written(tmp_path, WHOLE))
    assert [(array.row_bytes, array.rows) for array in index.inputs] == [(24, 3), (40, 3)]
    assert (index.row_count, index.persons_per_clip, index.row_name(1)) == (3, None, "y")


def test_rows_belong_to_samples(tmp_path: Path) -> None:
    index = read_index(written(tmp_path, ROWS))
    assert (index.row_count, index.rows_per_sample, index.persons_per_clip) == (3, 1.5, 1.5)
    assert [index.row_name(row) for row in range(3)] == ["x, row 0", "x, row 1", "y, row 0"]
    head = index.head(1)
    assert (head.samples, head.row_count, [len(array.shards) for array in head.inputs]) == (1, 2, [1, 1])
    assert index.head(9) is index


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {**c, "format": 1},
        lambda c: {**c, "samples": 4},
        lambda c: {**c, "samples": 3.0},
        lambda c: {**c, "names": c["names"][1:]},
        lambda c: {**c, "names": "xyz"},
        lambda c: {**c, "names": ["x", "y", "z\n"]},
        lambda c: {**c, "inputs": []},
        lambda c: {**c, "inputs": [ARRAY, {**MASK, "shards": SHARDS[:1]}]},
        lambda c: {**c, "inputs": [{**ARRAY, "shards": SHARDS[1:]}]},
        lambda c: {**c, "inputs": [{**ARRAY, "shards": [{"first": 0, "count": 3.0, "sha256": ""}]}]},
        lambda c: {**c, "inputs": [{**ARRAY, "shards": [{"first": 0, "count": 3, "sha256": None}]}]},
        lambda c: {**c, "inputs": [{**ARRAY, "dtype": "float64"}]},
        lambda c: {**c, "inputs": [{**ARRAY, "shape": [0]}]},
        lambda c: {**c, "inputs": [{**MASK, "file": "../mask.npy"}]},
        lambda c: {**c, "inputs": [{**ARRAY, "step": 2, "places": [[0, 0]]}]},
        lambda c: {**c, "inputs": [{**ARRAY, "places": [[0, 0], [0, 1], [0, -1]]}]},
        lambda c: {**c, "rows": [[0], [1], []]},
        lambda c: {**c, "rows": [[0], [1], [9]]},
        lambda c: {**c, "rows": [[0], [1]]},
        lambda c: [c],
        lambda c: {key: value for key, value in c.items() if key != "rows"},
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    with pytest.raises(KitError, match=r"dataset\.json.*\b2"):
        read_index(written(tmp_path, change(WHOLE)))


@pytest.mark.parametrize("text", [b"[" * 100000, b"9" * 5000, b"NaN", b"\xff", b"", b'{"format": 2'])
def test_any_other_text_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "dataset.json").write_bytes(text)
    with pytest.raises(KitError, match=r"dataset\.json"):
        read_index(tmp_path / "dataset.json")


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"missing\.json"):
        read_index(tmp_path / "missing.json")
