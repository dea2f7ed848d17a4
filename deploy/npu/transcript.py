"""What a tool printed and how it ended: the part of reading tools that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LINE_ENDS = re.compile(r"[\r\n]+")
LINE_CHARS = 4000
_QUOTE_CHARS = 240  # enough for a tool's error line, little enough for one sentence

_ENDINGS = {
    124: "ran past its deadline",  # timeout(1)
    126: "cannot be executed",
    127: "is not found",
    130: "was interrupted",
    134: "aborted",
    137: "was killed, most likely because the host ran out of memory",
    139: "crashed (segmentation fault)",
    143: "was terminated",
}


def lines(text: str) -> list[str]:
    """The non-empty lines of a terminal's text, without colours; a progress bar's `\\r` ends a line too.

    A line is cut after LINE_CHARS: no tool's is longer, and searching an endless one would take for ever.
    """
    stripped = (line[:LINE_CHARS].strip() for line in _LINE_ENDS.split(_ANSI.sub("", text)))
    return [line for line in stripped if line]


def quote(line: str) -> str:
    """A tool's own words, short enough to stand inside a sentence."""
    line = line.strip().rstrip(".;:")
    return line if len(line) <= _QUOTE_CHARS else line[: _QUOTE_CHARS - 1] + "…"


def first(text: str) -> str:
    """The first line, in quotes, or `nothing`."""
    return next((f"'{quote(line)}'" for line in lines(text)), "nothing")


def last(text: str) -> str:
    """The last line, in quotes, or `nothing`."""
    return next((f"'{quote(line)}'" for line in reversed(lines(text))), "nothing")


def is_signal(status: int) -> bool:
    """Whether an exit status is a signal's: -n, or 128 + n as shells have it."""
    return status < 0 or 128 < status < 128 + 65


def ending(status: int) -> str | None:
    """What an exit status says by itself, or None; a signal counts as 128 + n, as shells have it, or as -n."""
    return _ENDINGS.get(128 - status if status < 0 else status)


def forget_others(folder: Path, names: Sequence[Callable[[int | str], str]], own: Collection[int]) -> None:
    """Remove the files that `names` call after a number, but for those of the numbers in `own`."""
    kept = {name(number) for name in names for number in own}
    for name in names:
        for path in folder.glob(name("*")):
            if path.name not in kept:
                path.unlink()
