"""`fab compare RUN_A RUN_B`: what two runs differ in, and what is worse or better beyond noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from deploy.console import console, mark, say, table
from deploy.errors import KitError, reject_malformed
from deploy.evidence import profile, regression
from deploy.evidence.regression import Comparison
from deploy.evidence.runs import Run, by_size
from deploy.outcome import Outcome
from deploy.pipeline import graph
from stgcn import plain_json

NOT_RESULTS = ("batch_size", "samples")  # of a batch size's row
LISTED = 12  # nodes of two profiles


def print_comparison(a: Run, b: Run) -> Outcome:
    """Print what changed in inputs, in results and, by the tests of `significance`, beyond noise."""
    with reject_malformed(f"{a.folder} or {b.folder}"):
        changed = list(inputs(a.manifest.steps, b.manifest.steps))
        differing, found = list(results(a.summary, b.summary)), figures(a, b)
        ids = a.id, b.id
        simulated = mark(b.summary["device"]["simulated"], b.summary["device"].get("health"))
    _print("inputs and versions", ("step", "input", *ids), changed)
    _print("results", ("batch size", "result", *ids), differing)
    each = (
        (size, profile_of(a, size), profile_of(b, size))
        for size in sorted(by_size(a.summary).keys() & by_size(b.summary))
    )
    both = [(size, before, now) for size, before, now in each if before and now]
    for _, before, now in both:
        print_profiles(before, now, a.id)
    for comparison in found:
        say(f"bs{comparison.batch_size} {comparison.figure}{simulated}: {comparison.detail}")
    named = [{"id": run.id, "folder": str(run.folder)} for run in (a, b)]
    return Outcome(
        {
            "runs": named,
            "inputs": [dict(zip(("step", "input", "a", "b"), row, strict=True)) for row in changed],
            "results": [dict(zip(("batch_size", "result", "a", "b"), row, strict=True)) for row in differing],
            "comparisons": [comparison.as_json() for comparison in found],
            "profiles": [
                {
                    "batch_size": size,
                    **{
                        part: [{"name": row.name, "before_us": row.before, "now_us": row.after} for row in rows]
                        for part, rows in zip(("blocks", "nodes"), profile.changes(before, now), strict=True)
                    },
                }
                for size, before, now in both
            ],
        }
    )


def profile_of(run: Run, batch_size: int) -> dict[str, Any] | None:
    """What `fab npu-profile` found in a run; None where it did not run."""
    path = run.folder / f"npu/bs{batch_size}/profile.json"
    with reject_malformed(path):
        return dict(plain_json.load(path)) if path.is_file() else None


def print_profiles(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Print two profile.json side by side, by block and by nodes; by sample where they are of two batch sizes."""
    sizes = before["batch_size"], now["batch_size"]
    a_sample = " a sample" if sizes[0] != sizes[1] else ""
    scale = sizes if a_sample else (1, 1)
    of_size = "" if a_sample else f", batch size {sizes[0]}"
    blocks, of_nodes = profile.changes(before, now)
    for title, changes in (("block", blocks), ("nodes", of_nodes)):
        text = f"against {name}{of_size}: ms{a_sample} by {title}, what changed most first"
        numbers = ("before", "now", "change")
        rows = [(row, (row.before or 0) / scale[0] / 1000, (row.after or 0) / scale[1] / 1000) for row in changes]
        rows.sort(key=lambda row: -abs(row[2] - row[1]))
        cells = [
            (
                Text(of.name),
                "" if of.before is None else f"{was:.3f}",
                "" if of.after is None else f"{is_now:.3f}",
                f"{is_now - was:+.3f}",
            )
            for of, was, is_now in rows
        ]
        cells = cells if title == "block" else cells[:LISTED]
        console.print(table((title, *numbers), cells, text, numbers))


def figures(a: Run, b: Run) -> list[Comparison]:
    """What of `b` is worse or better; runs of different things have no samples in common, only rates."""
    try:
        regression.refuse_others(a, b)
    except KitError as error:
        say(str(error), "yellow")
        return regression.rates(a.summary, b.summary)
    return regression.comparisons(a, b)


def inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(step, input, in a, in b) of every input that differs; `-` where there is none."""
    for step in sorted({*a, *b} - set(graph.VERDICT)):
        ours, theirs = (dict(_flat(side.get(step, {}).get("inputs", {}))) for side in (a, b))
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                yield step, name, _shown(ours.get(name)), _shown(theirs.get(name))


def results(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(batch size, result, in a, in b) of every result that differs."""
    if a["samples"] != b["samples"]:
        yield "all", "samples", str(a["samples"]), str(b["samples"])
    ours, theirs = by_size(a), by_size(b)
    sizes = [(str(size), ours.get(size, {}), theirs.get(size, {})) for size in sorted({*ours, *theirs})]
    for of, one, other in (("fp32", a["reference"], b["reference"]), *sizes):
        for name in _scalars(one, other):
            if one.get(name) != other.get(name):
                yield of, name, _shown(one.get(name)), _shown(other.get(name))


def _scalars(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The names of what is one number in either row, the verdict last."""
    names = dict.fromkeys(name for row in (a, b) for name, value in row.items() if isinstance(value, (int, float)))
    return [name for name in names if name not in NOT_RESULTS]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield prefix + name, item


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text[:12] if len(text) == 64 else text


def _print(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        say(f"{title}: the same")
        return
    console.print(table(headings, rows, title))
