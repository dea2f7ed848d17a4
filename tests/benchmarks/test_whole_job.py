"""What is taken out of the whole job's time: the time of the tools, counted once where two run at a time."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from benchmarks import whole_job


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(5, 6), (1, 3)], 3),
        ([(1, 4), (2, 3), (3, 6)], 5),
    ],
)
def test_seconds_in_which_a_tool_ran(spans: list[tuple[float, float]], seconds: float) -> None:
    assert whole_job.covered(spans) == seconds


def test_a_programs_start_is_not_multiplied() -> None:
    assert whole_job.continued((10, 1000), [5 + 0.1, 5 + 10.0], 19796) == pytest.approx(5 + 197.96)


def test_only_the_wanted_runs_of_a_program_are_noted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = whole_job._program(tmp_path / "sh", whole_job._TIMED, wanted="*0.2*", program="/bin/sh", log=log)
    before = time.time()
    assert subprocess.run([program, "-c", "exit 3"]).returncode == 3
    assert not log.exists()
    assert subprocess.run([program, "-c", "sleep 0.2; exit 4"]).returncode == 4
    ((begin, end),) = whole_job._spans(log)
    assert before <= begin
    assert 0.2 <= end - begin <= time.time() - before
