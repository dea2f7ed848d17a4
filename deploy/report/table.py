"""The verdict as a table on the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.console import mark

COLUMNS = (
    "batch_size",
    "samples",
    "top1",
    "top5",
    "top1_agreement",
    "cosine_min",
    "max_abs_err",
    "relative_error",
    "passed",
    "top1_hits",
    "top5_hits",
    "cosine_median",
    "mean_abs_err",
)
NESTED = {"throughput": ("median", "min", "max", "repeats", "idle", "noisy"), "latency_ms": ("median", "p99")}


def table(summary: Mapping[str, Any]) -> Group:
    """The results, how near they are to fp32's, and the verdict's line."""
    simulated = mark(summary["device"]["simulated"], summary["device"].get("health"))
    return Group(_results(summary, simulated), _nearness(summary, simulated), _verdict(summary, simulated))


def _results(summary: Mapping[str, Any], simulated: str) -> Table:
    device, n = summary["device"], summary["samples"]
    title = f"{device['soc_version']}{simulated}, CANN {device['cann']}, {n} samples"
    headings = ["batch size", "Top-1", "Top-5", "agreement with fp32", f"samples/s{simulated}", "gate"]
    if persons := summary["persons"]:
        title += f" as {persons['samples']} single persons, {persons['a_clip']:.3g} a sample"
        headings[0] = "batch size, persons"
        headings.insert(-1, f"persons/s{simulated}")
    grid = _grid(title, *headings)
    grid.add_row("fp32", *_accuracy(summary["reference"], n), style="dim")
    for row in summary["batches"]:
        mark = "✓" if row["passed"] else f"✗ {worst_error(row):.2%} off"
        agreement = f"{row['top1_agreement']:.2%}"
        cells = [str(row["batch_size"]), *_accuracy(row, n), agreement, _rate(row["throughput"])]
        if persons:
            cells.append(f"{row['persons']['throughput']['median']:.2f}" if row["persons"] else "")
        grid.add_row(*cells, mark, style=None if row["passed"] else "red")
    return grid


def _nearness(summary: Mapping[str, Any], simulated: str) -> Table:
    """How near the device's logits are to fp32's."""
    headings = ("flipped samples", "cosine min", "median", "max error", "mean")
    grid = _grid(f"logits{simulated} against fp32's", "batch", *headings)
    for row in summary["batches"]:
        grid.add_row(
            str(row["batch_size"]),
            str(row["flipped_count"]),
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
    line = f"verdict{simulated}: {word}, {which} within {100 * verdict['gate']:g}% (relative) of {against}"
    return Text(line, style="bold green" if verdict["passed"] else "bold red")


def _grid(title: str, *headings: str) -> Table:
    grid = Table(title=title, title_justify="left")
    for heading in headings:
        grid.add_column(heading, justify="right")
    return grid


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(summary: Mapping[str, Any]) -> str:
    """One row a batch size; the same keys as summary.json's, throughput and latency flattened."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    flat = [f"{group}_{name}" for group, names in NESTED.items() for name in names]
    writer.writerow([*map(as_text, (*COLUMNS, *flat)), "flipped", "simulated", "persons_per_sample"])
    for row in summary["batches"]:
        figures = [(row[group] or {}).get(name, "") for group, names in NESTED.items() for name in names]
        facts = [row["flipped_count"], summary["device"]["simulated"], (summary["persons"] or {}).get("a_clip", "")]
        writer.writerow([as_text(cell) for cell in (*(row[name] for name in COLUMNS), *figures, *facts)])
    return text.getvalue()


def as_text(cell: Any) -> Any:
    """A cell of a CSV: text that a spreadsheet would run as a formula (OWASP, CSV injection) is marked as text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def worst_error(row: Mapping[str, Any]) -> float:
    """The relative error that the gate judges a batch size by."""
    return float(max(row["relative_error"], row.get("published_relative_error", 0.0)))


def _accuracy(row: Mapping[str, Any], samples: int) -> list[str]:
    return [f"{row[name]:.2%} ({row[f'{name}_hits']}/{samples})" for name in ("top1", "top5")]


def _rate(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "not measured"
    marks = {"busy device": not figure["idle"], "noisy": figure["noisy"]}
    words = [*(word for word, holds in marks.items() if holds), *([health] if (health := figure.get("health")) else [])]
    return f"{figure['median']:.2f}" + (f" ({', '.join(words)})" if words else "")
