"""`make report`: the page of the verdict that is there, made again from summary.json, the manifest and the clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from deploy.console import say
from deploy.errors import KitError, reject_malformed
from deploy.evidence.elsewhere import require_run
from deploy.evidence.recompute import ReadRow
from deploy.evidence.runs import all_runs, verdict_name
from deploy.inventory import ROOT, chosen
from deploy.options import Options
from deploy.pipeline import graph
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import Manifest, Step, digest_of
from deploy.pipeline.model import Model
from deploy.pipeline.sources import sources_sha256
from deploy.report import page
from deploy.report.drawings import Drawings, draw
from deploy.workspace import Workspace
from stgcn import plain_json
from stgcn.files import write_whole

PAGE = "report.html"
SOURCES = [ROOT / "deploy/report"]


def run(workspace: Workspace, options: Options, read_row: ReadRow) -> None:
    """Make report/report.html. `read_row` brings an input's row from where the dataset lies, to be drawn.

    Raises:
        KitError: there is no verdict yet.
    """
    require_run(workspace, "report")
    say("report", "bold")
    make(workspace, options, read_row)
    say(f"page:    {workspace.artefact('report') / PAGE}")


def make(workspace: Workspace, options: Options, read_row: ReadRow) -> None:
    manifest = workspace.manifest
    verdict = verdict_name(manifest)  # refuses when there is no verdict
    summary_path = graph.output(manifest, "score", "report/summary.json")
    entries = manifest.steps
    inputs = {
        "verdict": digest_of(entries["score"]),
        **graph.inputs(entries, "report", workspace.inventory),
        "sources": sources(),
    }
    path = workspace.artefact("report") / PAGE
    with reject_malformed(summary_path):
        summary = plain_json.load(summary_path)
        noted = sorted({noted["sample"] for noted in summary["noted"]})
    previous = _previous(workspace, verdict)
    if previous:
        inputs["previous"] = {"run": previous.run, "throughput": {str(k): v for k, v in previous.throughput.items()}}
    undrawn = entries.get("report", {}).get("facts", {}).get("drawn") != noted  # its host may give them up now

    def action() -> dict[str, Any]:
        with reject_malformed(summary_path):
            drawings = draw_samples(workspace.model, workspace.samples(), noted, read_row)
            text = render(manifest, summary, drawings, previous)
        write_whole(path, text.encode())
        return {"drawn": sorted(drawings.samples or {})}

    step = Step("report", "control", inputs, [path], action, [command("report")])
    workspace.run_step(step, options, fresh=undrawn)


def sources() -> str:
    """The sha256 of what makes the page."""
    return sources_sha256(*SOURCES)


def render(manifest: Manifest, summary: Mapping[str, Any], drawings: Drawings, previous: page.Previous | None) -> str:
    """The page of a manifest's verdict."""
    entries = manifest.steps
    names = [*graph.of_verdict(entries), "score"]
    return page.render(summary, entries, names, verdict_name(manifest), drawings, previous)


def command(task: str) -> list[str]:
    """The kit's own command line, in the kit's folder."""
    return ["env", f"INVENTORY={chosen()}", "make", task]


def previous_of(inputs: Mapping[str, Any]) -> page.Previous | None:
    """The earlier run that the page of an entry with these inputs compares with."""
    given = inputs.get("previous")
    return page.Previous(given["run"], {int(k): float(v) for k, v in given["throughput"].items()}) if given else None


def medians(summary: Mapping[str, Any]) -> dict[int, float]:
    """The throughput by batch size, of those that were measured."""
    measured = [batch for batch in summary["batches"] if batch["throughput"]]
    return {batch["batch_size"]: float(batch["throughput"]["median"]) for batch in measured}


def _previous(workspace: Workspace, verdict: str) -> page.Previous | None:
    """The newest kept run before `verdict` whose figures are of the same kind of device."""
    with reject_malformed(workspace.manifest.path):
        kind = workspace.manifest.steps["score"]["facts"]["simulated"]
    for kept in reversed([kept for kept in all_runs(workspace.folder) if kept.folder.name < verdict]):
        with suppress(KitError, KeyError, TypeError, ValueError):
            measured = medians(kept.summary)
            measured_again = _measurements(kept.manifest) != _measurements(workspace.manifest)
            if measured and measured_again and kept.summary["device"]["simulated"] == kind:
                return page.Previous(kept.folder.name, measured)
    return None


def _measurements(manifest: Manifest) -> dict[str, str]:
    """When each throughput was measured: a CACHED one is the same measurement, not another to compare with."""
    return {name: entry["started"] for name, entry in manifest.steps.items() if name.startswith("throughput/")}


def draw_samples(model: Model, index: Index, samples: Sequence[int], read_row: ReadRow) -> Drawings:
    """The first row of each of `samples`, drawn; one that its host does not give up is left out, with a warning."""
    if not samples or "draw" not in model.card.capabilities:
        return Drawings()
    found = {}
    for sample in samples:
        row = sample if index.rows is None else index.rows[sample][0]
        try:
            found[sample] = read_row(index.inputs[0], row)
        except KitError as error:
            say(f"  {error}; it is not drawn", "yellow")
    return draw(model, found)
