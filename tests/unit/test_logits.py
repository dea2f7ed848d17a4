"""Logits of one batch size as files: a changed, missing or misplaced row is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.evidence.logits import DIGESTS, LOGITS, output_names, read_logits, write_logits
from deploy.pipeline.model import Tensor
from tests.unit.made_up import CARD

NAMES = [f"clip-{i}" for i in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    logits = np.random.default_rng(0).standard_normal((6, 400)).astype(np.float32)
    write_logits(NAMES, [logits], tmp_path, CARD)
    return tmp_path


def rewrite(folder: Path, change: object) -> None:
    logits = np.load(folder / LOGITS)
    np.save(folder / LOGITS, change(logits))  # type: ignore[operator]


def test_what_was_written_is_read(folder: Path) -> None:
    assert read_logits(folder, NAMES, CARD)[0].tobytes() == np.load(folder / LOGITS).tobytes()


def set_value(logits: np.ndarray) -> np.ndarray:
    logits[3, 7] += 1
    return logits


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (set_value, r"sample 3 \(clip-3\) was changed"),
        (lambda x: x[[0, 4, 2, 3, 1, 5]], r"sample 1 \(clip-1\) holds the result of sample 4 \(clip-4\)"),
        (lambda x: x[:5], r"5 results for 6 samples, .* sample 5 \(clip-5\)"),
        (lambda x: np.concatenate([x, x[:1]]), "7 results for 6 samples"),
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: x[:, :399], "399"),
    ],
)
def test_a_wrong_array_names_the_sample_or_the_form(folder: Path, change: object, sentence: str) -> None:
    rewrite(folder, change)
    with pytest.raises(KitError, match=sentence):
        read_logits(folder, NAMES, CARD)


def test_a_torn_file_names_the_first_sample_lost(folder: Path) -> None:
    data = (folder / LOGITS).read_bytes()
    (folder / LOGITS).write_bytes(data[: 128 + 1600 * 2 + 50])
    with pytest.raises(KitError, match=r"sample 2 \(clip-2\)"):
        read_logits(folder, NAMES, CARD)


def test_a_damaged_file_may_hold_more_rows_than_samples(folder: Path) -> None:
    with (folder / LOGITS).open("ab") as stream:
        stream.write(bytes(1600))
    with pytest.raises(KitError, match=rf"damaged .* from sample {len(NAMES) - 1} "):
        read_logits(folder, NAMES, CARD)


@pytest.mark.parametrize("name", [LOGITS, DIGESTS])
def test_a_pipe_is_refused_unread(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(KitError, match="sample 0"):
        read_logits(folder, NAMES, CARD)


@pytest.mark.parametrize("more", ["garbage\n", "6\tclip-6\t{digest}\n"])
def test_digests_beyond_the_last_sample_are_of_no_account(folder: Path, more: str) -> None:
    digest = (folder / DIGESTS).read_text().splitlines()[0].split("\t")[2]
    with (folder / DIGESTS).open("a") as stream:
        stream.write(more.format(digest=digest))
    assert len(read_logits(folder, NAMES, CARD)[0]) == len(NAMES)
    rewrite(folder, lambda logits: logits[[0, 0, *range(2, len(NAMES))]])
    with pytest.raises(KitError, match=r"sample 1 \(clip-1\).* sample 0"):
        read_logits(folder, NAMES, CARD)


@pytest.mark.parametrize("text", ["", "0\tclip-0\tabc\n", "garbage"])
def test_torn_digests_name_the_first_line_lost(folder: Path, text: str) -> None:
    (folder / DIGESTS).write_text(text)
    with pytest.raises(KitError, match=r"results.tsv: line \d is not that of sample \d"):
        read_logits(folder, NAMES, CARD)


def test_a_changed_row_of_a_second_output_is_named(folder: Path) -> None:
    two = CARD.model_copy(update={"outputs": [*CARD.outputs, Tensor(name="place", dtype="int64", shape=[2])]})
    outputs = [np.load(folder / LOGITS), np.arange(12).reshape(6, 2)]
    write_logits(NAMES, outputs, folder, two)
    assert output_names(two) == [LOGITS, "logits.place.npy"]
    assert (read_logits(folder, NAMES, two)[1] == outputs[1]).all()
    outputs[1][4] += 1
    np.save(folder / "logits.place.npy", outputs[1])
    with pytest.raises(KitError, match=r"sample 4 \(clip-4\)"):
        read_logits(folder, NAMES, two)
