"""`fab audit`: a verdict recomputed from its artefacts, link by link, up to the first that does not hold."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deploy.console import say
from deploy.errors import KitError, reject_malformed
from deploy.evidence import runs
from deploy.evidence.elsewhere import require_run
from deploy.evidence.logits import read_logits
from deploy.evidence.runs import Run
from deploy.npu import ais_bench, measure
from deploy.outcome import Check, Outcome
from deploy.pipeline import graph, reproduce
from deploy.pipeline.manifest import Manifest, digest_of
from deploy.pipeline.model import Model, run_command
from deploy.report import page
from deploy.report.summary import summary
from deploy.report.table import to_csv
from deploy.stages import report, score
from deploy.workspace import Workspace
from stgcn import npy, plain_json
from stgcn.errors import InputError
from stgcn.files import read_record, sha256_file, sha256_input

REL_TOLERANCE = 1e-9  # of recomputed floats: another numpy may add in another order
Json = Any


def audit(run: Run, model: Model, sources: Mapping[str, Path], hold: Callable[[str], None]) -> None:
    """Recompute a run's chain; `hold` is told each link that holds.

    `model` scores the outputs again. `sources` are the files from outside the workspace: `data`, `labels` and
    `checkpoint`; empty where they lie on another machine.

    Raises:
        KitError: naming the first thing that does not hold.
    """
    with reject_malformed(run.folder):
        for link, check in _checks(run, model, sources):
            check()
            hold(link)


def _checks(run: Run, model: Model, sources: Mapping[str, Path]) -> Iterator[tuple[str, Callable[[], None]]]:
    """(link, what raises KitError where it does not hold), from the dataset on."""
    manifest = run.manifest
    verdict = _verdict_entry(manifest)
    for name in graph.steps(verdict["inputs"]["batch_sizes"]):
        yield name, partial(_step, manifest, model, verdict, name, sources)
    yield "score", lambda: _score(manifest, model, verdict)
    yield "report", lambda: _page(run)
    yield f"{reproduce.NAME} of every stage", lambda: _scripts(manifest)


def print_audit(workspace: Workspace, name: str) -> Outcome:
    """Audit the workspace, or the kept run of that name.

    Raises:
        KitError: naming the first thing that does not hold.
    """
    if not name:
        require_run(workspace, "audit")
    run = runs.find(workspace.folder, name) if name else Run(workspace.folder)
    say(f"audit of {run.folder}", "bold")
    at_hand = workspace.inventory.gpu.connection == "local"
    sources = workspace.local_files()
    if not at_hand:
        say("  the dataset and the checkpoint lie on the GPU host: not read again", "yellow")
    with reject_malformed(run.folder):
        left_out = set(workspace.inventory.batch_sizes) - {batch["batch_size"] for batch in run.summary["batches"]}
    if left_out and not name:
        sizes = ", ".join(map(str, sorted(left_out)))
        raise KitError(f"batch size {sizes}: in the inventory and not in the verdict, so the run is partial")
    held: list[Check] = []

    def hold(link: str) -> None:
        say(f"  ✓ {link}", "green")
        held.append(Check(run.folder.name, link, True))

    try:
        audit(run, workspace.model, sources, hold)
    except KitError as error:
        failed = Check(run.folder.name, "the first failed check", False, str(error))
        error.outcome = Outcome({"passed": False, "run": {"folder": str(run.folder)}}, [*held, failed])
        raise
    say(f"{run.id} holds: {run.summary['samples']} samples, every link from dataset to page", "bold green")
    return Outcome({"passed": True, "run": {"id": run.id, "folder": str(run.folder)}}, held)


def _verdict_entry(manifest: Manifest) -> dict[str, Json]:
    if not manifest.steps:
        raise KitError(f"{manifest.path}: there is no manifest; run `make gpu-stage` first")
    graph.check(manifest.steps, "score")
    return manifest.steps["score"]


def _step(
    manifest: Manifest, model: Model, verdict: Mapping[str, Json], name: str, sources: Mapping[str, Path]
) -> None:
    """One step: its entry is whole and the one that the verdict rests on, its files are those that it made."""
    entries = manifest.steps
    graph.check(entries, name)
    _sources(entries, name, sources)
    for path, output in entries[name]["outputs"].items():
        _output(manifest, name, path, output["sha256"], model, sources.get("labels"))
    if name.startswith("throughput/"):
        _figure(manifest, manifest.workspace / f"npu/{name.partition('/')[2]}")
    expected = verdict["inputs"]["entries"].get(name)
    if expected is None:
        raise KitError(f"{name}: the verdict was reached without it, so the run is partial; run `make score`")
    if digest_of(entries[name]) != expected:
        raise KitError(f"{name}: its manifest entry is not the one that the verdict rests on; run `make score`")


def _sources(entries: Mapping[str, Json], name: str, sources: Mapping[str, Path]) -> None:
    """The files from outside that a step read."""
    for path, step, recorded in score.source_files(entries, sources):
        if step != name:
            continue
        if not path.exists():
            raise KitError(f"{path}: missing, although {name} read it; bring it back or correct the inventory")
        if sha256_input(path) != recorded:
            raise KitError(f"{path}: changed since {name} read it (sha256 {recorded[:12]} then)")


def _output(
    manifest: Manifest, step: str, relative: str, recorded: str, model: Model | None = None, labels: Path | None = None
) -> None:
    """One output of a step.

    Raises:
        KitError: naming, beyond the file, the sample of changed logits or labels.
    """
    path = manifest.workspace / relative
    if not path.is_file():
        raise KitError(f"{path}: missing, although {step} made it; run `{graph.command_of(step)}`")
    if sha256_file(path) == recorded:
        return
    if step.startswith("accuracy/") and path.suffix == ".npy":
        read_logits(path.parent, score.dataset_index(manifest).names, score.exported_card(manifest))
    where = _changed_label(path, model, labels) if model and labels and path.name == "labels.npy" else ""
    raise KitError(
        f"{path}: {where}not the file that {step} made (sha256 {sha256_file(path)[:12]}, then {recorded[:12]})"
    )


def _changed_label(path: Path, model: Model, labels: Path) -> str:
    """Which label was changed, as far as the dataset's own label file still tells."""
    if "labels" not in model.card.capabilities:
        return ""
    try:
        with TemporaryDirectory() as folder:
            again = Path(folder) / "labels.npy"
            run_command(model, "labels", "--label_path", str(labels), "--output", str(again))
            found, expected = npy.load(path), npy.load(again)
    except (OSError, ValueError, InputError):
        return ""
    if found.shape != expected.shape or not (found != expected).any():
        return ""
    sample = int(np.argwhere(found != expected)[0][0])
    return f"the label of sample {sample} is {found[sample]} and was {expected[sample]}; "


def _figure(manifest: Manifest, folder: Path) -> None:
    """A throughput follows from what ais_bench printed, on a device whose idleness was asked before and after."""
    path = folder / "benchmark.json"
    figure = _read_json(path)
    checks = figure.get("idle_checks") or {}
    for when in ("before", "after"):
        if not isinstance(checks.get(when), dict) or "busy" not in checks[when]:
            raise KitError(f"{path}: a figure without an idle check {when} it was taken; run `fab npu-bench --fresh`")
    if figure["throughput"]["idle"] is not all(checks[when]["busy"] is None for when in ("before", "after")):
        raise KitError(f"{path}: throughput.idle is {figure['throughput']['idle']}, and its idle checks say otherwise")
    runs = []
    for name, recorded in figure["logs"].items():
        log = folder / Path(name).name
        if not log.is_file():
            raise KitError(f"{log}: missing, although a figure was read from it")
        if sha256_file(log) != recorded:
            raise KitError(f"{log}: changed since a figure was read from it")
        runs.append(ais_bench.parse_stdout(read_record(log).decode("utf-8", "replace"), figure["batch_size"]))
    persons = score.persons(manifest, [figure["batch_size"]]) or {}
    expected = measure.figures(figure["batch_size"], runs, persons.get("a_clip"))
    _equal(path, expected, figure, "the logs of its repeats")


def _score(manifest: Manifest, model: Model, verdict: Mapping[str, Json]) -> None:
    """summary.json and summary.csv follow from the logits, labels and figures."""
    folder = manifest.workspace / "report"
    path, rows = folder / "summary.json", folder / "summary.csv"
    found = _read_json(path)
    _equal(path, summary(score.evidence(manifest, model, verdict["inputs"])), found, "logits, labels and figures")
    _rows(rows, to_csv(found))
    for relative, output in verdict["outputs"].items():
        _output(manifest, "score", relative, output["sha256"])


def _rows(path: Path, expected: str) -> None:
    """The CSV's rows, the first that differs named by its batch size."""
    try:
        there = _csv(read_record(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise KitError(f"{path}: missing or damaged, although score made it; run `make score`") from None
    wanted = _csv(expected)
    found = {row[0]: row for row in there if row}
    for row in wanted:
        if row[0] not in found:
            raise KitError(f"{path}: the row of batch size {row[0]} is missing")
        if found[row[0]] != row:
            column = next((c for c, a, b in zip(wanted[0], row, found[row[0]], strict=False) if a != b), "its length")
            raise KitError(f"{path}: {column} of batch size {row[0]} does not follow from summary.json")
    if there != wanted:
        raise KitError(f"{path}: not the rows that follow from summary.json")


def _csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def _page(run: Run) -> None:
    manifest = run.manifest
    graph.check(manifest.steps, "report")
    entry, path = manifest.steps["report"], manifest.workspace / "report" / report.PAGE
    if entry["inputs"]["verdict"] != digest_of(manifest.steps["score"]):
        raise KitError(f"{path}: it shows another verdict than score's entry; run `make report`")
    try:
        shown = page.embedded_summary(read_record(path).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: missing or damaged ({error}); run `make report`") from None
    _equal(path, _read_json(path.with_name("summary.json")), shown, "summary.json")
    _output(manifest, "report", f"report/{report.PAGE}", entry["outputs"][f"report/{report.PAGE}"]["sha256"])
    named = run.folder.parent.name == "runs" and run.folder.name
    if named and named != run.id:
        raise KitError(f"{run.folder}: its name seals another verdict than its manifest's ({run.id})")


def _scripts(manifest: Manifest) -> None:
    for folder, names in graph.folders(manifest.steps).items():
        path, text = manifest.workspace / folder / reproduce.NAME, reproduce.script(manifest.steps, names)
        if text is not None and not reproduce.holds(path, text):
            raise KitError(f"{path}: missing, or not the commands that the manifest records; run `make score`")


def _read_json(path: Path) -> Json:
    try:
        return plain_json.load(path)
    except (OSError, ValueError):
        raise KitError(f"{path}: missing or damaged; run `make score`") from None


def _equal(path: Path, expected: Json, found: Json, source: str) -> None:
    """Raise KitError at the first value of `expected` that `found` does not have."""
    for where, wanted, there in differences(expected, found):
        raise KitError(f"{path}: {where} is {_short(there)}, and {source} give {_short(wanted)}")


def differences(expected: Json, found: Json, where: str = "") -> Iterator[tuple[str, Json, Json]]:
    """(place, expected, found) of each value in which two JSON texts differ; `found` may hold more keys."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            yield from differences(value, found.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(expected, found, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif not _same(expected, found):
        yield where, expected, found


def _same(a: Json, b: Json) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
        return numbers and math.isclose(a, b, rel_tol=REL_TOLERANCE, abs_tol=1e-15)
    return type(a) is type(b) and bool(a == b)


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
