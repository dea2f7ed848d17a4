"""results.json and the tables that are made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import figures
from benchmarks.figures import BEGIN, END, LINES, Line
from benchmarks.harness import Spread

# Names that programs read (the list)
NAMED = [
    "preprocess_vs_guide",
    "preprocess_vs_cp",
    "push_vs_scp_sample",
    "push_vs_scp_incompressible",
    "whole_job_vs_guide",
    "whole_job_own_share",
    "score_vs_guide",
    "onnx_vs_guide_b1",
    "onnx_vs_guide_b8",
    "onnx_vs_sgemm",
    "one_person_clip",
    "half_and_half",
]


def test_the_table_is_made_of_results_json() -> None:
    text = figures.DOCUMENT.read_text(encoding="utf-8")
    assert text == figures.with_table(text, figures.markdown(*figures.load()))


def test_results_json_has_what_programs_read() -> None:
    for name, result in (each for kind in figures.load() for each in kind.items()):
        line = LINES[name]
        assert {line.key, "low", "high", "repeats", "target", "at_most", "machine"} == set(result), name
        assert result["low"] <= result[line.key] <= result["high"], name
        assert result["repeats"] >= 1
        assert (result["target"], result["at_most"]) == (line.target, line.at_most), name
    assert [name for name in LINES if name in NAMED] == NAMED
    assert all(LINES[name].key == "ratio" for name in NAMED)


RATIO = Line("one", "two", 4)
SECONDS = Line("one", "", 10, "s", at_most=True)
SHARE = Line("one", "", 0.8, "share")
CELLS = [
    (RATIO, Spread(5.123, 4.0, 12.34, 3), ["one", "two", "5.12×", "4.00× – 12.3×", "≥ 4× ✓"]),
    (RATIO, Spread(3.999, 3.999, 3.999, 1), ["one", "two", "4.00×", "", "≥ 4× ✗"]),
    (SHARE, Spread(0.756, 0.7, 1.02, 2), ["one", "", "76%", "70% – 102%", "≥ 80% ✗"]),
    (RATIO, None, ["one", "two", "not measured", "", "≥ 4×"]),
    (SECONDS, Spread(9.0, 8.0, 120.0, 5), ["one", "", "9.00 s", "8.00 s – 120 s", "≤ 10 s ✓"]),
    (SECONDS, Spread(10.1, 8.0, 12.0, 5), ["one", "", "10.1 s", "8.00 s – 12.0 s", "≤ 10 s ✗"]),
]


@pytest.mark.parametrize(("line", "spread", "cells"), CELLS)
def test_cells(line: Line, spread: Spread | None, cells: list[str]) -> None:
    result = figures.entry(line, spread, "2 cores") if spread else None
    assert figures.cells(line, result) == cells


def test_only_what_is_between_the_markers_is_replaced() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert figures.with_table(text, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    for broken in ("", BEGIN, f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="there is no"):
            figures.with_table(broken, "new\n")


def test_a_run_replaces_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this run left out has no figure of an earlier one."""
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results.json")
    document = tmp_path / "performance.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.setattr(figures, "DOCUMENT", document)
    figures.write({"push_unshaped": Spread(0.9, 0.8, 1.0, 3), "score": Spread(0.4, 0.3, 0.5, 5)}, "one machine", True)
    assert "without SHA instructions" not in document.read_text()
    figures.write({"score": Spread(0.7, 0.3, 0.9, 5)}, "one without", False)
    figures.write({"score": Spread(0.45678, 0.3, 0.5, 5)}, "another machine", True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["score"]
    assert results["score"]["seconds"] == 0.4568
    english = document.read_text()
    assert "| the same |  | 0.46 s | 0.30 s – 0.50 s | ≤ 0.6 s ✓ | 0.70 s ✗ |" in english
    assert english.count("not measured") == 2 * (len(LINES) - 1)
    assert english.index("another machine") < english.index("one without")
    assert "one machine" not in english
