"""The command that prints Top-1 and Top-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest

from stgcn import score
from stgcn.errors import InputError
from tests.stgcn.conftest import write_labels
from tests.stgcn.test_annotations import flat, write


@pytest.fixture
def argv(tmp_path: Path) -> List[str]:
    """Of 12 samples: 3 have their label first, 4 fifth, and 5 sixth."""
    (tmp_path / "out").mkdir()
    logits = np.random.RandomState(0).normal(size=(12, 400)).astype(np.float32)
    for index, row in enumerate(logits):
        row.tofile(str(tmp_path / "out" / f"{index}_0.bin"))
    order = np.argsort(-logits, axis=1)
    write_labels(tmp_path / "l.pkl", [int(order[i, 0 if i < 3 else 4 if i < 7 else 5]) for i in range(12)])
    return ["--result_dir", str(tmp_path / "out"), "--label_path", str(tmp_path / "l.pkl")]


def test_the_last_lines_are_the_guides(argv: List[str], capsys: Any) -> None:
    score.main(argv)
    assert capsys.readouterr().out == "Top 1: 25.00%\nTop 5: 58.33%\n"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_no_number_is_named(argv: List[str], tmp_path: Path, value: float) -> None:
    np.full(400, value, np.float32).tofile(str(tmp_path / "out" / "7_0.bin"))
    with pytest.raises(InputError, match=r"sample 7 \(.*NaN"):
        score.main(argv)


def test_of_several_rows_the_mean_of_their_softmax_counts(tmp_path: Path, capsys: Any) -> None:
    """One row's logits outweigh those of nine, which are of another mind; in shares they do not."""
    path = write(tmp_path / "ntu60_2d.pkl", [flat("a", label=5)])
    (tmp_path / "out").mkdir()
    logits = np.zeros((10, 60), np.float32)
    logits[0, 3], logits[1:, 5] = 50, 5
    for index, row in enumerate(logits):
        row.tofile(str(tmp_path / "out" / f"{index}_0.bin"))
    argv = ["--model", "mmaction.stgcn", "--result_dir", str(tmp_path / "out"), "--label_path", str(path)]
    score.main(argv)
    assert capsys.readouterr().out == "Top 1: 100.00%\nTop 5: 100.00%\n"
    (tmp_path / "out" / "9_0.bin").unlink()
    with pytest.raises(InputError, match=r"sample 9 \(a\)"):
        score.main(argv)
