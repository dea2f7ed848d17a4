"""No reader takes memory out of proportion to the file, or for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.inventory import ROOT
from tests.fuzz.bombs import BOMBS

pytestmark = pytest.mark.full
HANG_S = 300  # of all bombs together, which take a few seconds
MIB = 1 << 20
FREE_MIB = 40  # an allocator's own, and a codec's window
PROPORTION = 64  # memory to file: at the worst an object of Python's for every other byte


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int, str]]:
    """Bomb -> (bytes of the file, MiB that memory grew by, taken or refused)."""
    argv = [sys.executable, "-m", "tests.fuzz.bombs", str(tmp_path_factory.mktemp("bombs"))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return {name: (int(size), int(growth), end) for name, size, growth, end in rows}


@pytest.mark.parametrize(("target", "name"), BOMBS)
def test_memory_stays_in_proportion_to_the_file(target: str, name: str, grown: dict[str, tuple[int, int, str]]) -> None:
    size, growth, _ = grown[f"{target}: {name}"]
    assert growth <= FREE_MIB + PROPORTION * size // MIB


@pytest.mark.parametrize("name", ["2^60 clips", "a number of 4290 digits"])
def test_a_claim_is_refused(name: str, grown: dict[str, tuple[int, int, str]]) -> None:
    assert grown[f"clips: {name}"][2] == "refused"
