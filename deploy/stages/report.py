"""`make report`: the page of the verdict that is there, made again from summary.json, the manifest and the clips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from deploy.console import say
from deploy.context import Context
from deploy.errors import KitError, as_written
from deploy.evidence.runs import all_runs, run_id
from deploy.hosts import transfer
from deploy.inventory import ROOT
from deploy.pipeline import graph
from deploy.pipeline.manifest import Manifest, Step, digest_of
from deploy.pipeline.sources import sources_sha256
from deploy.report import page
from deploy.report.drawings import Drawings, draw
from stgcn import plain_json
from stgcn.files import atomic_write

PAGE = "report.html"
SOURCES = [ROOT / "deploy/report"]


def run(context: Context) -> None:
    """Make report/report.html.

    Raises:
        KitError: there is no verdict yet.
    """
    say("report", "bold")
    make(context)
    say(f"page:    {context.artefact('report') / PAGE}")


def make(context: Context) -> None:
    manifest = context.manifest
    run = run_id(manifest)  # refuses when there is no verdict
    summary_path = manifest.output("score", context.artefact("report/summary.json"), "make score")
    entries = manifest.steps
    inputs = {
        "verdict": digest_of(entries["score"]),
        **graph.inputs(entries, "report", context.inventory),
        "sources": sources_sha256(*SOURCES),
    }
    path = context.artefact("report") / PAGE
    with as_written(summary_path):
        summary = plain_json.load(summary_path)
        noted = sorted({noted["sample"] for noted in summary["noted"]})
    previous = _previous(context, run)
    if previous:
        inputs["previous"] = previous.run
    undrawn = entries.get("report", {}).get("facts", {}).get("drawn") != noted  # its host may give them up now

    def action() -> dict[str, Any]:
        with as_written(summary_path):
            drawings = _drawings(context, noted)
            names = [n for n in [*graph.steps(entries["score"]["inputs"]["batch_sizes"]), "score"] if n in entries]
            text = page.render(summary, entries, names, run, drawings, previous)
        with atomic_write(path) as stream:
            stream.write(text.encode())
        return {"drawn": sorted(drawings.samples or {})}

    step = Step("report", "control", inputs, [path], action, [command("report")])
    context.perform(step, fresh=undrawn)


def command(task: str) -> list[str]:
    """The kit's own command line, in the kit's folder."""
    return ["env", f"INVENTORY={os.environ.get('INVENTORY') or 'inventory.yaml'}", "make", task]


def _previous(context: Context, run: str) -> page.Previous | None:
    """The newest kept run before `run` whose figures are of the same kind of device."""
    with as_written(context.manifest.path):
        kind = context.manifest.steps["score"]["facts"]["simulated"]
    for kept in reversed([kept for kept in all_runs(context.workspace) if kept.folder.name < run]):
        with suppress(KitError, KeyError, TypeError, ValueError):
            measured = [batch for batch in kept.summary["batches"] if batch["throughput"]]
            measured_anew = _measurements(kept.manifest) != _measurements(context.manifest)
            if measured and measured_anew and kept.summary["device"]["simulated"] == kind:
                medians = {batch["batch_size"]: float(batch["throughput"]["median"]) for batch in measured}
                return page.Previous(kept.folder.name, medians)
    return None


def _measurements(manifest: Manifest) -> dict[str, str]:
    """When each throughput was measured: a CACHED one is the same measurement, not another to compare with."""
    return {name: entry["started"] for name, entry in manifest.steps.items() if name.startswith("throughput/")}


def _drawings(context: Context, samples: Sequence[int]) -> Drawings:
    """The first row of each of `samples`, drawn; one that its host does not give up is left out, and told of."""
    if not samples or "draw" not in context.model.card.capabilities:
        return Drawings()
    index = context.index()
    array = index.inputs[0]
    path, found = context.array_file(array), {}
    for sample in samples:
        row = sample if index.rows is None else index.rows[sample][0]
        try:
            found[sample] = transfer.read_row(context.gpu.host, path, array, row)
        except KitError as error:
            say(f"  {error}; it is not drawn", "yellow")
    return draw(context.model, found)
