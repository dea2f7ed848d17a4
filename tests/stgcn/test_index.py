"""The index that the other stages work from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Sequence

import numpy as np
import pytest

from stgcn import index
from stgcn.errors import InputError
from tests.stgcn.conftest import Dataset, random_clips, write_labels


def test_shards_cover_the_clips_with_their_digests(dataset: Dataset, tmp_path: Path) -> None:
    index.write_index(*dataset, tmp_path / "gpu", shard_clips=2)
    made = index.load_index(tmp_path / "gpu" / "dataset.json")
    clips = random_clips(5)
    assert [(shard.first, shard.count) for shard in made.shards] == [(0, 2), (2, 2), (4, 1)]
    assert [shard.sha256 for shard in made.shards] == [
        hashlib.sha256(clips[first : first + 2].tobytes()).hexdigest() for first in (0, 2, 4)
    ]
    assert (made.samples, made.names) == (5, ["clip-0", "clip-1", "clip-2", "clip-3", "clip-4"])
    assert made.file is None
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
def test_persons_who_are_seen_are_samples_and_one_empty_stands_for_all(
    seen: Any, rows: Any, places: Any, tmp_path: Path
) -> None:
    clips = with_persons(seen)
    np.save(str(tmp_path / "val_data.npy"), clips)
    labels = write_labels(tmp_path / "val_label.pkl", [0] * len(clips))
    index.write_index(tmp_path / "val_data.npy", labels, tmp_path, shard_clips=2)
    persons = index.load_persons(tmp_path / "persons.json")
    assert (persons.rows, persons.places) == (rows, [list(place) for place in places])
    assert (persons.samples, persons.clips, len(persons.names)) == (len(places), len(clips), len(places))
    assert persons.names == [f"clip-{clip}, person {person}" for clip, person in places]
    values = np.stack([clips[clip, ..., person] for clip, person in places])
    for shard in persons.shards:
        mine = values[shard.first : shard.first + shard.count]
        assert shard.sha256 == hashlib.sha256(mine.tobytes()).hexdigest()
        assert mine[0].nbytes == persons.sample_bytes
    logits = np.random.RandomState(1).normal(size=(len(places), 400)).astype(np.float32)
    expected = [(logits[first].astype(np.float64) + logits[second]) / 2 for first, second in rows]
    assert np.allclose(persons.of_clips(logits), expected, atol=1e-6)


def test_the_first_clips_have_the_first_persons(tmp_path: Path) -> None:
    np.save(str(tmp_path / "val_data.npy"), with_persons([[0], [0, 1], [1], [0, 1]]))
    labels = write_labels(tmp_path / "val_label.pkl", [0] * 4)
    index.write_index(tmp_path / "val_data.npy", labels, tmp_path, shard_clips=1)
    whole = index.load_index(tmp_path / "dataset.json")
    persons = index.load_persons(tmp_path / "persons.json").head(3)
    assert (persons.samples, persons.clips, len(persons.names), len(persons.shards)) == (5, 3, 5, 3)
    assert persons.head(9) == persons
    assert whole.head(3).names == whole.names[:3]
    assert whole.head(9) == whole


@pytest.mark.parametrize("rows", [[[0, 1]], [[0, 1], [2]], [[0, 1], [2, 9]], [[0, 1], [2, 2]]])
def test_a_damaged_index_of_persons_is_refused(rows: Any, tmp_path: Path) -> None:
    np.save(str(tmp_path / "val_data.npy"), with_persons([[0, 1], [0, 1]]))
    index.write_index(tmp_path / "val_data.npy", write_labels(tmp_path / "val_label.pkl", [0, 0]), tmp_path)
    path = tmp_path / "persons.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": rows}))
    with pytest.raises(InputError, match=r"persons\.json"):
        index.load_persons(path)


def test_the_program_tells_what_it_made(dataset: Dataset, tmp_path: Path, capsys: Any) -> None:
    index.main(["--data_path", str(dataset.data), "--label_path", str(dataset.labels), "--output_dir", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1] == f"5 samples in 1 shard, indexed in {tmp_path}"


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
