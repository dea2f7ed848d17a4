"""Clips in the forms that users have them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, Dict

import numpy as np
import pytest

from stgcn import index, sources
from stgcn.cards import CARDS, KINETICS
from stgcn.dataset import CLIP_SHAPE
from stgcn.errors import InputError
from stgcn.sources import open_array, open_rows, open_source
from tests.stgcn.conftest import SAMPLES, Dataset, random_clips, write_labels

ARRAYS: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float64": lambda clips: clips.astype(np.float64) + 1e-12,
    "float16": lambda clips: clips.astype(np.float16),
    "float32, big-endian": lambda clips: clips.astype(">f4"),
    "float32, in Fortran order": np.asfortranarray,
    "float64, big-endian, in Fortran order": lambda clips: np.asfortranarray(clips.astype(">f8")),
    "float32, one person (padded)": lambda clips: clips[..., :1],
    "float16, in Fortran order, one person (padded)": lambda clips: np.asfortranarray(clips.astype("f2")[..., 0]),
}


@pytest.mark.parametrize("form", ARRAYS)
def test_an_array_of_another_form_is_indexed_as_the_rows_it_stands_for(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sources, "MANY", 2)
    clips = random_clips(5)
    array = ARRAYS[form](clips)
    np.save(str(tmp_path / "d.npy"), array)
    persons = array.shape[4] if array.ndim == 5 else 1
    expected = np.zeros_like(clips)
    expected[..., :persons] = array.reshape(*clips.shape[:-1], persons).astype("<f4")
    labels = write_labels(tmp_path / "l.pkl", [0] * 5)
    options = ["--data_path", str(tmp_path / "d.npy"), "--label_path", str(labels), "--shard_clips", "2"]
    index.main([*options, "--output_dir", str(tmp_path / "a"), "--array_dir", str(tmp_path / "arrays")])
    assert f"{form}; converted to {tmp_path / 'arrays' / 'rows.npy'}" in capsys.readouterr().out
    made = open_rows(tmp_path / "d.npy", tmp_path / "arrays", KINETICS)
    assert np.array_equal(made, expected)
    np.save(str(tmp_path / "rows.npy"), expected)
    index.write_index(tmp_path / "rows.npy", labels, tmp_path / "b", 2)
    of_form, of_rows = (json.loads((tmp_path / folder / "dataset.json").read_text()) for folder in "ab")
    assert (of_form["inputs"][0]["file"], of_rows["inputs"][0]["file"]) == ("rows.npy", None)
    assert of_form["inputs"][0]["shards"] == of_rows["inputs"][0]["shards"]
    in_place = open_rows(tmp_path / "rows.npy", tmp_path / "arrays", KINETICS)
    assert Path(str(in_place.filename)) == tmp_path / "rows.npy"


def test_the_third_coordinate_of_another_model_has_its_own_shape(tmp_path: Path) -> None:
    card = CARDS["st_gcn.ntu-xsub"]
    np.save(str(tmp_path / "d.npy"), np.ones((2, *card.row_shape[:-1], 1), np.float64))
    source = open_array(tmp_path / "d.npy", card)
    assert source.read(1, 9)[..., 0].all()
    assert source.read(1, 9).shape == (1, *card.row_shape)
    with pytest.raises(InputError, match="shape"):
        open_array(tmp_path / "d.npy", KINETICS)


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.zeros((2, *CLIP_SHAPE), np.float64)[:, :2], "third channel is missing, the score"),
        (np.zeros((2, *CLIP_SHAPE[:-1], 3), np.float64), "shape"),
        (np.zeros((2, *CLIP_SHAPE), np.complex64), "dtype '<c8'"),
        (np.zeros((1, *CLIP_SHAPE), object), r"dtype '\|O'"),
        (np.zeros((0, *CLIP_SHAPE), np.float64), "shape"),
        (np.full((1, *CLIP_SHAPE), 1e300), "sample 0 of .* holds NaN or infinity"),
        (np.full((1, *CLIP_SHAPE), np.nan, np.float16), "sample 0 of .* holds NaN or infinity"),
    ],
)
def test_another_array_is_refused(array: np.ndarray, fault: str, tmp_path: Path) -> None:
    np.save(str(tmp_path / "d.npy"), array)
    labels = write_labels(tmp_path / "l.pkl", [0] * len(array))
    with pytest.raises(InputError, match=f"d.npy.*{fault}|{fault}"):
        index.write_index(tmp_path / "d.npy", labels, tmp_path / "out")
    assert not (tmp_path / "out" / "rows.npy").exists()


@pytest.mark.parametrize("fortran", [False, True])
def test_an_array_of_another_form_that_was_cut_is_refused(fortran: bool, tmp_path: Path) -> None:
    clips = random_clips(2).astype(np.float64)
    np.save(str(tmp_path / "d.npy"), np.asfortranarray(clips) if fortran else clips)
    content = (tmp_path / "d.npy").read_bytes()
    for damaged in (content[:-1], content + b"x"):
        (tmp_path / "d.npy").write_bytes(damaged)
        with pytest.raises(InputError, match=r"d\.npy"):
            open_array(tmp_path / "d.npy", KINETICS)
    (tmp_path / "d.npy").write_bytes(content)
    source = open_array(tmp_path / "d.npy", KINETICS)
    (tmp_path / "d.npy").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"d\.npy"):
        source.read(0, 2)


def test_clips_and_labels_must_agree(dataset: Dataset) -> None:
    source, named = open_source(*dataset, KINETICS)
    assert source.samples == len(named.names) == SAMPLES
    write_labels(dataset.labels, [1, 2])
    with pytest.raises(InputError, match=r"\b5 clips.*\b2 labels"):
        open_source(*dataset, KINETICS)


def pose(x: float, score: float) -> Dict[str, Any]:
    return {"pose": [x, 0.75] * 18, "score": [score] * 18}


def write_folder(folder: Path) -> Path:
    """Three clips as Kinetics-skeleton has them, one of them without a skeleton; the label file."""
    clips = folder / "kinetics_val"
    clips.mkdir(parents=True)
    frames = [
        {"frame_index": 0, "skeleton": [pose(0.1 * i, 0.1 * (i + 1)) for i in range(7)]},
        {"frame_index": 299, "skeleton": [pose(1, 0), pose(0.5, 0.5)]},
        {"frame_index": 5, "skeleton": []},
    ]
    for name, label in (("b.x", 3), ("a", 0), ("gone", 9)):
        (clips / f"{name}.json").write_text(json.dumps({"data": frames, "label": "?", "label_index": label}))
    labels = {
        "gone": {"has_skeleton": False, "label": "?", "label_index": 9},
        "b": {"has_skeleton": True, "label": "?", "label_index": 3},
        "a": {"has_skeleton": True, "label": "?", "label_index": 0},
    }
    (folder / "kinetics_val_label.json").write_text(json.dumps(labels))
    return folder / "kinetics_val_label.json"


def test_a_folder_of_json_is_read_by_the_converters_rule(tmp_path: Path) -> None:
    source, named = open_source(tmp_path / "kinetics_val", write_folder(tmp_path), KINETICS)
    assert (named.names, named.labels.tolist()) == (["a.json", "b.x.json"], [0, 3])
    clips = source.read(0, 9)
    expected = np.zeros(CLIP_SHAPE, np.float32)
    expected[:, 0, :, 0] = np.array([0.4 - 0.5, 0.25, 0.5])[:, None]  # the best of the first five
    expected[:, 0, :, 1] = np.array([0.3 - 0.5, 0.25, 0.4])[:, None]
    expected[:, 299, :, 0] = np.array([0, 0.25, 0.5])[:, None]
    assert np.allclose(clips, expected, atol=1e-7)
    assert not clips[:, :, 299, :, 1].any()


def test_a_folder_of_json_is_indexed(tmp_path: Path) -> None:
    labels = write_folder(tmp_path)
    made = index.write_index(tmp_path / "kinetics_val", labels, tmp_path / "out")
    assert (made["names"], made["inputs"][0]["file"]) == (["a.json", "b.x.json"], "rows.npy")
    assert np.load(str(tmp_path / "out" / "labels.npy")).tolist() == [0, 3]
    rows = open_rows(tmp_path / "kinetics_val", tmp_path / "out", KINETICS)
    assert np.array_equal(rows, open_source(tmp_path / "kinetics_val", labels, KINETICS)[0].read(0, 2))


def changed(**changes: Any) -> Callable[[Dict[str, Any]], Any]:
    return lambda content: {**content, **changes}


def with_skeleton(skeleton: Any, frame: Any = 0) -> Callable[[Dict[str, Any]], Any]:
    return changed(data=[{"frame_index": frame, "skeleton": skeleton}])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (changed(label_index=7), "says label 7 and the label file 0"),
        (changed(label_index=False), "says label False"),
        (changed(label_index=None), "says label None"),
        (changed(data=3), "isn't a clip"),
        (lambda _: {}, "isn't a clip"),
        (lambda _: [1], "isn't a clip"),
        (with_skeleton([pose(1, 1)], 300), "frame 300 is outside 0..299"),
        (with_skeleton([pose(1, 1)], -1), "frame -1 is outside"),
        (with_skeleton([pose(1, 1)], 0.0), "frame 0.0 is outside"),
        (with_skeleton([{"pose": [1] * 35, "score": [1] * 18}]), "isn't 18 joints"),
        (with_skeleton([{"pose": [1] * 36, "score": [1] * 17}]), "isn't 18 joints"),
        (with_skeleton([{"pose": ["1"] * 36, "score": [1] * 18}]), "isn't 18 joints"),
        (with_skeleton([{"pose": [[1]] * 36, "score": [1] * 18}]), "isn't a clip|isn't 18 joints"),
        (with_skeleton([{"pose": [10**400] * 36, "score": [1] * 18}]), "isn't a clip"),
        (with_skeleton([{"pose": "a", "score": {}}]), "isn't a clip"),
        (with_skeleton({}), "isn't a clip"),
        (with_skeleton([pose(1e300, 1)]), "NaN or infinity"),
        (with_skeleton([pose(float("nan"), 1)]), "NaN"),
    ],
)
def test_a_hostile_clip_is_refused_by_its_name(change: Callable[[Any], Any], fault: str, tmp_path: Path) -> None:
    labels = write_folder(tmp_path)
    path = tmp_path / "kinetics_val" / "a.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=f"a.json.*({fault})|sample 0 .*({fault})"):
        index.write_index(tmp_path / "kinetics_val", labels, tmp_path / "out")
    assert not any((tmp_path / "out").glob("*"))


def test_a_pipe_and_a_long_number_in_the_folder_are_refused(tmp_path: Path) -> None:
    labels, path = write_folder(tmp_path), tmp_path / "kinetics_val" / "a.json"
    path.write_text(path.read_text().replace('"label_index": 0', f'"label_index": {"9" * 100000}'))
    with pytest.raises(InputError, match=r"a\.json.*too long"):
        open_source(tmp_path / "kinetics_val", labels, KINETICS)[0].read(0, 1)
    path.unlink()
    os.mkfifo(str(path))
    with pytest.raises(InputError, match=r"a\.json"):
        open_source(tmp_path / "kinetics_val", labels, KINETICS)[0].read(0, 1)


def test_a_folder_of_another_split_is_told(tmp_path: Path) -> None:
    labels = write_folder(tmp_path)
    (tmp_path / "kinetics_val" / "c.json").write_text("{}")
    with pytest.raises(InputError, match=r"c\.json"):
        open_source(tmp_path / "kinetics_val", labels, KINETICS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        open_source(tmp_path / "empty", labels, KINETICS)
    with pytest.raises(InputError, match="kinetics_val"):
        open_source(tmp_path / "kinetics_val", labels, CARDS["st_gcn.ntu-xsub"])
