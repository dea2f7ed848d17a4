"""What the operator asked of one command, beside the inventory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The switches of a command line."""

    fresh: bool = False  # ignore what is cached
    dry: bool = False  # print what would run, on which host
    force: bool = False  # take figures on a busy device, marked
