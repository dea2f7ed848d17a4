"""The sample that stands in for the dataset and the published weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
import torch

from stgcn import sample
from stgcn.accuracy import top_k_hits
from stgcn.cards import card_of
from stgcn.checkpoint import load_model
from stgcn.dataset import load_labels, open_clips, read_clips
from stgcn.errors import InputError
from stgcn.sources import open_source


def make(folder: Path, samples: int, classes: int, seed: int = 0) -> Dict[str, bytes]:
    sample.main(
        ["--output_dir", str(folder), "--samples", str(samples), "--classes", str(classes), "--seed", str(seed)]
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """24 clips of 20 classes: the same shares of ambiguous and mislabelled clips as in the default."""
    path: Path = tmp_path_factory.mktemp("sample")
    assert set(make(path, 24, 20)) == {"val_data.npy", "val_label.pkl", "st_gcn.sample.pth", "sample.json"}
    return path


@pytest.mark.full
def test_the_checkpoint_knows_the_clips_but_not_all(folder: Path) -> None:
    clips, labels = open_clips(folder / "val_data.npy"), load_labels(folder / "val_label.pkl").labels
    model = load_model(folder / "st_gcn.sample.pth")
    with torch.no_grad():
        logits = np.concatenate([model(torch.from_numpy(read_clips(clips, i, 4))).numpy() for i in range(0, 24, 4)])
    top1, top5 = (hits / 24 for hits in top_k_hits(logits, labels, (1, 5)).values())
    assert 0.6 < top1 < 0.95
    assert top1 < top5
    ordered = np.sort(logits, axis=1)
    assert (ordered[:, -1] - ordered[:, -2]).min() > 0.005  # half precision is off by 0.001


@pytest.mark.full
def test_the_clips_look_like_real_ones(folder: Path) -> None:
    clips, (names, labels) = open_clips(folder / "val_data.npy"), load_labels(folder / "val_label.pkl")
    assert len(set(names)) == 24
    assert len(set(labels)) == 20
    seen = np.asarray(clips[:, 2] > 0)
    assert 0.3 < seen.mean() < 0.6
    one_person = ~seen[..., 1].any(axis=(1, 2))
    short = ~seen[:, 270:].any(axis=(1, 2, 3))
    assert 0 < one_person.mean() < 0.7
    assert 0 < short.mean() < 0.7
    assert -0.5 <= clips[:, :2].min() < -0.2 < 0.2 < clips[:, :2].max() <= 1.0
    assert (np.asarray(clips[:, :2])[~np.stack([seen, seen], 1)] == 0).all()  # no joint, no place
    assert not np.signbit(clips[clips == 0]).any()


@pytest.mark.full
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first = make(tmp_path / "a", 3, 2)
    torch.set_num_threads(threads + 1)
    try:
        assert make(tmp_path / "b", 3, 2) == first
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    other = make(tmp_path / "c", 3, 2, seed=1)
    assert all(other[name] != first[name] for name in first if name != "sample.json")


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        (["--samples", "0"], "--samples 0"),
        (["--classes", "1"], r"--classes 1 is outside 2\.\.400"),
        (["--classes", "401"], r"--classes 401 is outside 2\.\.400"),
        (["--seed", "-1"], "--seed -1"),
        (["--output_dir", "/dev/null/x"], "can't write /dev/null/x/val_data.npy"),
    ],
)
def test_a_bad_option_is_told(tmp_path: Path, option: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        sample.main(["--output_dir", str(tmp_path / "out"), *option])
    assert not (tmp_path / "out").exists()


@pytest.mark.full
@pytest.mark.parametrize("name", ["st_gcn.ntu-xsub", "mmaction.stgcn-3d", "mmaction.stgcnpp-2d"])
def test_a_sample_of_another_model_is_one_that_it_takes(name: str, tmp_path: Path) -> None:
    card = card_of(name)
    sample.main(["--output_dir", str(tmp_path), "--model", name, "--samples", "4", "--classes", "3"])
    data, labels, checkpoint = (tmp_path / file for file in json.loads((tmp_path / "sample.json").read_text()).values())
    source, named = open_source(data, labels, card)
    assert (source.samples, len(named.names)) == (4 * card.rows_per_sample, 4)
    rows = np.stack([source.read(card.rows_per_sample * i, 1)[0] for i in range(4)])
    assert rows.shape == (4, *card.row_shape)
    with torch.no_grad():
        logits = load_model(checkpoint, card)(torch.from_numpy(rows)).numpy()
    seen = {int(label) for label in named.labels}
    assert all(int(best) in seen for best in logits.argmax(axis=1))
