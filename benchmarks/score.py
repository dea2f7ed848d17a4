"""Top-1 and Top-5 of a folder with a result a sample: against the guide's script, whole commands.

In today's environment, and in the guide's (Python 3.7 and its numpy, whose sort is several times as slow) where this
machine has a Python 3.7: PYTHON37=PROGRAM, python3.7 on PATH, or pyenv's.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.harness import Scratch, Spread, Way, module, run
from deploy.errors import KitError
from deploy.inventory import ROOT

REPEATS = 5
LOCK = ROOT / "docker/gpu/requirements.lock"  # of the guide's environment


def compare(place: Scratch) -> dict[str, Spread]:
    labels = data.write_labels(place.folder / "labels.pkl", [index * 7 % 400 for index in range(data.WHOLE)])
    with place.fresh() as folder:
        results = data.results(folder / "results", labels)

        flags = ("--result_dir", results, "--label_path", labels)
        took = _in(place, sys.executable, *flags)
        figures = {"score_vs_guide": Spread.of_ratios(took["guide"], took["kit"]), "score": Spread.of(took["kit"])}
        if legacy := _legacy_python(place):
            took = _in(place, legacy, *flags)
            figures["score_vs_guide_legacy"] = Spread.of_ratios(took["guide"], took["kit"])
    return figures


def _in(place: Scratch, python: str | Path, *flags: str | Path) -> dict[str, list[float]]:
    """Seconds of both ways in one Python."""
    ways: dict[str, Way] = {
        "guide": partial(module, "benchmarks.guide.score", *flags, python=python),
        "kit": partial(module, "stgcn.score", *flags, python=python),
    }
    return place.in_turns(ways, REPEATS)


def _legacy_python(place: Scratch) -> Path | None:
    """A Python 3.7 with the numpy of the guide's environment; None where this machine has no Python 3.7."""
    python = place.folder / "legacy/bin/python"
    named = [Path(name) for name in (os.environ.get("PYTHON37"), shutil.which("python3.7")) if name]
    for candidate in [*named, *Path.home().glob(".pyenv/versions/3.7.*/bin/python3.7")]:
        with suppress(KitError):  # pyenv's own python3.7 is there without any Python 3.7
            run(candidate, "-m", "venv", "--clear", python.parent.parent)
            break
    else:
        return None
    wanted = re.search(r"^numpy==.*\n(?: .*\n)+", LOCK.read_text(), re.M)
    assert wanted
    numpy = place.folder / "numpy.lock"
    numpy.write_text(wanted[0])
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", numpy)
    return python
