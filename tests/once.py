"""What is costly to make, made once for all the workers of a run (pytest-xdist)."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Told = TypeVar("Told")


def made_once(request: pytest.FixtureRequest, name: str, make: Callable[[Path], Told]) -> tuple[Path, Told]:
    """A folder, and what make(folder) told: made by the first worker to ask, there for all, changed by none."""
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    if not hasattr(request.config, "workerinput"):
        folder = factory.mktemp(name)
        return folder, make(folder)
    folder = factory.getbasetemp().parent / name  # the workers' temporary folders lie beside each other
    with folder.with_suffix(".told").open("a+b") as told:
        fcntl.flock(told, fcntl.LOCK_EX)
        if not told.seek(0, os.SEEK_END):
            shutil.rmtree(folder, ignore_errors=True)  # what another worker failed to make
            folder.mkdir()
            told.write(pickle.dumps(make(folder)))
        told.seek(0)
        return folder, pickle.load(told)
