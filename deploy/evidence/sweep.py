"""What `fab npu-tune` found: what came of each candidate, which wins; whether tune.json follows from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml

from deploy.console import mark
from deploy.errors import KitError
from deploy.evidence.differences import refuse_any_difference, refuse_difference
from deploy.evidence.logits import output_names
from deploy.evidence.scores import Score, scores
from deploy.pipeline.artefacts import dataset_index, exported_card, reference_names
from deploy.pipeline.build import with_mode
from deploy.pipeline.manifest import OK, Manifest
from deploy.pipeline.model import Model
from deploy.report.summary import Judged, farthest, relative_errors
from stgcn import plain_json
from stgcn.files import read_record

FORMAT = 1


@dataclass(frozen=True)
class Candidate:
    """One way to make an OM."""

    variant: str
    precision_mode: str
    aoe: int | None  # AOE's job type, None for ATC alone
    batch_size: int
    persons: str = "both"
    threads: int = 1

    @property
    def setting(self) -> str:
        """All but the batch size and the threads: how its OM is made."""
        alone = "" if self.persons == "both" else f", persons {self.persons}"
        tuner = f", AOE job type {self.aoe}" if self.aoe else ""
        return f"{self.variant}{alone}, {self.precision_mode}{tuner}"

    def __str__(self) -> str:
        together = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.setting}, batch size {self.batch_size}{together}"

    @property
    def slug(self) -> str:
        tuner = f"-aoe{self.aoe}" if self.aoe else ""
        alone = "" if self.persons == "both" else f"-{self.persons}"
        return f"{self.variant}{alone}-{self.precision_mode}{tuner}-bs{self.batch_size}"


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate: its figure and accuracy, or why there is none."""

    candidate: Candidate
    throughput: Mapping[str, Any] | None = None
    score: Score | None = None
    judged: Judged | None = None  # its accuracy, by the metric that is farthest off for its gate
    error: str | None = None
    latency_ms: float | None = None  # of a batch: p99 of computing, with both copies
    copies_ms: float = 0.0  # of those
    bound_ms: float | None = None  # that the inventory allows

    @property
    def in_time(self) -> bool:
        return self.bound_ms is None or (self.latency_ms is not None and self.latency_ms <= self.bound_ms)

    @property
    def accurate(self) -> bool:
        """Whether it has a figure and passed the gate."""
        return self.throughput is not None and self.judged is not None and self.judged.passed

    @property
    def passed(self) -> bool:
        return self.accurate and self.in_time

    @property
    def median(self) -> float:
        return float(self.throughput["median"]) if self.throughput else 0.0

    def record(self) -> dict[str, Any]:
        return {
            **vars(self.candidate),
            "throughput": self.throughput,
            "latency_ms": self.latency_ms,
            "relative_error": self.judged.relative_error if self.judged else None,
            "error": self.error,
            **(self.score.metrics if self.score else {}),
            "passed": self.passed,
        }


def copies_of(figure: Mapping[str, Any]) -> float:
    """Milliseconds a batch: the medians of both copies, where the tool told them."""
    latency = figure["latency_ms"]
    return float(sum(latency[way]["median"] for way in ("h2d", "d2h") if latency.get(way)))


def rank(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that pass the gate, within the bound on latency, by throughput; of equal ones the smallest batch first, as
    its samples wait least; then the others."""
    return sorted(outcomes, key=lambda outcome: (not outcome.passed, -outcome.median, outcome.candidate.batch_size))


def verdict(ranked: Sequence[Outcome]) -> str:
    """Which candidate wins, and by how much over the next best setting."""
    best = ranked[0]
    line = f"winner: {best.candidate} with {best.median:.2f} samples/s"
    if best.bound_ms is not None:
        line += f", p99 of a batch {best.latency_ms:.2f} ms of the {best.bound_ms:g} ms allowed"
    others = [each for each in ranked[1:] if each.passed and each.candidate.setting != best.candidate.setting]
    if not others or best.throughput is None or others[0].throughput is None:
        return line
    line += f", {best.median / others[0].median - 1:.1%} over {others[0].candidate}"
    overlap = best.throughput["min"] <= others[0].throughput["max"]
    return line + (" (their repeats overlap, so it may be chance)" if overlap else "")


def judge(found: Score, expected: Score, gates: Mapping[str, float]) -> Judged:
    """The device's accuracy against the fp32 reference's on the same samples."""
    return farthest(relative_errors(found.metrics, expected.metrics), gates)


def lines(ranked: Sequence[Outcome], atc: Mapping[str, str], tools: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The winner's lines for the inventory; `atc` are its flags, `tools` and `facts` of its device."""
    if not ranked[0].passed:
        return "# No candidate passed the gate.\n"
    winner = ranked[0].candidate
    keys: dict[str, Any] = {
        "variant": winner.variant,
        "persons": winner.persons,
        "atc": with_mode(atc, winner.precision_mode),
        "aoe": winner.aoe,
        "batch_sizes": [winner.batch_size],
    }
    if winner.threads != tools["benchmark"]["threads"]:
        keys["benchmark"] = {**tools["benchmark"], "threads": winner.threads}
    target = f"{tools['soc_version']} with CANN {tools['cann']}{mark(facts['simulated'], facts['health'])}"
    text = yaml.safe_dump(keys, sort_keys=False, default_flow_style=None)
    return f"# fab npu-tune, {target}; {verdict(ranked)}\n{text}"


def check(manifest: Manifest, model: Model) -> None:
    """Whether tune.json and the lines for the inventory follow from what each candidate left; the accuracy, as far as
    the labels and the reference are still those that it was tried with.

    Raises:
        KitError: naming the outcome that does not follow.
    """
    folder, entry = manifest.workspace / "tune", manifest.steps["tune"]
    path, inputs = folder / "tune.json", entry["inputs"]
    if "benchmark" not in inputs:
        return  # of an earlier version of the kit, which did not record it
    told = plain_json.load(path)
    refuse_any_difference(path, {"format": FORMAT, **inputs}, told, "its record")
    candidates = [Candidate(**{each.name: row[each.name] for each in fields(Candidate)}) for row in told["outcomes"]]
    whole = [_is_whole(manifest, candidate, inputs) for candidate in candidates]
    for candidate, row, there in zip(candidates, told["outcomes"], whole, strict=True):
        if there is not (row["error"] is None):
            what = f"failed ({row['error']})" if there else "finished"
            raise KitError(f"{path}: it says that {candidate} {what}, and its steps say otherwise; run `fab npu-tune`")
    current = all(_is_current(manifest, candidate) for candidate, there in zip(candidates, whole, strict=True) if there)
    judged = _judged(manifest, model, [c for c, there in zip(candidates, whole, strict=True) if there], inputs)
    outcomes = [
        judged.get(candidate) or Outcome(candidate, error=row["error"])
        for candidate, row in zip(candidates, told["outcomes"], strict=True)
    ]
    for i, outcome in enumerate(outcomes):
        kept = ("error", "passed") if outcome.error else () if current else ("throughput", "latency_ms")
        again = {name: value for name, value in outcome.record().items() if not kept or name in kept}
        refuse_difference(path, again, told["outcomes"][i], "the candidate's files", f"outcomes[{i}]")
    if not current:
        return
    if rank(outcomes) != outcomes:
        raise KitError(f"{path}: its outcomes are not in the order of their throughput; run `fab npu-tune`")
    flags = manifest.steps[f"convert/tune/{candidates[0].slug}"]["inputs"]["flags"] if outcomes[0].passed else {}
    if read_record(folder / "inventory.yaml") != lines(outcomes, flags, inputs, entry["facts"]).encode():
        raise KitError(f"{folder / 'inventory.yaml'}: not the lines that follow from tune.json; run `fab npu-tune`")


def _measured(candidate: Candidate, inputs: Mapping[str, Any]) -> str:
    """The build, or the folder in it, where a candidate is measured; see stages/throughput.py."""
    own = candidate.threads != inputs["benchmark"]["threads"]
    return f"{candidate.slug}/threads-{candidate.threads}" if own else candidate.slug


def _steps(manifest: Manifest, candidate: Candidate, inputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = [f"{kind}/tune/{candidate.slug}" for kind in ("convert", "accuracy")]
    return [manifest.steps.get(name, {}) for name in (*names, f"throughput/tune/{_measured(candidate, inputs)}")]


def _is_whole(manifest: Manifest, candidate: Candidate, inputs: Mapping[str, Any]) -> bool:
    return all(entry.get("state") == OK for entry in _steps(manifest, candidate, inputs))


def _is_current(manifest: Manifest, candidate: Candidate) -> bool:
    """Whether the samples and the checkpoint are still those that a candidate was tried with."""
    inputs = manifest.steps[f"accuracy/tune/{candidate.slug}"]["inputs"]
    index = dataset_index(manifest, inputs.get("persons", "both"))
    exports = [e for name, e in manifest.steps.items() if name.partition("/")[0] == "export" and e["state"] == OK]
    made = {output["sha256"]: e for e in exports for output in e["outputs"].values()}
    export, reference = made.get(inputs["onnx"]), manifest.steps["reference"]
    return (
        manifest.steps["preprocess"]["outputs"][f"gpu/{index.file}"]["sha256"] == inputs["dataset"]
        and export is not None
        and export["inputs"].get("checkpoint") == reference["inputs"].get("checkpoint")
    )


def _judged(
    manifest: Manifest, model: Model, candidates: Sequence[Candidate], inputs: Mapping[str, Any]
) -> dict[Candidate, Outcome]:
    """What came of each candidate, by its logits and its figure."""
    card, gpu = exported_card(manifest), manifest.workspace / "gpu"
    samples = dataset_index(manifest).head(inputs["samples"]).samples
    folders = {candidate: manifest.workspace / "tune" / candidate.slug for candidate in candidates}
    sets = [[gpu / name for name in reference_names(card)]]
    sets += [[folder / name for name in output_names(card)] for folder in folders.values()]
    expected, *found = scores(model, gpu / "labels.npy", sets, samples)
    outcomes = {}
    for (candidate, folder), score in zip(folders.items(), found, strict=True):
        figure = plain_json.load(folder.parent / _measured(candidate, inputs) / "benchmark.json")
        copies = copies_of(figure) or (copies_of(plain_json.load(folder / "benchmark.json")))
        outcomes[candidate] = Outcome(
            candidate,
            figure["throughput"],
            score,
            judge(score, expected, card.gates(inputs["gate"])),
            latency_ms=float(figure["latency_ms"]["p99"]) + copies,
            copies_ms=copies,
            bound_ms=inputs.get("latency_ms"),
        )
    return outcomes
