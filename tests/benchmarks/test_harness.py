"""Turns, ratios and their spread; where the data go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Scratch, Spread
from deploy.errors import KitError


@pytest.mark.parametrize(
    ("figures", "spread"),
    [
        ([3.0], Spread(3.0, 3.0, 3.0, 1)),
        ([9.0, 1.0, 2.0], Spread(2.0, 1.0, 9.0, 3)),
        ([1.0, 2.0, 3.0, 10.0], Spread(2.5, 1.0, 10.0, 4)),
    ],
)
def test_the_spread_of_figures(figures: list[float], spread: Spread) -> None:
    assert Spread.of(figures) == spread


def test_ratios_are_taken_repeat_by_repeat() -> None:
    # A machine that is three times as slow in one repeat slows both sides, and changes no ratio
    assert Spread.of_ratios([10.0, 30.0, 11.0], [2.0, 6.0, 2.0]) == Spread(5.0, 5.0, 5.5, 3)


def test_a_repeat_that_one_side_lacks_is_a_defect() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Spread.of_ratios([1.0, 2.0], [1.0])


def test_ways_take_turns_and_none_is_always_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "TOUCHED_BYTES", harness.PAGE)
    order: list[str] = []

    def way(name: str, figure: float) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return figure + len(order)

        return run

    figures = Scratch(tmp_path, "tmpfs").in_turns({"a": way("a", 0), "b": way("b", 100)}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [1, 4, 5], "b": [102, 103, 106]}


def test_a_program_that_fails_is_named_with_its_last_line() -> None:
    program = [sys.executable, "-c", "import sys; sys.exit('first\\nno clips')"]
    with pytest.raises(KitError, match=r"\(no clips\): .*python"):
        harness.run(*program)


def test_peak_memory_is_the_programs_alone() -> None:
    filler = bytearray(200_000_000)
    filler[::4096] = bytes(len(filler[::4096])).replace(b"\0", b"\1")  # this process has them resident
    assert harness.module_peak_mb("this") < 100


@pytest.mark.parametrize(("filesystem", "stays"), [("tmpfs", False), ("ext2/ext3", True)])
def test_a_fresh_folder_stays_on_a_disk(tmp_path: Path, filesystem: str, stays: bool) -> None:
    place = Scratch(tmp_path, filesystem)
    with place.fresh() as one, place.fresh() as other:
        (one / "file").write_text("")
        assert one != other
        assert not list(other.iterdir())
    assert one.exists() == stays


def test_a_place_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "none"))
    with pytest.raises(KitError, match=r"8 GiB in .*none.*SCRATCH"), harness.scratch():
        pass
