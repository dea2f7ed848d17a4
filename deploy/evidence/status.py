"""`fab status`: each step of the workspace: state, host, age, key, and why it is stale. No host is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rich.table import Table

from deploy.console import console, say
from deploy.errors import KitError, reject_malformed
from deploy.pipeline import graph
from deploy.pipeline.manifest import OK
from deploy.pipeline.model import published
from deploy.workspace import Workspace

_OPTIONAL = ("aoe_job_type", "env")  # inputs that are left out where there are none


def print_status(workspace: Workspace) -> None:
    steps = workspace.manifest.steps
    if not steps:
        say(f"{workspace.folder}: nothing has run yet; start with `make gpu-stage`")
        return
    grid = Table()
    for heading in ("step", "state", "host", "age", "key"):
        grid.add_column(heading)
    with reject_malformed(workspace.manifest.path):
        _add_rows(workspace, grid)
    console.print(grid)


def _add_rows(workspace: Workspace, grid: Table) -> None:
    stale: dict[str, str] = {}
    for name, entry in sorted(workspace.manifest.steps.items(), key=lambda item: item[1]["started"]):
        state = str(entry["state"])
        if "error" in entry:
            state = f"{state}: {entry['error']}"
        elif reason := why_stale(workspace, name, entry, stale):
            stale[name] = reason
            state = f"stale: {reason}"
        grid.add_row(name, state, entry["host"], _age(entry["started"]), entry["key"][:12])


def why_stale(workspace: Workspace, name: str, entry: Mapping[str, Any], stale: Mapping[str, str]) -> str | None:
    """Why a step would run again, as far as it can be told from here; `stale` holds the steps that are known to be.

    What only the hosts know (versions of CANN, the driver, the packages) is not asked for.
    """
    if entry["state"] != OK:
        return None
    if not workspace.manifest.whole(entry):
        return "its outputs changed"
    _, _, batch = name.partition("/")
    if batch and not re.fullmatch(r"bs\d+", batch):
        return None  # a variant that `npu-tune` tried: its own record says of what
    if batch and int(batch[2:]) not in workspace.inventory.batch_sizes:
        return f"{batch} is not in the inventory"
    for maker in _makers(workspace, name):
        if maker in stale:
            return f"{maker} is"
    recorded = entry["inputs"]
    known = _known_inputs(workspace, name)
    for key in {*known, *_OPTIONAL} if batch else known:
        now = known.get(key)
        if (key in recorded or key in _OPTIONAL) and recorded.get(key) != now:
            return f"{key} changed"
    return None


def _makers(workspace: Workspace, step: str) -> list[str]:
    """The steps that a step rests on."""
    if step == "score":
        return graph.steps(workspace.inventory.batch_sizes)
    return [read.step for read in graph.reads_of(step)]


def _known_inputs(workspace: Workspace, step: str) -> dict[str, Any]:
    """What a step would be given now, of the inputs that are known on this side."""
    kind, model, batch = graph.kind_of(step), workspace.model, step.partition("/")[2]
    try:
        build = workspace.build(int(batch[2:])) if batch else None
    except KitError:
        return {"onnx": None}  # its ONNX is not there any more
    known = graph.inputs(workspace.manifest.steps, step, workspace.inventory, build)
    if kind.name == "score":
        known["reference"] = published(workspace.inventory, model.card)
    if kind.package:
        known |= {"model": model.card.name, model.card.package: model.sha256}
    return {**known, **_files(workspace, kind.files)}


def _files(workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """The sha256 of the dataset and the checkpoint, where they lie on this machine."""
    found: dict[str, Any] = {}
    for name, path in workspace.local_files().items():
        if name in names:
            try:
                sha256 = workspace.manifest.input_sha256(path)
            except KitError:
                found[name] = "missing"
                continue
            found[name] = {"name": path.name, "sha256": sha256} if name == "checkpoint" else sha256
    return found


def _age(started: str) -> str:
    minutes = int((datetime.now(timezone.utc) - datetime.fromisoformat(started)).total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
