"""Source files and the digest over them: what runs, whatever the revision says. Nothing else hashes sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def source_files(*paths: Path) -> dict[str, Path]:
    """The files among `paths` and below its folders, by their names there; caches and hidden ones are no sources."""
    found = {path.name: path for path in paths if path.is_file()}
    for folder in (path for path in paths if path.is_dir()):
        for place, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
            files = (Path(place, name) for name in names if not name.startswith("."))
            found |= {file.relative_to(folder).as_posix(): file for file in files if file.is_file()}
    return dict(sorted(found.items()))


def sources_sha256(*paths: Path) -> str:
    """sha256 (hex) over source files, and those below folders."""
    return digest([(name, path.read_bytes()) for name, path in source_files(*paths).items()])


def by_folder(files: Mapping[str, Path]) -> dict[str, list[Path]]:
    """The files of each folder, by the folder's name; "." is first."""
    found: dict[str, list[Path]] = {}
    for name, path in sorted(files.items(), key=lambda item: item[0].count("/")):
        found.setdefault(str(Path(name).parent), []).append(path)
    return found


def digest(files: Sequence[tuple[str, bytes]]) -> str:
    """sha256 (hex) over names and contents."""
    sha = hashlib.sha256()
    for name, content in files:
        sha.update(name.encode() + b"\0" + content)
    return sha.hexdigest()
