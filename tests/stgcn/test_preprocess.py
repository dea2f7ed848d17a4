"""The guide's files, byte for byte."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from stgcn import preprocess, sources
from stgcn.dataset import CLIP_SHAPE
from stgcn.errors import InputError
from tests.stgcn.conftest import Dataset, random_clips, write_labels


def files(folder: Path) -> Dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def guides_files(clips: np.ndarray, labels: Any) -> Dict[str, bytes]:
    """What the guide's script writes: each clip's values in C order, each label as a 64-bit integer."""
    written = {f"val_data/{i}.bin": clip.astype("<f4").tobytes() for i, clip in enumerate(clips)}
    written.update({f"val_label/{i}.bin": int(label).to_bytes(8, "little") for i, label in enumerate(labels)})
    return written


def test_the_bytes_are_the_guides(dataset: Dataset, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "new" / "out"
    arguments = ["--data_path", str(dataset.data), "--label_path", str(dataset.labels), "--output_dir", str(output)]
    preprocess.main(arguments)
    assert files(output) == guides_files(random_clips(5), [7, 0, 399, 12, 7])
    assert sorted(path.name for path in output.iterdir()) == ["val_data", "val_label"]
    assert "5 samples" in capsys.readouterr().out


def test_more_clips_than_a_block(tmp_path: Path) -> None:
    clips = np.zeros((sources.FEW * 2 + 1, *CLIP_SHAPE), np.float32)
    clips[:, 0, 0, 0, 0] = np.arange(len(clips))
    np.save(str(tmp_path / "d.npy"), clips)
    labels = write_labels(tmp_path / "l.pkl", list(range(len(clips))))
    assert preprocess.preprocess(tmp_path / "d.npy", labels, tmp_path / "out") == len(clips)
    assert files(tmp_path / "out") == guides_files(clips, range(len(clips)))


@pytest.mark.parametrize("bad", [[20, 33], [0, 40], [16], [40]])
def test_of_many_bad_clips_the_first_is_named(tmp_path: Path, bad: List[int]) -> None:
    clips = np.zeros((sources.FEW * 2 + 9, *CLIP_SHAPE), np.float32)
    clips[bad, 2, 299, 17, 1] = np.inf
    np.save(str(tmp_path / "d.npy"), clips)
    labels = write_labels(tmp_path / "l.pkl", [0] * len(clips))
    with pytest.raises(InputError, match=f"sample {bad[0]} of"):
        preprocess.preprocess(tmp_path / "d.npy", labels, tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_other_forms_give_the_same_files(dataset: Dataset, tmp_path: Path) -> None:
    np.save(str(dataset.data), np.asfortranarray(random_clips(5).astype(">f8")))
    write_labels(dataset.labels, list(np.array([7, 0, 399, 12, 7])))
    preprocess.preprocess(*dataset, tmp_path / "out")
    assert files(tmp_path / "out") == guides_files(random_clips(5), [7, 0, 399, 12, 7])


def test_an_earlier_longer_run_leaves_no_trace(dataset: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "out"
    preprocess.preprocess(*dataset, output)
    np.save(str(dataset.data), random_clips(2, seed=1))
    write_labels(dataset.labels, [1, 2])
    preprocess.preprocess(*dataset, output)
    assert files(output) == guides_files(random_clips(2, seed=1), [1, 2])


def write_clips(path: Path, change: Callable[[np.ndarray], None]) -> None:
    clips = random_clips(5)
    change(clips)
    np.save(str(path), clips)


def poison(clips: np.ndarray) -> None:
    clips[4, 1, 2, 3, 1] = np.nan


BAD_INPUT = [
    (lambda d: d.data.unlink(), "can't read .*val_data.npy"),
    (lambda d: d.labels.unlink(), "can't read .*val_label.pkl"),
    (lambda d: np.save(str(d.data), random_clips(5)[0]), r"shape \(3, 300, 18, 2\)"),
    (lambda d: np.save(str(d.data), random_clips(5).astype(np.int16)), "dtype '<i2'"),
    (lambda d: write_clips(d.data, poison), "sample 4 of .* NaN or infinity"),
    (lambda d: d.data.write_bytes(d.data.read_bytes()[:-1]), "cut short"),
    (lambda d: write_labels(d.labels, [0] * 4), "5 clips and .* 4 labels"),
    (lambda d: write_labels(d.labels, [0] * 4 + [400]), "label 400 of sample 4"),
    (lambda d: write_labels(d.labels, [print] * 5), "don't trust it"),
]


@pytest.mark.parametrize(("damage", "fault"), BAD_INPUT)
def test_bad_input_leaves_nothing(
    dataset: Dataset, tmp_path: Path, damage: Callable[[Dataset], Any], fault: str
) -> None:
    damage(dataset)
    with pytest.raises(InputError, match=fault):
        preprocess.preprocess(*dataset, tmp_path / "out")
    assert files(tmp_path / "out") == {}


def test_bad_input_keeps_an_earlier_run(dataset: Dataset, tmp_path: Path) -> None:
    preprocess.preprocess(*dataset, tmp_path / "out")
    earlier = files(tmp_path / "out")
    write_clips(dataset.data, poison)
    with pytest.raises(InputError, match="sample 4"):
        preprocess.preprocess(*dataset, tmp_path / "out")
    assert files(tmp_path / "out") == earlier


def test_a_folder_that_cannot_be_written_is_named(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"val_data\.npy/out "):
        preprocess.preprocess(*dataset, dataset.data / "out")


def test_a_file_that_is_cut_short_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limits[1]))  # the first write stops there, as on a full disk
    try:
        with pytest.raises(InputError, match=r"out \(No space left"):
            preprocess.preprocess(*dataset, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path / "out") == {}


def test_files_of_others_are_not_replaced(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out" / "val_data").mkdir(parents=True)
    (tmp_path / "out" / "val_data" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        preprocess.preprocess(*dataset, tmp_path / "out")
    assert files(tmp_path / "out") == {"val_data/notes.txt": b"mine"}


def test_a_folder_that_bears_a_samples_name_is_kept(dataset: Dataset, tmp_path: Path) -> None:
    precious = tmp_path / "out" / "val_data" / "0.bin" / "notes.txt"
    precious.parent.mkdir(parents=True)
    precious.touch()
    with pytest.raises(InputError, match=r"0\.bin"):
        preprocess.preprocess(*dataset, tmp_path / "out")
    assert precious.exists()


def test_what_it_prints_is_text(dataset: Dataset, tmp_path: Path, capsys: Any) -> None:
    options = ["--data_path", str(dataset.data), "--label_path", str(dataset.labels)]
    preprocess.main([*options, "--output_dir", str(tmp_path / "\x1b[2Jout")])
    assert capsys.readouterr().out[:-1].isprintable()
