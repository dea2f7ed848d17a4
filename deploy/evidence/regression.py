"""What of a run is worse, or better, than of an earlier one, beyond noise: by the tests of `significance`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from deploy.errors import KitError
from deploy.evidence import significance
from deploy.evidence.logits import LOGITS
from deploy.evidence.runs import Run, by_size
from deploy.pipeline.artefacts import exported_card
from deploy.pipeline.model import Metric
from deploy.report.table import shown
from stgcn import npy

Verdict = Literal["worse", "better", "same"]
REPEATS = 2  # a figure of fewer has no spread


@dataclass(frozen=True)
class Comparison:
    """One figure of one batch size in both runs. `verdict` is None where it cannot be told."""

    batch_size: int
    figure: str  # `throughput`, or a metric's key
    before: float | None
    now: float | None
    verdict: Verdict | None
    detail: str  # the figures and what they say
    p_value: float | None = None  # of being worse by chance

    @property
    def change(self) -> float | None:
        """Relative."""
        return self.now / self.before - 1 if self.before and self.now is not None else None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "change": self.change}


def refuse_others(before: Run, now: Run) -> None:
    """Raises KitError where two runs are not of the same model, samples, chip and persons: naming what differs."""
    ours, theirs = _kind(before), _kind(now)
    differing = [f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise KitError(f"{before.id} and {now.id} are not comparable: {'; '.join(differing)}; name another run")


def _kind(run: Run) -> dict[str, str]:
    """What two runs must have in common for their figures to be of the same thing."""
    summary, read = run.summary, run.manifest.steps["preprocess"]["inputs"]
    device = summary["device"]
    return {
        "model": exported_card(run.manifest).name,
        "dataset": str(read["data"])[:12],
        "labels": str(read["labels"])[:12],
        "samples": str(summary["samples"]),
        "chip": device["soc_version"] + (" (simulated)" if device["simulated"] else ""),
        "persons": "nonempty" if summary.get("persons") else "both",
    }


def comparisons(before: Run, now: Run) -> list[Comparison]:
    """Of each batch size of both: the answers, the other metrics, the throughput.

    Raises:
        KitError: a kept file was changed since.
    """
    for run in (before, now):
        run.manifest.output("score", run.folder / "report/summary.json", "make score")
    both = _both(before.summary, now.summary)
    card = exported_card(now.manifest)
    first = card.metrics[0]
    found = list(_answers(before, now, both, first.key) if card.classes else ())
    gates = card.gates(float(now.summary["verdict"]["gate"]))
    for metric in card.metrics[1 if card.classes else 0 :]:
        found += _metric(both, metric, gates[metric.key])
    return [*found, *_rates(both)]


def rates(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Comparison]:
    """The throughput of each batch size of two summaries."""
    return list(_rates(_both(a, b)))


def _both(a: Mapping[str, Any], b: Mapping[str, Any]) -> Both:
    ours, theirs = by_size(a), by_size(b)
    return {size: (ours[size], theirs[size]) for size in sorted(ours.keys() & theirs.keys())}


Both = Mapping[int, tuple[Mapping[str, Any], Mapping[str, Any]]]  # the rows of a batch size in either summary


def _rates(both: Both) -> Iterator[Comparison]:
    figures = {size: (a["throughput"], b["throughput"]) for size, (a, b) in both.items()}
    reasons = {size: _untold(*pair) for size, pair in figures.items()}
    values = {size: (a["values"], b["values"]) for size, (a, b) in figures.items() if reasons[size] is None}
    slower = {size: significance.slower(*pair) for size, pair in values.items()}
    faster = {size: significance.slower(now, before) for size, (before, now) in values.items()}
    kinds = _kinds(slower, faster, significance.ALPHA_RATES)
    for size, (a, b) in figures.items():
        medians = [figure["median"] if figure else None for figure in (a, b)]
        if reason := reasons[size]:
            told = " → ".join("none" if median is None else f"{median:.2f}" for median in medians)
            yield Comparison(size, "throughput", medians[0], medians[1], None, f"{told} samples/s; {reason}")
            continue
        if values[size][0] == values[size][1]:
            same = f"{_spread(a)} samples/s: the same measurement"
            yield Comparison(size, "throughput", medians[0], medians[1], "same", same, 1.0)
            continue
        change = significance.change(*values[size])
        kind = kinds[size]
        words = {"worse": "slower, beyond noise", "better": "faster, beyond noise", "same": "within noise"}
        least = significance.detectable(*values[size], len(values))
        detail = (
            f"{_spread(a)} → {_spread(b)} samples/s, {change:+.1%}: {words[kind]}"
            f" (p {slower[size]:.2g}; a slowdown of {least:.1%} would be found)"
        )
        yield Comparison(size, "throughput", medians[0], medians[1], kind, detail, slower[size])


def _kinds(p_worse: Mapping[int, float], p_better: Mapping[int, float], alpha: float) -> dict[int, Verdict]:
    worse, better = (significance.beyond_noise(p, alpha) for p in (p_worse, p_better))
    return {size: "worse" if size in worse else "better" if size in better else "same" for size in p_worse}


def _untold(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> str | None:
    """Why two figures cannot be compared."""
    if a is None or b is None:
        return "not measured in both"
    if not (a["idle"] and b["idle"]):
        return "taken on a busy device: cannot be told"
    if min(len(x.get("values", ())) for x in (a, b)) < REPEATS:
        return f"fewer than {REPEATS} repeats have no spread: cannot be told"
    return None


def _spread(figure: Mapping[str, Any]) -> str:
    return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f}, {len(figure['values'])} repeats)"


def _answers(before: Run, now: Run, both: Both, key: str) -> Iterator[Comparison]:
    """Each sample's answer in either run, right or wrong."""
    counts = {}
    for size in both:
        was, is_now = (_right(run, size) for run in (before, now))
        counts[size] = (int((was & ~is_now).sum()), int((is_now & ~was).sum()))
    fewer = {size: significance.fewer_right(lost, gained) for size, (lost, gained) in counts.items()}
    more = {size: significance.fewer_right(gained, lost) for size, (lost, gained) in counts.items()}
    kinds = _kinds(fewer, more, significance.ALPHA_ANSWERS)
    for size, (a, b) in both.items():
        lost, gained = counts[size]
        kind = kinds[size]
        words = {"worse": "worse, beyond noise", "better": "better, beyond noise", "same": "within noise"}
        detail = (
            f"{a[key]:.2%} → {b[key]:.2%}, {lost} samples turned wrong and {gained} right: {words[kind]}"
            f" (p {fewer[size]:.2g})"
        )
        yield Comparison(size, key, a[key], b[key], kind, detail, fewer[size])


def _right(run: Run, size: int) -> np.ndarray:
    """Which samples have their label for an answer, (n,) bool."""
    logits = run.manifest.output(f"accuracy/bs{size}", run.folder / f"npu/bs{size}" / LOGITS, "fab npu-bench")
    labels = run.manifest.output("preprocess", run.folder / "gpu/labels.npy", "make gpu-stage")
    try:
        return np.asarray(npy.load(logits).argmax(1) == npy.load(labels))
    except (OSError, ValueError) as error:
        raise KitError(f"{logits}: damaged ({error}); name another run") from None


def _metric(both: Both, metric: Metric, gate: float) -> Iterator[Comparison]:
    """A metric of the whole set, of which no sample's share is kept: it may lose what the gate allows."""
    key, sign = metric.key, 1 if metric.better == "higher" else -1
    for size, (a, b) in both.items():
        gained = sign * (b[key] - a[key]) / abs(a[key]) if a[key] else float(np.sign(sign * (b[key] - a[key])))
        kind: Literal["worse", "same"] = "worse" if gained < -gate else "same"
        words = "worse by more than" if kind == "worse" else "within"
        told = " → ".join(shown(row[key], metric.unit) for row in (a, b))
        yield Comparison(size, key, a[key], b[key], kind, f"{told}: {words} {100 * gate:g}% (relative)")
