"""The verdict as a table on the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.console import mark

NESTED = {"throughput": ("median", "min", "max", "repeats", "idle", "noisy"), "latency_ms": ("median", "p99")}


def table(summary: Mapping[str, Any]) -> Group:
    """The results, how near they are to fp32's, and the verdict's line."""
    simulated = mark(summary["device"]["simulated"], summary["device"].get("health"))
    return Group(_results(summary, simulated), _nearness(summary, simulated), _verdict(summary, simulated))


def _results(summary: Mapping[str, Any], simulated: str) -> Table:
    device, n = summary["device"], summary["samples"]
    title = f"{device['soc_version']}{simulated}, CANN {device['cann']}, {n} samples"
    metrics, agreement = summary["metrics"], agreement_of(summary)
    titles = [metric["title"] for metric in metrics]
    headings = ["batch size", *titles, *(["agreement with fp32"] if agreement else []), f"samples/s{simulated}", "gate"]
    gpu = summary.get("gpu")
    if gpu:
        kind, idle = gpu["device"]["kind"], gpu["idle"]
        busy = " (busy)" if idle is False else " (idle not known)" if idle is None and kind != "cpu" else ""
        headings.insert(-1, f"fp32 on {kind}{busy}")
    if persons := summary["persons"]:
        title += f" as {persons['samples']} single persons, {persons['a_clip']:.3g} a sample"
        headings[0] = "batch size, persons"
        headings.insert(-1, f"persons/s{simulated}")
    grid = _grid(title, *headings)
    grid.add_row("fp32", *_accuracy(summary["reference"], metrics, n), style="dim")
    for row in summary["batches"]:
        mark = "✓" if row["passed"] else f"✗ {row['decisive']['relative_error']:.2%} off"
        agreed = [f"{row[agreement]:.2%}"] if agreement else []
        several = (row["throughput"] or {}).get("threads")
        size = f"{row['batch_size']}, {several} threads" if several else str(row["batch_size"])
        cells = [size, *_accuracy(row, metrics, n), *agreed, _rate(row["throughput"])]
        if gpu:
            cells.append(_beside(row["gpu"]))
        if persons:
            cells.append(f"{row['persons']['throughput']['median']:.2f}" if row["persons"] else "")
        grid.add_row(*cells, mark, style=None if row["passed"] else "red")
    return grid


def _nearness(summary: Mapping[str, Any], simulated: str) -> Table:
    """How near the device's first output is to fp32's."""
    classified = "flipped_count" in summary
    headings = (*(["flipped samples"] if classified else []), "cosine min", "median", "max error", "mean")
    grid = _grid(f"{'logits' if classified else 'first output'}{simulated} against fp32's", "batch", *headings)
    for row in summary["batches"]:
        grid.add_row(
            str(row["batch_size"]),
            *([str(row["flipped_count"])] if classified else []),
            f"{row['cosine_min']:.6f}",
            f"{row['cosine_median']:.6f}",
            f"{row['max_abs_err']:.2g}",
            f"{row['mean_abs_err']:.2g}",
        )
    return grid


def _verdict(summary: Mapping[str, Any], simulated: str) -> Text:
    verdict = summary["verdict"]
    word = "PASSED" if verdict["passed"] else "FAILED"
    which = "every batch size is" if verdict["passed"] else "not every batch size is"
    against = "the fp32 reference" + (" and of the published accuracy" if summary["reference"]["published"] else "")
    line = f"verdict{simulated}: {word}, {which} within {allowed(summary)} (relative) of {against}"
    return Text(line, style="bold green" if verdict["passed"] else "bold red")


def _grid(title: str, *headings: str) -> Table:
    grid = Table(title=title, title_justify="left")
    for heading in headings:
        grid.add_column(heading, justify="right")
    return grid


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(summary: Mapping[str, Any]) -> str:
    """One row per batch size; the same keys as summary.json's, throughput and latency flattened."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    flat = [f"{group}_{name}" for group, names in NESTED.items() for name in names]
    columns = _columns(summary)
    writer.writerow([*map(as_text, (*columns, *flat)), "flipped", "simulated", "persons_per_sample"])
    for row in summary["batches"]:
        figures = [(row[group] or {}).get(name, "") for group, names in NESTED.items() for name in names]
        facts = [
            row.get("flipped_count", ""),
            summary["device"]["simulated"],
            (summary["persons"] or {}).get("a_clip", ""),
        ]
        writer.writerow([as_text(cell) for cell in (*(row[name] for name in columns), *figures, *facts)])
    return text.getvalue()


def as_text(cell: Any) -> Any:
    """A cell of a CSV: text that a spreadsheet would run as a formula (OWASP, CSV injection) is marked as text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def off(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """How far a batch size is off by the metric that decides, and what its gate allows."""
    decisive = row["decisive"]
    title = next(metric["title"] for metric in summary["metrics"] if metric["key"] == decisive["metric"])
    against = "fp32" if decisive["against"] == "fp32" else "the published accuracy"
    error, gate = decisive["relative_error"], decisive["gate"]
    return f"{title} {100 * error:.3g}% (relative) off {against}, {100 * gate:g}% allowed"


def allowed(summary: Mapping[str, Any]) -> str:
    """The gates: one where all metrics have the same, else each metric's."""
    gates = {metric["title"]: f"{100 * metric['gate']:g}%" for metric in summary["metrics"]}
    if len(set(gates.values())) == 1:
        return next(iter(gates.values()))
    return ", ".join(f"{gate} for {title}" for title, gate in gates.items())


def agreement_of(summary: Mapping[str, Any]) -> str | None:
    """The key of the share of samples that get fp32's answer; None where answers are not classes."""
    key = f"{summary['metrics'][0]['key']}_agreement"
    return key if key in summary["batches"][0] else None


def shown(value: float, unit: str) -> str:
    """A metric's value as tables have it."""
    return f"{value:.2%}" if unit == "share" else f"{value:.6g}"


def _columns(summary: Mapping[str, Any]) -> list[str]:
    keys, agreement = [metric["key"] for metric in summary["metrics"]], agreement_of(summary)
    counted = [f"{key}_hits" for key in keys if f"{key}_hits" in summary["reference"]]
    near = ["cosine_min", "max_abs_err", "relative_error", "passed", *counted, "cosine_median", "mean_abs_err"]
    return ["batch_size", "samples", *keys, *([agreement] if agreement else []), *near]


def _accuracy(row: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], samples: int) -> list[str]:
    hits = [row.get(f"{metric['key']}_hits") for metric in metrics]
    values = [shown(row[metric["key"]], metric["unit"]) for metric in metrics]
    return [value if hit is None else f"{value} ({hit}/{samples})" for value, hit in zip(values, hits, strict=True)]


def _beside(gpu: Mapping[str, Any] | None) -> str:
    """The fp32 figure, and how many times it the NPU's is."""
    if gpu is None:
        return "not measured"
    times = f" ({gpu['times']:.2f}×)" if gpu["times"] else ""
    noisy = " (noisy)" if gpu["noisy"] else ""
    return f"{gpu['median']:.2f}{times}{noisy}"


def _rate(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "not measured"
    marks = {"busy device": not figure["idle"], "noisy": figure["noisy"]}
    words = [*(word for word, holds in marks.items() if holds), *([health] if (health := figure.get("health")) else [])]
    return f"{figure['median']:.2f}" + (f" ({', '.join(words)})" if words else "")
