"""What a reader sees of a job's folder: every file under its own name is whole, as before a run or as after it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.pipeline.manifest import FAILED, canonical

_TEXT = (".json", ".html", ".sh", ".csv", ".yaml")
_RUN = r"\d{8}T\d{6}-[0-9a-f]{32}"
# What differs from one run to the next: when it ran, how long it took, and the digests of what says so.
_PASSING = re.compile(
    rf"{_RUN}|\d{{4}}-\d\d-\d\d[T ][\d:.]+(?:\+00:00)?|\b[0-9a-f]{{8,64}}\b|\d+\.?\d* (?:s|min|h)\b"
    r'|(?<=<i style=")margin-left: [\d.]+%; width: [\d.]+%'  # when in the run each step was
    r'|(?<=class="number">)[\d.]+|(?<="seconds":)[\d. ]+|(?<="samples_per_s":)[\d. ]+|(?<="bytes":)[\d. ]+'
)
# What of an accuracy run this command did itself, and how fast; which samples a page could show; what was timed, and
# read of a device while it ran, which is nothing where a run is over before the first reading.
_PASSING_FACTS = {"units", "aggregate", "drawn", "end_to_end", "h2d", "d2h", "sensors"}
_ASIDE = re.compile(r"\.|.*\.(?:part|tmp|new|log)$")  # what is written aside, and logs, which grow


def visible(folder: Path) -> Iterator[Path]:
    """The files of a job that go by their own names: no folder above them is hidden or aside."""
    for path in folder.iterdir():
        if not _ASIDE.match(path.name):
            if path.is_dir() and not path.is_symlink():
                with suppress(FileNotFoundError):
                    yield from visible(path)
            else:
                yield path


def states(folder: Path) -> dict[str, set[str]]:
    """name -> what is said there, for every visible file of a job; passing things (times, ids of runs) masked."""
    found: dict[str, set[str]] = {}
    for path in visible(folder):
        found.setdefault(_name(path, folder), set()).update(_said(path, folder))
    return found


class Reader:
    """Reads every visible file again whenever it is another one than before. `legal`: what may be said in each."""

    def __init__(self, folder: Path, legal: dict[str, set[str]]) -> None:
        self.torn: list[str] = []
        self.read = 0
        self._folder, self._legal = folder, legal
        self._seen: set[tuple[str, int, int, int]] = set()

    def look(self) -> None:
        for path in visible(self._folder):
            with suppress(FileNotFoundError):  # replaced between two looks
                status = path.stat()
                identity = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
                if identity not in self._seen:
                    self._seen.add(identity)
                    self._check(path)

    def _check(self, path: Path) -> None:
        name = _name(path, self._folder)
        said = _said(path, self._folder)
        self.read += 1
        if said - self._legal.get(name, set()) and not _is_page(path):
            self.torn.append(name)


def _is_page(path: Path) -> bool:
    """A page that lacks a drawing, for its clip could not be read, is another one but whole: the next run makes it."""
    return path.suffix == ".html" and path.read_bytes().rstrip().endswith(b"</html>")


def _name(path: Path, folder: Path) -> str:
    return re.sub(_RUN, "RUN", path.relative_to(folder).as_posix())


def _said(path: Path, folder: Path) -> set[str]:
    """Digests of what a file says: of the whole, or of each entry of a manifest, which grows by entries."""
    data = path.read_bytes()
    if path.suffix not in _TEXT:
        return {hashlib.sha256(data).hexdigest()}
    text = data.decode()
    if path.suffix != ".json":
        return {_masked(text, folder)}
    try:
        record = lasting(json.loads(text))
    except ValueError:
        return {f"torn: {text}"}
    if path.name != "manifest.json":
        return {_masked(json.dumps(record), folder)}
    entries = {name: canonical(entry).decode() for name, entry in record["steps"].items() if entry["state"] != FAILED}
    return {f"{name}: {_masked(entry, folder)}" for name, entry in entries.items()}


def lasting(record: Any, besides: str = "") -> Any:
    """A record without its passing facts, nor what is called `besides`."""
    if isinstance(record, dict):
        kept = {name: value for name, value in record.items() if name not in {*_PASSING_FACTS, besides}}
        return {name: lasting(value, besides) for name, value in kept.items()}
    return [lasting(value, besides) for value in record] if isinstance(record, list) else record


def _masked(text: str, folder: Path) -> str:
    return _PASSING.sub("*", text.replace(str(folder), "JOB"))
