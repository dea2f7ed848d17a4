"""What a user sees of a long job."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from stgcn.progress import Progress


def test_a_line_for_every_tenth(capsys: Any) -> None:
    progress = Progress("clips", 100, done=25)
    for _ in range(25):
        progress.advance(3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"{n}/100 clips" for n in (31, 40, 52, 61, 70, 82, 91, 100)]
    assert re.fullmatch(r"100/100 clips, \S+ per second, 0:00 left", lines[-1])


def test_a_bar_on_a_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("clips", 2)
    progress.advance(1)
    progress.advance(1)
    shown = capsys.readouterr().err
    assert re.fullmatch(r"\r\[#{15}\.{15}\] 1/2 clips, .*\r\[#{30}\] 2/2 clips, .* left\x1b\[K\n", shown)
