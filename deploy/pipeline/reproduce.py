"""`reproduce.sh` beside each stage's artefacts: the exact commands of its steps, to be run by hand on their host."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.pipeline import graph
from deploy.pipeline.manifest import OK, Manifest
from stgcn.errors import sentence
from stgcn.files import atomic_write, sha256_file

NAME = "reproduce.sh"
_ABOUT = "# What ran, as it ran. Each part is run on the host that it names."


def write(manifest: Manifest) -> None:
    """Write every script again whose steps have run."""
    for folder, names in graph.folders(manifest.steps).items():
        text = script(manifest.steps, names)
        path = manifest.workspace / folder / NAME
        if text is None or holds(path, text):
            continue
        with atomic_write(path) as stream:
            os.fchmod(stream.fileno(), 0o755)
            stream.write(text.encode())


def holds(path: Path, text: str) -> bool:
    """Whether a script is there and this."""
    return path.is_file() and sha256_file(path) == hashlib.sha256(text.encode()).hexdigest()


def script(entries: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """The script of the steps among `names` that finished; None where none did."""
    done = [name for name in names if entries.get(name, {}).get("state") == OK]
    if not done:
        return None
    lines = [line for name in done for line in _part(name, entries[name])]
    return "\n".join(["#!/usr/bin/env bash", _ABOUT, "set -euo pipefail", *lines]) + "\n"


def _part(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield sentence(f"# {name} on {entry['host']}, for {entry['by']}, {entry['started']}")
    yield sentence(f"# kit revision {entry['revision']}, key {entry['key']}")
    for path, output in entry["outputs"].items():
        yield sentence(f"# made {path}, sha256 {output['sha256']}")
    for variable in _variables(entry):
        yield f'export {variable}="${{{variable}?set it first, as tools.env of the inventory has it}}"'
    for argv in [*entry.get("prepare", ()), *entry["commands"]]:
        yield shlex.join(argv)


def _variables(entry: Mapping[str, Any]) -> list[str]:
    """The names of the variables that a step was given; their values are recorded nowhere."""
    given = entry["inputs"].get("env")
    names = given.get("names") if isinstance(given, dict) else None
    return [str(name) for name in names or () if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name))]
