"""`fab status`: each step of the workspace: state, host, age, key, and why it is stale. No host is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from rich.table import Table

from deploy.console import console, say
from deploy.context import Context, sources_sha256
from deploy.errors import KitError, as_written
from deploy.inventory import local_path
from deploy.pipeline.manifest import OK
from stgcn.index import Index, PersonIndex

# Who makes what a kind of step reads; `/` stands for the same batch size.
_OPTIONAL = ("aoe_job_type", "env")  # inputs that are left out where there are none
_MAKERS = {
    "convert": ("export",),
    "accuracy": ("preprocess", "convert/"),
    "throughput": ("convert/",),
    "score": ("preprocess", "reference"),
    "report": ("score",),
}


def print_status(context: Context) -> None:
    steps = context.manifest.steps
    if not steps:
        say(f"{context.workspace}: nothing has run yet; start with `make gpu-stage`")
        return
    grid = Table()
    for heading in ("step", "state", "host", "age", "key"):
        grid.add_column(heading)
    with as_written(context.manifest.path):
        _add_rows(context, grid)
    console.print(grid)


def _add_rows(context: Context, grid: Table) -> None:
    stale: dict[str, str] = {}
    for name, entry in sorted(context.manifest.steps.items(), key=lambda item: item[1]["started"]):
        state = str(entry["state"])
        if "error" in entry:
            state = f"{state}: {entry['error']}"
        elif reason := why_stale(context, name, entry, stale):
            stale[name] = reason
            state = f"stale: {reason}"
        grid.add_row(name, state, entry["host"], _age(entry["started"]), entry["key"][:12])


def why_stale(context: Context, name: str, entry: Mapping[str, Any], stale: Mapping[str, str]) -> str | None:
    """Why a step would run again, as far as it can be told from here; `stale` holds the steps that are known to be.

    What only the hosts know (versions of CANN, the driver, the packages) is not asked for.
    """
    if entry["state"] != OK:
        return None
    if not context.manifest.whole(entry):
        return "its outputs changed"
    kind, _, batch = name.partition("/")
    if batch and not re.fullmatch(r"bs\d+", batch):
        return None  # a variant that `npu-tune` tried: its own record says of what
    if batch and int(batch[2:]) not in context.inventory.batch_sizes:
        return f"{batch} is not in the inventory"
    makers = [maker + batch if maker.endswith("/") else maker for maker in _MAKERS.get(kind, ())]
    if kind == "score":
        makers += [f"{run}/bs{size}" for size in context.inventory.batch_sizes for run in ("accuracy", "throughput")]
    for maker in makers:
        if maker in stale:
            return f"{maker} is"
    recorded = entry["inputs"]
    for key, now in _known_inputs(context, kind, batch).items():
        if (key in recorded or key in _OPTIONAL) and recorded.get(key) != now:
            return f"{key} changed"
    return None


def _known_inputs(context: Context, kind: str, batch: str) -> dict[str, Any]:
    """What a step of this kind would be given now, of the inputs that are known on this side."""
    inventory = context.inventory
    environment = {"env": inventory.environment.get("env")}
    if kind in ("preprocess", "export", "reference"):
        chosen = {"variant": inventory.variant, "persons": inventory.persons}
        return {"stgcn": sources_sha256(), **chosen, **_files(context)}
    if kind == "convert":
        onnx = {"onnx": _made(context, "export", "gpu/st_gcn.onnx")}
        return {**onnx, **environment, "flags": dict(inventory.atc), "aoe_job_type": inventory.aoe}
    om = {"om": _made(context, f"convert/{batch}", f"npu/{batch}/st_gcn_{batch}.om")}
    if kind == "accuracy":
        index = PersonIndex if inventory.persons == "nonempty" else Index
        return {**om, **environment, "dataset": _made(context, "preprocess", f"gpu/{index.FILE}")}
    if kind == "throughput":
        return {**om, **environment, **inventory.benchmark.model_dump()}
    if kind == "score":
        return {"gate": inventory.gate, "reference": inventory.reference.model_dump()}
    return {}


def _files(context: Context) -> dict[str, Any]:
    """The dataset's and the checkpoint's sha256, where they lie on this machine."""
    if context.inventory.gpu.connection == "ssh":
        return {}
    names = {"data": context.inventory.dataset.data, "labels": context.inventory.dataset.labels}
    checkpoint = local_path(context.inventory.checkpoint)
    try:
        found: dict[str, Any] = {key: context.manifest.input_sha256(local_path(path)) for key, path in names.items()}
        sha256 = context.manifest.input_sha256(checkpoint)
    except KitError:
        return dict.fromkeys((*names, "checkpoint"), "missing")
    return {**found, "checkpoint": {"name": checkpoint.name, "sha256": sha256}}


def _made(context: Context, step: str, path: str) -> str | None:
    """sha256 of what a step made, as the manifest has it."""
    outputs = context.manifest.steps.get(step, {}).get("outputs", {})
    found = outputs.get(path, {}).get("sha256")
    return None if found is None else str(found)


def _age(started: str) -> str:
    minutes = int((datetime.now(timezone.utc) - datetime.fromisoformat(started)).total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
