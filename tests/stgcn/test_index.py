"""The index that the other stages work from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest

from stgcn import index
from stgcn.errors import InputError
from tests.stgcn.conftest import Dataset, random_clips


def test_shards_cover_the_clips_with_their_digests(dataset: Dataset, tmp_path: Path) -> None:
    made = index.write_index(*dataset, tmp_path / "gpu", shard_clips=2)
    clips = random_clips(5)
    assert [(shard.first, shard.count) for shard in made.shards] == [(0, 2), (2, 2), (4, 1)]
    assert [shard.sha256 for shard in made.shards] == [
        hashlib.sha256(clips[first : first + 2].tobytes()).hexdigest() for first in (0, 2, 4)
    ]
    assert (made.samples, made.names) == (5, ["clip-0", "clip-1", "clip-2", "clip-3", "clip-4"])
    assert index.load_index(tmp_path / "gpu" / "dataset.json") == made
    labels = np.load(str(tmp_path / "gpu" / "labels.npy"))
    assert (labels.tolist(), labels.dtype) == ([7, 0, 399, 12, 7], np.int64)


def test_the_program_tells_what_it_made(dataset: Dataset, tmp_path: Path, capsys: Any) -> None:
    index.main(["--data_path", str(dataset.data), "--label_path", str(dataset.labels), "--output_dir", str(tmp_path)])
    assert capsys.readouterr().out == f"5 samples in 1 shards, indexed in {tmp_path}\n"


def test_a_clip_that_is_not_finite_leaves_no_index(dataset: Dataset, tmp_path: Path) -> None:
    clips = random_clips(5)
    clips[3, 0, 0, 0, 0] = np.inf
    np.save(str(dataset.data), clips)
    with pytest.raises(InputError, match=r"sample 3 of .*val_data.npy holds NaN or infinity"):
        index.write_index(*dataset, tmp_path / "gpu")
    assert not (tmp_path / "gpu").exists()


def test_a_shard_has_clips(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--shard_clips 0"):
        index.write_index(*dataset, tmp_path / "gpu", shard_clips=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {**content, "format": 2},
        lambda content: {**content, "samples": 6},
        lambda content: {**content, "names": content["names"][1:]},
        lambda content: {**content, "shards": content["shards"][1:]},
        lambda content: {key: value for key, value in content.items() if key != "format"},
        lambda content: {**content, "names": "abcde"},
        lambda content: {**content, "names": ["a", "b", "c", "d", "e\n"]},
        lambda content: {**content, "samples": 5.0},
        lambda content: {**content, "shards": [{"first": 0, "count": 5.0, "sha256": ""}]},
        lambda content: {**content, "shards": [{"first": 0, "count": 5, "sha256": None}]},
        lambda content: {**content, "shards": [{"first": 0, "count": n, "sha256": ""} for n in (0, 5)]},
        lambda content: [content],
    ],
)
def test_a_damaged_index_is_refused(dataset: Dataset, tmp_path: Path, change: Callable[[Dict[str, Any]], Any]) -> None:
    index.write_index(*dataset, tmp_path, shard_clips=2)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=r"dataset.json isn't an index of format 1"):
        index.load_index(path)


@pytest.mark.parametrize("text", [b"[" * 100000, b"9" * 5000, b"NaN", b"\xff", b"", b'{"format": 1'])
def test_any_other_text_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "dataset.json").write_bytes(text)
    with pytest.raises(InputError, match=r"dataset.json isn't an index of format 1"):
        index.load_index(tmp_path / "dataset.json")


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't read .*missing.json"):
        index.load_index(tmp_path / "missing.json")
