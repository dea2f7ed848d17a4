"""Top-1 and Top-5, and results that can't be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from stgcn import score
from stgcn.errors import InputError
from tests.stgcn.conftest import write_labels

NAMES = [f"clip-{i}" for i in range(12)]


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.RandomState(0).normal(size=(12, 400)).astype(np.float32)


@pytest.fixture
def results(logits: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for index, row in enumerate(logits):
        row.tofile(str(folder / f"{index}_0.bin"))
    return folder


class TestTopK:
    @pytest.mark.parametrize("k", [1, 2, 5, 400])
    def test_it_counts_as_sorting_does(self, k: int) -> None:
        random = np.random.RandomState(1)
        logits = random.normal(size=(300, 400)).astype(np.float32)
        labels = random.randint(400, size=300)
        logits[np.arange(300), labels] += 3
        highest = np.argsort(-logits, axis=1)[:, :k]
        hits = sum(label in row for label, row in zip(labels, highest))
        assert 0 < score.top_k_hits(logits, labels, k) == hits

    @pytest.mark.parametrize(("label", "k", "hits"), [(0, 1, 1), (1, 1, 0), (4, 5, 1), (5, 5, 0)])
    def test_of_equal_logits_the_lower_class_is_higher(self, label: int, k: int, hits: int) -> None:
        assert score.top_k_hits(np.zeros((1, 400), np.float32), np.array([label]), k) == hits


class TestResults:
    @pytest.mark.parametrize("output", [0, 1])
    def test_they_are_matched_by_name(self, results: Path, logits: np.ndarray, output: int) -> None:
        for path in list(results.iterdir()):
            path.rename(results / path.name.replace("_0.", f"_{output}."))
        (results / "st_gcn_summary.json").write_text("{}")
        (results / "notes").mkdir()
        assert np.array_equal(score.read_results(results, NAMES), logits)

    @pytest.mark.parametrize(
        ("damage", "fault"),
        [
            (lambda folder: (folder / "7_0.bin").unlink(), r"misses the result of sample 7 \(clip-7\)"),
            (lambda folder: (folder / "12_0.bin").touch(), "holds 12_0.bin and there are only 12 samples"),
            (lambda folder: (folder / "7_1.bin").touch(), "sample 7 has two results"),
            (lambda folder: (folder / "7_0.bin").write_bytes(bytes(1596)), r"sample 7 \(clip-7\) .* isn't 1600 bytes"),
            (lambda folder: (folder / "7_0.bin").write_bytes(bytes(1604)), r"sample 7 \(clip-7\) .* isn't 1600 bytes"),
            (lambda folder: (folder / "7_0.bin").write_bytes(b""), r"sample 7 \(clip-7\) .* isn't 1600 bytes"),
            (
                lambda folder: np.full(400, np.nan, np.float32).tofile(str(folder / "7_0.bin")),
                r"sample 7 \(clip-7\) .* NaN",
            ),
        ],
    )
    def test_a_bad_one_is_named(self, results: Path, damage: Callable[[Path], Any], fault: str) -> None:
        damage(results)
        with pytest.raises(InputError, match=fault):
            score.read_results(results, NAMES)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"can't read .*missing"):
            score.read_results(tmp_path / "missing", NAMES)


def test_the_last_lines_are_the_guides(results: Path, logits: np.ndarray, tmp_path: Path, capsys: Any) -> None:
    order = np.argsort(-logits, axis=1)
    labels = [int(order[i, 0 if i < 3 else 4 if i < 7 else 5]) for i in range(12)]
    write_labels(tmp_path / "l.pkl", labels)
    score.main(["--result_dir", str(results), "--label_path", str(tmp_path / "l.pkl")])
    assert capsys.readouterr().out == "Top 1: 25.00%\nTop 5: 58.33%\n"
