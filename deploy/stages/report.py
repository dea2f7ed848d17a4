"""`make report`: the page of the verdict that is there, made again from summary.json, the manifest and the clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from deploy.console import say
from deploy.errors import KitError, reject_malformed
from deploy.evidence.elsewhere import require_run
from deploy.evidence.runs import all_runs, run_id
from deploy.inventory import ROOT, chosen
from deploy.options import Options
from deploy.pipeline import graph
from deploy.pipeline.index import Array
from deploy.pipeline.manifest import Manifest, Step, digest_of
from deploy.pipeline.sources import sources_sha256
from deploy.report import page
from deploy.report.drawings import Drawings, draw
from deploy.workspace import Workspace
from stgcn import plain_json
from stgcn.files import atomic_write

ReadRow = Callable[[Array, int], np.ndarray]
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
    run = run_id(manifest)  # refuses when there is no verdict
    summary_path = manifest.output("score", workspace.artefact("report/summary.json"), "make score")
    entries = manifest.steps
    inputs = {
        "verdict": digest_of(entries["score"]),
        **graph.inputs(entries, "report", workspace.inventory),
        "sources": sources_sha256(*SOURCES),
    }
    path = workspace.artefact("report") / PAGE
    with reject_malformed(summary_path):
        summary = plain_json.load(summary_path)
        noted = sorted({noted["sample"] for noted in summary["noted"]})
    previous = _previous(workspace, run)
    if previous:
        inputs["previous"] = previous.run
    undrawn = entries.get("report", {}).get("facts", {}).get("drawn") != noted  # its host may give them up now

    def action() -> dict[str, Any]:
        with reject_malformed(summary_path):
            drawings = _drawings(workspace, noted, read_row)
            names = [n for n in [*graph.steps(entries["score"]["inputs"]["batch_sizes"]), "score"] if n in entries]
            text = page.render(summary, entries, names, run, drawings, previous)
        with atomic_write(path) as stream:
            stream.write(text.encode())
        return {"drawn": sorted(drawings.samples or {})}

    step = Step("report", "control", inputs, [path], action, [command("report")])
    workspace.run_step(step, options, fresh=undrawn)


def command(task: str) -> list[str]:
    """The kit's own command line, in the kit's folder."""
    return ["env", f"INVENTORY={chosen()}", "make", task]


def _previous(workspace: Workspace, run: str) -> page.Previous | None:
    """The newest kept run before `run` whose figures are of the same kind of device."""
    with reject_malformed(workspace.manifest.path):
        kind = workspace.manifest.steps["score"]["facts"]["simulated"]
    for kept in reversed([kept for kept in all_runs(workspace.folder) if kept.folder.name < run]):
        with suppress(KitError, KeyError, TypeError, ValueError):
            measured = [batch for batch in kept.summary["batches"] if batch["throughput"]]
            measured_anew = _measurements(kept.manifest) != _measurements(workspace.manifest)
            if measured and measured_anew and kept.summary["device"]["simulated"] == kind:
                medians = {batch["batch_size"]: float(batch["throughput"]["median"]) for batch in measured}
                return page.Previous(kept.folder.name, medians)
    return None


def _measurements(manifest: Manifest) -> dict[str, str]:
    """When each throughput was measured: a CACHED one is the same measurement, not another to compare with."""
    return {name: entry["started"] for name, entry in manifest.steps.items() if name.startswith("throughput/")}


def _drawings(workspace: Workspace, samples: Sequence[int], read_row: ReadRow) -> Drawings:
    """The first row of each of `samples`, drawn; one that its host does not give up is left out, and told of."""
    if not samples or "draw" not in workspace.model.card.capabilities:
        return Drawings()
    index = workspace.index()
    found = {}
    for sample in samples:
        row = sample if index.rows is None else index.rows[sample][0]
        try:
            found[sample] = read_row(index.inputs[0], row)
        except KitError as error:
            say(f"  {error}; it is not drawn", "yellow")
    return draw(workspace.model, found)
