"""What the operator sees: one console, progress that is a bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from stgcn.errors import in_encoding, tolerate_narrow_output
from stgcn.errors import printable as printable

tolerate_narrow_output()


class _Console(Console):
    """Text is text, in lines and in tables: no control sequence, markup or emoji code in it means anything.

    What the terminal's encoding lacks is in words before it is measured, so that columns stay under each other.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        shown = in_encoding(printable(text), self.encoding)
        return super().render_str(shown, **{**options, "markup": False, "emoji": False})


console = _Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = max(console.width, 120)  # of a log; rich would cut its tables to 80 without COLUMNS

_PLAIN_EVERY_S = 5.0


def say(text: str, style: str | None = None) -> None:
    """Print one line of the kit's own."""
    console.print(text, style=style)


def mark(simulated: bool, health: str | None = None) -> str:
    """What follows each figure of a simulated host, and of a device whose health is not OK."""
    words = [*(["simulated"] if simulated else []), *([f"device health {health}"] if health else [])]
    return f" ({', '.join(words)})" if words else ""


def check_mark(passed: bool) -> Text:
    """✓ or ✗, or a word where the terminal has no such character."""
    return console.render_str("✓" if passed else "✗", style="green" if passed else "red")


def let_go_of_output() -> None:
    """After a failure: what the output did not take is not tried again at the very end, where it makes a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


class Advance(Protocol):
    def __call__(self, amount: int = 1) -> None: ...


class _Bars:
    """One display for all bars: a terminal has room for one, and what runs side by side shows several."""

    def __init__(self) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._progress = Progress(TextColumn("{task.description}"), *columns, console=console, transient=True)
        self._shown, self._lock = 0, threading.Lock()

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        self._count(1)
        task = self._progress.add_task(label, total=total)
        try:
            yield lambda amount=1: self._progress.advance(task, amount)
        finally:
            self._progress.remove_task(task)
            self._count(-1)

    def _count(self, by: int) -> None:
        with self._lock:
            self._shown += by
            if self._shown == by == 1:
                self._progress.start()
            elif not self._shown:
                self._progress.stop()


_bars = _Bars()


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Yield `advance(amount)`; shows a bar on a terminal, a line every few seconds elsewhere."""
    if console.is_terminal:
        with _bars.bar(label, total) as on_bar:
            yield on_bar
        return
    done, start, shown = 0, time.monotonic(), time.monotonic()

    def advance(amount: int = 1) -> None:
        nonlocal done, shown
        done += amount
        now = time.monotonic()
        if now - shown >= _PLAIN_EVERY_S and done < total:
            shown = now
            rate = done / (now - start)
            say(f"  {label}: {done}/{total}, {rate:.1f}/s, {(total - done) / max(rate, 1e-9):.0f} s left")

    yield advance
