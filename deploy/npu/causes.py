"""What the tools of an NPU host say when they fail, and what to do: the tables of causes.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from deploy.npu import transcript

_IN_ANY_CASE = ("ais_bench", "npu-smi")


def find(table: str, lines: Sequence[str], **words: str) -> tuple[str, str] | None:
    """(what was said, what to do) of the first pattern in the order of a table; None where no line tells one."""
    for pattern, sentence in _tables()[table].items():
        search = re.compile(pattern, re.IGNORECASE if table in _IN_ANY_CASE else 0).search
        if found := next(filter(None, map(search, lines)), None):
            return found[0], sentence.format(*(transcript.quote(group or "") for group in found.groups()), **words)
    return None


def phrase(name: str) -> str:
    """What several sentences have in them."""
    return _tables()["phrases"][name]


@lru_cache(maxsize=1)
def _tables() -> Mapping[str, Mapping[str, str]]:
    found: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for name in found["phrases"]:  # one may have those before it in it
        for rows in found.values():
            rows |= {pattern: text.replace(f"{{{name}}}", found["phrases"][name]) for pattern, text in rows.items()}
    return found
