"""The index that the other stages work from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pytest

from stgcn import index
from stgcn.errors import InputError
from tests.stgcn.conftest import Dataset, random_clips, write_labels


def test_shards_cover_the_clips_with_their_digests(dataset: Dataset, tmp_path: Path) -> None:
    made = index.write_index(*dataset, tmp_path / "gpu", shard_clips=2)
    clips = random_clips(5)
    shards = made["inputs"][0]["shards"]
    assert [(shard["first"], shard["count"]) for shard in shards] == [(0, 2), (2, 2), (4, 1)]
    assert [shard["sha256"] for shard in shards] == [
        hashlib.sha256(clips[first : first + 2].tobytes()).hexdigest() for first in (0, 2, 4)
    ]
    assert (made["samples"], made["names"]) == (5, ["clip-0", "clip-1", "clip-2", "clip-3", "clip-4"])
    assert json.loads((tmp_path / "gpu" / "dataset.json").read_text()) == made
    labels = np.load(str(tmp_path / "gpu" / "labels.npy"))
    assert (labels.tolist(), labels.dtype) == ([7, 0, 399, 12, 7], np.int64)


def with_persons(seen: Sequence[Sequence[int]], seed: int = 0) -> np.ndarray:
    """Random clips in which just the persons of `seen` are."""
    clips = random_clips(len(seen), seed)
    for clip, persons in zip(clips, seen):
        for person in {0, 1} - set(persons):
            clip[..., person] = -0.0 if person else 0.0
    return clips


@pytest.mark.parametrize(
    ("seen", "rows", "places"),
    [
        ([[0, 1], [0, 1]], [[0, 1], [2, 3]], [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ([[0], [0, 1], [0]], [[0, 1], [2, 3], [4, 1]], [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]),
        ([[1], [], [0, 1]], [[0, 1], [0, 0], [2, 3]], [(0, 0), (0, 1), (2, 0), (2, 1)]),
        ([[], []], [[0, 0], [0, 0]], [(0, 0)]),
    ],
    ids=["both", "some alone", "the second alone, nobody", "nobody"],
)
def test_persons_who_are_seen_are_rows_and_one_empty_stands_for_all(
    seen: Any, rows: Any, places: Any, tmp_path: Path
) -> None:
    clips = with_persons(seen)
    np.save(str(tmp_path / "val_data.npy"), clips)
    labels = write_labels(tmp_path / "val_label.pkl", [0] * len(clips))
    index.write_index(tmp_path / "val_data.npy", labels, tmp_path, shard_clips=2)
    persons = json.loads((tmp_path / "persons.json").read_text())
    (array,) = persons["inputs"]
    assert (persons["rows"], array["places"], array["step"]) == (rows, [list(place) for place in places], 2)
    assert (persons["samples"], len(persons["names"]), array["shape"]) == (len(clips), len(clips), [3, 300, 18, 1])
    values = np.stack([clips[clip, ..., person] for clip, person in places])
    for shard in array["shards"]:
        mine = values[shard["first"] : shard["first"] + shard["count"]]
        assert shard["sha256"] == hashlib.sha256(mine.tobytes()).hexdigest()


def test_the_program_tells_what_it_made(dataset: Dataset, tmp_path: Path, capsys: Any) -> None:
    index.main(["--data_path", str(dataset.data), "--label_path", str(dataset.labels), "--output_dir", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1] == f"5 samples in 1 shard, indexed in {tmp_path}"


def test_a_clip_that_is_not_finite_leaves_no_index(dataset: Dataset, tmp_path: Path) -> None:
    clips = random_clips(5)
    clips[3, 0, 0, 0, 0] = np.inf
    np.save(str(dataset.data), clips)
    with pytest.raises(InputError, match=r"sample 3 of .*val_data\.npy.*NaN"):
        index.write_index(*dataset, tmp_path / "gpu")
    assert not (tmp_path / "gpu").exists()


def test_a_shard_has_clips(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--shard_clips 0"):
        index.write_index(*dataset, tmp_path / "gpu", shard_clips=0)
