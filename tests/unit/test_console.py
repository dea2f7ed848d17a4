"""What is printed is text, wherever it comes from."""

from __future__ import annotations

import pytest
from rich.console import Group
from rich.table import Table

from deploy.console import console, say

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9bd [bold]e[/nope] :bomb: \ud800\u202ef"
SHOWN = "abcd [bold]e[/nope] :bomb: \\ud800f"


def test_a_line_is_printed_without_control_sequences_markup_and_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    assert capsys.readouterr().out == SHOWN + "\n"


def test_so_is_a_table_in_title_heading_and_cell(capsys: pytest.CaptureFixture[str]) -> None:
    grid = Table(title=HOSTILE)
    grid.add_column(HOSTILE)
    grid.add_row(HOSTILE)
    console.print(Group(grid))
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 3
    assert "\x1b" not in out
