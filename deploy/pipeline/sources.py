"""Source files and the digest over them: what runs, whatever the revision says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".py", ".txt", ".json", ".j2", ".css", ".js")


def source_files(*paths: Path) -> list[Path]:
    """The sources among files and those directly in folders, in one order."""
    every = (file for path in paths for file in (path.iterdir() if path.is_dir() else [path]))
    return sorted(file for file in every if file.suffix in SUFFIXES)


def sources_sha256(*paths: Path) -> str:
    """sha256 (hex) over source files, and those directly in folders."""
    return digest([(path.name, path.read_bytes()) for path in source_files(*paths)])


def digest(files: Sequence[tuple[str, bytes]]) -> str:
    """sha256 (hex) over names and contents."""
    sha = hashlib.sha256()
    for name, content in files:
        sha.update(name.encode() + b"\0" + content)
    return sha.hexdigest()
