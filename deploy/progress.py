"""How far something is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from deploy.console import console, say

_PLAIN_EVERY_S = 5.0


class _State(ProgressColumn):
    """How many units of how many, their rate and the time left; the time since then, where nothing is counted."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.elapsed or 0:.0f} s")
        rate = f", {task.speed:.1f}/s" if task.speed else ""
        left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
        return Text(f"{task.completed:.0f}/{task.total:.0f}{rate}{left}")


class Advance(Protocol):
    def __call__(self, amount: int = 1) -> None: ...


class _Bars:
    """One display for all bars: a terminal has room for one, and what runs side by side shows several."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), _State())
        self._progress = Progress(*columns, console=console, transient=True)
        self._shown, self._lock = 0, threading.Lock()

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Advance]:
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
def activity(label: str) -> Iterator[None]:
    """While inside, a terminal shows a bar that moves, and for how long already; what is counted has its own beside."""
    if not console.is_terminal:
        yield
        return
    with _bars.bar(label, None):
        yield


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
