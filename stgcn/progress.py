"""How far a long job is: a bar on a terminal, a line for every tenth elsewhere, on standard error."""

from __future__ import annotations

import sys
import time

BAR_WIDTH = 30


class Progress:
    """Counts `unit`s (clips, shards) up to `total`; `done` of them were done in an earlier run."""

    def __init__(self, unit: str, total: int, done: int = 0) -> None:
        self.unit, self.total, self.done = unit, total, done
        self.done_before, self.started = done, time.monotonic()

    def advance(self, count: int) -> None:
        """`count` more are done."""
        tenth = 10 * self.done // self.total
        self.done += count
        if sys.stderr.isatty():
            filled = BAR_WIDTH * self.done // self.total
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            end = "\n" if self.done == self.total else ""
            print(f"\r[{bar}] {self._state()}\x1b[K", end=end, file=sys.stderr, flush=True)
        elif 10 * self.done // self.total > tenth:
            print(self._state(), file=sys.stderr, flush=True)

    def _state(self) -> str:
        rate = (self.done - self.done_before) / max(time.monotonic() - self.started, 1e-9)
        left = round((self.total - self.done) / rate)
        return f"{self.done}/{self.total} {self.unit}, {rate:.3g} per second, {left // 60}:{left % 60:02d} left"
