from __future__ import annotations

import pytest

from deploy.npu import transcript


def test_lines_know_colours_and_progress_bars() -> None:
    text = "\x1b[1;32m[INFO]\x1b[0m a\r\nbar:  50%|##  |\rbar: 100%|####|\n\n  b  \n"
    assert transcript.lines(text) == ["[INFO] a", "bar:  50%|##  |", "bar: 100%|####|", "b"]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("", "nothing", "nothing"), ("\n\n", "nothing", "nothing"), ("a.\nb\nc;\n", "'a'", "'c'")],
)
def test_first_and_last(text: str, first: str, last: str) -> None:
    assert (transcript.first(text), transcript.last(text)) == (first, last)


def test_a_quote_fits_into_a_sentence() -> None:
    assert len(transcript.quote("x" * 10_000)) < 300


@pytest.mark.parametrize(
    ("status", "words"),
    [(137, "memory"), (-9, "memory"), (124, "deadline"), (139, "crashed"), (-15, "terminated"), (1, None), (0, None)],
)
def test_endings(status: int, words: str | None) -> None:
    ending = transcript.ending(status)
    assert ending is None if words is None else ending and words in ending


@pytest.mark.parametrize(
    ("status", "signal"), [(0, False), (1, False), (128, False), (137, True), (-9, True), (255, False)]
)
def test_a_signal_is_told_from_an_exit_status(status: int, signal: bool) -> None:
    assert transcript.is_signal(status) is signal
