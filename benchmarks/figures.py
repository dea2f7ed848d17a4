"""Every figure that `make bench` takes, what it is to reach, and how results.json and the tables show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from benchmarks.harness import Spread
from deploy.inventory import ROOT
from stgcn.files import atomic_write

RESULTS = ROOT / "benchmarks" / "results.json"
BEGIN, END = "<!-- made by benchmarks/: begin -->", "<!-- made by benchmarks/: end -->"
READMES = {"README.md": "en", "README.zh.md": "zh"}
HEADINGS = {
    "en": ("what", "against", "measured", "spread", "target"),
    "zh": ("内容", "对比", "测得", "范围", "目标"),
}
KEYS = {
    "×": "ratio",
    "share": "ratio",
    "s": "seconds",
    "ms": "milliseconds",
    "MB": "megabytes",
    "MB/s": "megabytes_per_s",
    "R²": "r_squared",
}
LEFT_OUT = {"en": "not measured", "zh": "未测"}
CAPTION = {
    "en": "Median and spread of one run of `make bench`: {machine}.",
    "zh": "`make bench` 一次运行的中位数与范围：{machine}。",
}


@dataclass(frozen=True)
class Line:
    """What a figure is. `unit`: × (a ratio), share, s, ms, MB, MB/s, R²; `target` is a most for `at_most`."""

    en: str
    zh: str
    against: Mapping[str, str]
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
        digits = 4 if self.unit == "R²" else 2 if figure < 10 else 1 if figure < 100 else 0
        return f"{figure:.{digits}f}{self._suffix}"

    def goal(self) -> str:
        if self.target is None:
            return ""
        figure = f"{self.target:.0%}" if self.unit == "share" else f"{self.target:g}{self._suffix}"
        return f"{'≤' if self.at_most else '≥'} {figure}"

    @property
    def _suffix(self) -> str:
        return {"×": "×", "R²": ""}.get(self.unit, f" {self.unit}")


GUIDE = {"en": "the guide's way", "zh": "指南的做法"}
CP = {"en": "`cp` of the array", "zh": "`cp` 数组文件"}
SCP = {"en": "`scp -r`", "zh": "`scp -r`"}
LIMIT = {"en": "the slower of cipher and disk", "zh": "加密与磁盘中较慢者"}
SGEMM = {"en": "the machine's sgemm", "zh": "本机 sgemm"}
ALONE = {"en": "", "zh": ""}
LINES: dict[str, Line] = {
    "preprocess_vs_guide": Line("preprocess, 3000 clips", "预处理 3000 个样本", GUIDE, 12),
    "preprocess_vs_cp": Line("its time as a multiple", "耗时之比", CP, 2.5, at_most=True),
    "preprocess_memory_3000": Line("its peak memory, 3000 clips", "内存峰值，3000 个样本", ALONE, 150, "MB", True),
    "preprocess_memory_19796": Line("the same, 19796 clips", "内存峰值，19796 个样本", ALONE, 150, "MB", True),
    "preprocess_line": Line("a straight line in N", "耗时与 N 成直线", ALONE, 0.99, "R²"),
    "push_vs_scp_sample": Line("push at 1 Gbit/s and 1 ms, sample clips", "1 Gbit/s、1 ms 推送样例数据", SCP, 8),
    "push_vs_scp_incompressible": Line("the same, incompressible clips", "推送不可压缩数据", SCP, 3),
    "push_unshaped": Line("push on an open link, as a share", "链路不限速时推送的占比", LIMIT, None, "share"),
    "unshaped_push": Line("its rate", "推送速率", ALONE, None, "MB/s"),
    "unshaped_cipher": Line("the cipher's, alone", "单独加密", ALONE, None, "MB/s"),
    "unshaped_disk": Line("the disk's, alone and synced", "单独落盘", ALONE, None, "MB/s"),
    "results_back": Line("results back, 19796", "取回 19796 个结果", ALONE, 2, "s", True),
    "results_back_vs_scp": Line("the same", "取回结果", SCP, None),
    "score_vs_guide": Line("score, 19796 results", "计算 19796 个结果的精度", GUIDE, 4),
    "score": Line("the same", "计算精度耗时", ALONE, 0.6, "s", True),
    "onnx_vs_guide_b1": Line("`winograd` ONNX on the CPU, batch 1", "`winograd` ONNX，CPU，batch 1", GUIDE, 1.25),
    "onnx_vs_guide_b8": Line("`winograd` ONNX on the CPU, batch 8", "`winograd` ONNX，CPU，batch 8", GUIDE, 1.25),
    "fused_vs_guide_b1": Line("`fused` ONNX on the CPU, batch 1", "`fused` ONNX，CPU，batch 1", GUIDE, None),
    "fused_vs_guide_b8": Line("`fused` ONNX on the CPU, batch 8", "`fused` ONNX，CPU，batch 8", GUIDE, None),
    "onnx_vs_sgemm": Line("`fused`: its FLOP/s as a share", "`fused` 的 FLOP/s 占比", SGEMM, 0.8, "share"),
    "one_person_clip": Line(
        "a clip with one person", "单人样本", {"en": "both persons computed", "zh": "两人都计算"}, 1.9
    ),
    "half_and_half": Line(
        "half of the clips with one", "一半样本为单人", {"en": "both persons computed", "zh": "两人都计算"}, 1.3
    ),
    "demo_second_run": Line("`make demo` again", "再次 `make demo`", ALONE, 10, "s", True),
    "ray_task": Line("a task on Ray that does nothing", "Ray 上的一个空任务", ALONE, None, "ms"),
    "ray_task_control": Line("of that the control's own work", "其中控制端自身的时间", ALONE, None, "ms"),
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


def write(spreads: Mapping[str, Spread], machine: str) -> None:
    """results.json, and the READMEs' tables made of it."""
    results = {name: entry(line, spreads[name], machine) for name, line in LINES.items() if name in spreads}
    with atomic_write(RESULTS) as file:
        file.write((json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    for name, language in READMES.items():
        readme = ROOT / name
        text = with_table(readme.read_text(encoding="utf-8"), markdown(results, language))
        with atomic_write(readme) as file:
            file.write(text.encode())


def load() -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def with_table(text: str, table: str) -> str:
    """A README with its table replaced. Raises ValueError if it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN} with an {END} behind it")
    return f"{before}{begin}\n{table}{end}{after}"


def markdown(results: Mapping[str, Mapping[str, Any]], language: str) -> str:
    rows = [list(HEADINGS[language]), ["---"] * len(HEADINGS[language])]
    rows += [cells(line, results.get(name), language) for name, line in LINES.items()]
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    machines = sorted({result["machine"] for result in results.values()})
    return table + "".join("\n" + CAPTION[language].format(machine=machine) + "\n" for machine in machines)


def cells(line: Line, result: Mapping[str, Any] | None, language: str) -> list[str]:
    what, against = getattr(line, language), line.against[language]
    if result is None:
        return [what, against, LEFT_OUT[language], "", line.goal()]
    mark = "" if line.target is None else " ✓" if line.reached(result[line.key]) else " ✗"
    spread = f"{line.shown(result['low'])} – {line.shown(result['high'])}" if result["repeats"] > 1 else ""
    return [what, against, line.shown(result[line.key]), spread, line.goal() + mark]


def terminal(spreads: Mapping[str, Spread], machine: str) -> Table:
    """What was measured, for the console."""
    grid = Table(*HEADINGS["en"], title=machine)
    for name, line in LINES.items():
        if name in spreads:
            style = None if line.reached(spreads[name].median) else "red"
            grid.add_row(*cells(line, entry(line, spreads[name], machine), "en"), style=style)
    return grid
