"""What is printed is text, wherever it comes from; the bars of all threads share one display."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console, Group
from rich.table import Table

from deploy import progress as bars
from deploy.console import console, say
from deploy.progress import progress

HOSTILE = "a\x1b[31mb\x1b]0;title\x07c\x9bd [bold]e[/nope] :bomb: \ud800\u202ef"
SHOWN = "abcd [bold]e[/nope] :bomb: \\ud800f"


@pytest.mark.parametrize("color", ["", "1"], ids=["plain", "by rich"])
def test_a_line_is_printed_without_control_sequences_markup_and_emoji(
    color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", color)
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


@pytest.mark.parametrize(
    ("encoding", "cells"),
    [
        ("gbk", "| ok | failed, 芯片 |"),
        ("latin-1", "| ok | failed, ?? |"),
        ("ascii", "| ok | failed, ?? |"),
        ("utf-8", "│ ✓ │ ✗, 芯片 │"),
    ],
)
def test_where_the_terminal_lacks_a_mark_a_word_stands_for_it(encoding: str, cells: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="words")
    grid = Table("a", "b", show_header=False)
    grid.add_row("✓", "✗, 芯片")
    type(console)(file=file, width=60).print(grid)
    file.flush()
    shown = file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert cells in shown
    print("✗", file=file, flush=True)
    assert file.buffer.getvalue().decode(encoding).endswith("✗\n" if encoding == "utf-8" else "failed\n")  # type: ignore[attr-defined]


def test_bars_of_several_threads_share_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(bars, "console", terminal)
    monkeypatch.setattr(bars, "_bars", bars._Bars())
    both, ends = threading.Barrier(2), [threading.Event(), threading.Event()]

    def show(number: int) -> None:
        with progress(f"part {number}", 2) as advance:
            both.wait(5)
            advance()
            ends[number].wait(5)

    threads = [threading.Thread(target=show, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for end, thread in zip(ends, threads, strict=True):
        end.set()
        thread.join()
    assert "part 1" in terminal.file.getvalue()  # type: ignore[attr-defined]
    with progress("later", 1) as advance:
        advance()
    assert "later" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_not_counted_has_a_bar_that_moves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(bars, "console", terminal)
    monkeypatch.setattr(bars, "_bars", bars._Bars())
    with bars.activity("export"), progress("clips", 4) as advance:
        advance(2)
        bars._bars._progress.refresh()
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "export" in shown
    assert "0 s" in shown
    assert "2/4" in shown
