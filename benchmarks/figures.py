"""Every figure that `make bench` takes, what it is to reach, and how results.json and the tables show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from benchmarks.harness import Spread
from deploy.inventory import ROOT
from stgcn.files import write_whole

RESULTS = ROOT / "benchmarks" / "results.json"
WITHOUT_SHA = "results_without_sha.json"  # of a CPU on which a sha256 takes four times as long
BEGIN, END = "<!-- made by benchmarks/: begin -->", "<!-- made by benchmarks/: end -->"
DOCUMENT = ROOT / "docs" / "benchmark.md"
HEADINGS = ("what", "against", "measured", "spread", "target", "without SHA instructions")
KEYS = {
    "×": "ratio",
    "share": "ratio",
    "s": "seconds",
    "ms": "milliseconds",
    "MB": "megabytes",
    "MB/s": "megabytes_per_s",
    "files": "files",
    "R²": "r_squared",
}
LEFT_OUT = "not measured"
CAPTION = "Of one run of `make bench`: {machine}."


@dataclass(frozen=True)
class Line:
    """What a figure is. `unit`: × (a ratio), share, s, ms, MB, MB/s, files, R²; `target` is a most for `at_most`."""

    what: str
    against: str
    target: float | None
    unit: str = "×"
    at_most: bool = False

    @property
    def key(self) -> str:
        """Of the median in results.json."""
        return KEYS[self.unit]

    def reached(self, median: float) -> bool:
        return self.target is None or (median <= self.target if self.at_most else median >= self.target)

    def shown(self, figure: float) -> str:
        if self.unit == "share":
            return f"{figure:.0%}"
        digits = {"R²": 4, "files": 0}.get(self.unit, 2 if figure < 10 else 1 if figure < 100 else 0)
        return f"{figure:.{digits}f}{self._suffix}"

    def goal(self) -> str:
        if self.target is None:
            return ""
        figure = f"{self.target:.0%}" if self.unit == "share" else f"{self.target:g}{self._suffix}"
        return f"{'≤' if self.at_most else '≥'} {figure}"

    @property
    def _suffix(self) -> str:
        return {"×": "×", "R²": ""}.get(self.unit, f" {self.unit}")


GUIDE = "the guide's way"
CP = "`cp` of the array"
SCP = "`scp -r`"
LIMIT = "the slower of cipher and disk"
SGEMM = "the machine's sgemm"
ALONE = ""
LINES: dict[str, Line] = {
    "preprocess_vs_guide": Line("preprocess, 3000 clips", GUIDE, 12),
    "preprocess_vs_cp_3000": Line("its time as a multiple, half of it Python's start", CP, None),
    "preprocess_vs_cp": Line("the same, 19796 clips", CP, 1.5, at_most=True),
    "preprocess_memory_3000": Line("peak memory of its larger process, 3000 clips", ALONE, 150, "MB", True),
    "preprocess_memory_19796": Line("the same, 19796 clips", ALONE, 150, "MB", True),
    "preprocess_line": Line("a straight line in N", ALONE, 0.99, "R²"),
    "push_vs_scp_sample": Line("push at 1 Gbit/s and 1 ms, sample clips", SCP, 8),
    "push_vs_scp_incompressible": Line("the same, incompressible clips", SCP, 4),
    "push_unshaped": Line("push on an open link, as a share", LIMIT, 0.75, "share"),
    "unshaped_push": Line("its rate", ALONE, None, "MB/s"),
    "unshaped_cipher": Line("the cipher's, alone", ALONE, None, "MB/s"),
    "unshaped_disk": Line("the disk's, alone and synced", ALONE, None, "MB/s"),
    "results_back": Line("results back, 19796", ALONE, 2, "s", True),
    "results_back_vs_scp": Line("the same", SCP, None),
    "whole_job_vs_guide": Line("the whole job, the tools' time apart", GUIDE, 12),
    "whole_job": Line("its own seconds", ALONE, None, "s"),
    "whole_job_own_share": Line("the same", "the guide's device, 494 s", 0.1, "share", True),
    "whole_job_memory": Line("its stages' peak memory, more than for 5120 clips", ALONE, 256, "MB", True),
    "whole_job_open_files": Line("and their open files", ALONE, 8, "files", True),
    "score_vs_guide": Line("score, 19796 results", GUIDE, None),
    "score": Line("the same", ALONE, 0.6, "s", True),
    "score_vs_guide_legacy": Line("the same, both under the guide's Python and numpy", GUIDE, 4),
    "onnx_vs_guide_b1": Line("`winograd` ONNX on the CPU, batch 1", GUIDE, 1.25),
    "onnx_vs_guide_b8": Line("`winograd` ONNX on the CPU, batch 8", GUIDE, 1.25),
    "fused_vs_guide_b1": Line("`fused` ONNX on the CPU, batch 1", GUIDE, None),
    "fused_vs_guide_b8": Line("`fused` ONNX on the CPU, batch 8", GUIDE, None),
    "onnx_vs_sgemm": Line("`fused`: its FLOP/s as a share", SGEMM, 0.8, "share"),
    "one_person_clip": Line("a clip with one person", "both persons computed", 1.9),
    "half_and_half": Line("half of the clips with one", "both persons computed", 1.3),
    "demo_second_run": Line("`make demo` again", ALONE, 10, "s", True),
    "ray_task": Line("a task on Ray that does nothing", ALONE, None, "ms"),
    "ray_task_control": Line("of that the control's own work", ALONE, None, "ms"),
}


def entry(line: Line, spread: Spread, machine: str) -> dict[str, Any]:
    """A figure as results.json has it."""
    figures = {line.key: spread.median, "low": spread.low, "high": spread.high}
    return {
        **{key: float(f"{figure:.4g}") for key, figure in figures.items()},
        "repeats": spread.repeats,
        "target": line.target,
        "at_most": line.at_most,
        "machine": machine,
    }


def write(spreads: Mapping[str, Spread], machine: str, has_sha: bool) -> None:
    """The results of this kind of CPU, and the table of docs/benchmark.md made of both kinds'."""
    results = {name: entry(line, spreads[name], machine) for name, line in LINES.items() if name in spreads}
    path = RESULTS if has_sha else RESULTS.with_name(WITHOUT_SHA)
    write_whole(path, (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    write_whole(DOCUMENT, with_table(DOCUMENT.read_text(encoding="utf-8"), markdown(*load())).encode())


def load() -> list[dict[str, dict[str, Any]]]:
    """The results of both kinds of CPU, those without SHA instructions last."""
    paths = (RESULTS, RESULTS.with_name(WITHOUT_SHA))
    return [json.loads(path.read_text(encoding="utf-8")) if path.exists() else {} for path in paths]


def with_table(text: str, table: str) -> str:
    """A document with its table replaced. Raises ValueError if it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN} with an {END} behind it")
    return f"{before}{begin}\n{table}{end}{after}"


def markdown(results: Mapping[str, Mapping[str, Any]], without_sha: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [list(HEADINGS), ["---"] * len(HEADINGS)]
    rows += [[*cells(line, results.get(name)), _median(line, without_sha.get(name))] for name, line in LINES.items()]
    columns = len(HEADINGS) if without_sha else len(HEADINGS) - 1
    table = "".join("| " + " | ".join(row[:columns]) + " |\n" for row in rows)
    machines = dict.fromkeys(result["machine"] for kind in (results, without_sha) for result in kind.values())
    return table + "".join("\n" + CAPTION.format(machine=machine) + "\n" for machine in machines)


def cells(line: Line, result: Mapping[str, Any] | None) -> list[str]:
    """Of a row, but for its last one."""
    if result is None:
        return [line.what, line.against, LEFT_OUT, "", line.goal()]
    spread = f"{line.shown(result['low'])} – {line.shown(result['high'])}" if result["repeats"] > 1 else ""
    return [line.what, line.against, line.shown(result[line.key]), spread, line.goal() + _mark(line, result)]


def _median(line: Line, result: Mapping[str, Any] | None) -> str:
    return LEFT_OUT if result is None else line.shown(result[line.key]) + _mark(line, result)


def _mark(line: Line, result: Mapping[str, Any]) -> str:
    return "" if line.target is None else " ✓" if line.reached(result[line.key]) else " ✗"


def terminal(spreads: Mapping[str, Spread], machine: str) -> Table:
    """What was measured, for the console."""
    grid = Table(*HEADINGS[:-1], title=machine)
    for name, line in LINES.items():
        if name in spreads:
            style = None if line.reached(spreads[name].median) else "red"
            grid.add_row(*cells(line, entry(line, spreads[name], machine)), style=style)
    return grid
