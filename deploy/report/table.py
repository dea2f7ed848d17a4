"""The verdict as a table on the terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

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
)
FIGURES = ("median", "min", "max", "repeats", "idle")


def table(summary: Mapping[str, Any]) -> Group:
    device = summary["device"]
    simulated = " (simulated)" if device["simulated"] else ""
    n = summary["samples"]
    grid = Table(title=f"{device['soc_version']}{simulated}, CANN {device['cann']}, {n} samples", title_justify="left")
    for heading in ("batch size", "Top-1", "Top-5", "agreement with fp32", f"samples/s{simulated}", "gate"):
        grid.add_column(heading, justify="right")
    reference = summary["reference"]
    grid.add_row("fp32", _percent(reference["top1"]), _percent(reference["top5"]), "", "", "", style="dim")
    for row in summary["batches"]:
        grid.add_row(
            str(row["batch_size"]),
            _percent(row["top1"]),
            _percent(row["top5"]),
            _percent(row["top1_agreement"]),
            _rate(row["throughput"]),
            "✓" if row["passed"] else f"✗ {row['relative_error']:.2%} off",
            style=None if row["passed"] else "red",
        )
    verdict = summary["verdict"]
    word = "PASSED" if verdict["passed"] else "FAILED"
    which = "every batch size is" if verdict["passed"] else "not every batch size is"
    line = f"verdict{simulated}: {word}, {which} within {verdict['gate']:.0%} (relative) of the fp32 reference"
    return Group(grid, Text(line, style="bold green" if verdict["passed"] else "bold red"))


def to_csv(summary: Mapping[str, Any]) -> str:
    """One row a batch size; the same keys as summary.json's, throughput flattened."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"throughput_{name}" for name in FIGURES), "simulated"])
    for row in summary["batches"]:
        figure = row["throughput"] or {}
        cells = [row[name] for name in COLUMNS] + [figure.get(name, "") for name in FIGURES]
        writer.writerow([*cells, summary["device"]["simulated"]])
    return text.getvalue()


def _percent(rate: float) -> str:
    return f"{rate:.2%}"


def _rate(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "not measured"
    return f"{figure['median']:.2f}" + ("" if figure["idle"] else " (busy device)")
