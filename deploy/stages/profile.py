"""`fab npu-profile`: one OM under the profiler; which nodes and blocks of the ONNX the device's time goes to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from deploy.connections import Connections
from deploy.console import console, mark, say, table
from deploy.errors import KitError, reject_malformed
from deploy.evidence import compare, runs, tables
from deploy.evidence.tables import RESULT
from deploy.hosts.job import job_name
from deploy.npu.op_summary import UNIT_RATIOS
from deploy.npu.profiler import TABLE, Profiling, read_tables
from deploy.npu.worker import CachedFile
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import Step, write_json
from deploy.workspace import Workspace
from stgcn import plain_json

STAGE = "npu-profile"
LISTED = 12  # operators of the table on the terminal


def run(connections: Connections, batch_size: int | None = None, against: str = "") -> None:
    """Make npu/bs<N>/profile.json and op_summary.csv, and print them; `against` is a kept run, or `bs<M>` of this one.

    The batch size is the one with the best throughput, where none is given.

    Raises:
        KitError: it has no OM yet, the device is busy, or the profiler leaves no table.
    """
    workspace = connections.workspace
    size = batch_size or _best(workspace)
    if size not in workspace.inventory.batch_sizes:
        sizes = ", ".join(map(str, workspace.inventory.batch_sizes))
        raise KitError(f"--batch-size {size}: the inventory has {sizes}")
    other = _other(workspace, against, size) if against else None
    say(f"{STAGE} on {connections.devices[0]}, batch size {size}", "bold")
    build = workspace.build(size)
    connections.run_step(_step(connections, build))
    if connections.options.dry:
        return
    result = json.loads((build.folder / RESULT).read_bytes())
    _print(result)
    if other is not None:
        compare.print_profiles(other, result, against)


def read(workspace: Workspace, table: Path, batch_size: int | None = None, against: str = "") -> None:
    """Print a profile that was taken elsewhere of an OM of this workspace's ONNX; `table` as of `read_tables`.

    Raises:
        KitError: there is no such table, it is of another model, or there is no ONNX.
    """
    size = batch_size or _best(workspace)
    build = workspace.build(size)
    told = workspace.manifest.steps.get(f"convert/{build.name}", {}).get("inputs", {}).get("soc_version")
    text, fusions = read_tables(table)
    found = tables.of_text(text, fusions, workspace.model, build.onnx, size, told)
    if not found["operators"]:
        names = ", ".join(row["name"] for row in found["unattributed"]["operators"][:3])
        raise KitError(f"{table}: no operator of it is a node of {build.onnx}: it is of another model (it has {names})")
    result = {**found, "soc_version": told or str(table), "simulated": False, "health": None}
    _print(result)
    if against:
        compare.print_profiles(_other(workspace, against, size), result, against)


def _best(workspace: Workspace) -> int:
    """The batch size with the best throughput so far, else the smallest."""
    sizes, rates = workspace.inventory.batch_sizes, dict[int, float]()
    for size in sizes:
        path = workspace.batch_folder(size) / "benchmark.json"
        with reject_malformed(path):
            if path.is_file():
                rates[size] = float(plain_json.load(path)["throughput"]["median"])
    return max(rates, key=lambda size: rates[size]) if rates else min(sizes)


def _step(connections: Connections, build: Build) -> Step:
    workspace, npu = connections.workspace, connections.npus[0]
    worker, step = npu.devices[0], f"profile/{build.name}"
    workspace.om(build)
    inputs: dict[str, Any] = {
        **graph.inputs(workspace.manifest.steps, step, connections.inventory, build),
        "host": npu.section.name,
        "device": worker.device,
        **npu.facts.tools,
    }
    profiling = Profiling(
        job=job_name(inputs, f"profile-bs{build.batch_size}"),
        om=CachedFile(build.om.name, inputs["om"]),
        build=build,
        idle_timeout_s=connections.inventory.benchmark.idle_timeout_s,
        timeout_s=connections.inventory.timeout_s,
        fresh=connections.options.fresh,
        force=connections.options.force,
        idle=connections.idle,
    )
    table, result = build.folder / TABLE, build.folder / RESULT

    def action() -> dict[str, Any]:
        place = connections.scheduler.alone()
        place.send(build.om)
        profiled = place.do(profiling, build.folder)
        connections.idle = profiled.idle
        found = tables.profile_of(build.folder, workspace.model, build.onnx, build.batch_size, npu.facts.soc_version)
        write_json(result, {**found, **npu.facts.record})
        return profiled.facts

    return Step(step, str(worker), inputs, [table, result], action, [worker.runtime.argv(profiling.command(worker))])


def _other(workspace: Workspace, against: str, size: int) -> Mapping[str, Any]:
    """The profile to compare with: another batch size's, or that of another run."""
    name = f"npu/bs{size}/{RESULT}"
    if against.startswith("bs") and against[2:].isdigit():
        path = workspace.batch_folder(int(against[2:])) / RESULT
    else:
        path = runs.find(workspace.folder, against).folder / name
    with reject_malformed(path):
        if not path.is_file():
            raise KitError(f"{path}: there is no profile to compare with; run `fab npu-profile` for it first")
        return dict(plain_json.load(path))


def _print(result: Mapping[str, Any]) -> None:
    told = mark(result["simulated"], result["health"])
    ms = result["device_us"] / 1000
    title = f"{result['soc_version']}{told}, batch size {result['batch_size']}: {ms:.3f} ms of device time an inference"
    ratios = [name for name in UNIT_RATIOS if any(name in block["ratios"] for block in result["blocks"])]
    headings = ("block", "ms", "share", "computing, ms", "moving, ms", "bound by", *ratios)
    grid = table(headings, (), title, {*headings} - {"bound by"})
    for block in result["blocks"]:
        limits = [_ms(block[name]) for name in ("compute_us", "bandwidth_us")]
        of_units = [f"{block['ratios'][name]:.2f}" if name in block["ratios"] else "" for name in ratios]
        row = (block["block"], _ms(block["us"]), f"{block['share']:.1%}", *limits, block["bound"] or "?", *of_units)
        grid.add_row(*row)
    for name, title in APART.items():
        part = result[name]
        if part["us"]:
            grid.add_row(title, _ms(part["us"]), f"{part['share']:.1%}", style="dim")
    console.print(grid)
    _print_operators(result["operators"])
    kinds = ", ".join(f"{kind} {_ms(us)} ms" for kind, us in result["compiler"]["kinds"].items())
    if kinds:
        say(f"put in by the compiler: {kinds}")
    say(f"{result['attributed']:.1%} of the device's time is accounted for", "bold")
    if result["limits"] and result["simulated"]:
        say("computing and moving are the least that the real chip's published limits allow, the times are simulated")
    if result["limits"] is None:
        say(f"the kit knows no published limits of {result['soc_version']}, so nothing is said of what bounds a block")
    if result["unattributed"]["operators"]:
        names = ", ".join(f"{row['name']} ({row['share']:.1%})" for row in result["unattributed"]["operators"][:5])
        say(f"of no node: {names}", "yellow")
    for what in ("devices", "models"):
        if left := result.get(f"other_{what}"):
            say(f"left out: the operators of {what} {', '.join(map(str, left))}", "yellow")


APART = {"compiler": "compiler's own", "communication": "communication", "unattributed": "of no node"}


def _print_operators(operators: Sequence[Mapping[str, Any]]) -> None:
    """Those of the same nodes together: a compiler splits a node into several."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in operators:
        groups.setdefault(tuple(row["nodes"]), []).append(row)
    found = sorted(groups.items(), key=lambda group: -sum(row["us"] for row in group[1]))
    rows = (
        (
            _ms(sum(row["us"] for row in same)),
            f"{sum(row['share'] for row in same):.1%}",
            ", ".join(dict.fromkeys(row["kind"] for row in same)),
            same[0]["block"],
            Text(" + ".join(nodes)),
        )
        for nodes, same in found[:LISTED]
    )
    console.print(table(("ms", "share", "type", "block", "nodes"), rows, "the longest operators", ("ms", "share")))


def _ms(us: float | None) -> str:
    return "?" if us is None else f"{us / 1000:.3f}"
