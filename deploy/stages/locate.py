"""Where a device leaves fp32, block by block, and whether another precision_mode changes it.

The ONNX gets the outputs of its blocks as outputs of its own, is converted and run as the real one is, and compared
with the same graph in ONNX Runtime in fp32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.connections import Connections
from deploy.console import console, mark, say, table
from deploy.errors import KitError, reject_malformed
from deploy.pipeline import graph
from deploy.pipeline.build import FILE_FLAGS, Build, with_mode
from deploy.pipeline.manifest import Step, write_json
from deploy.pipeline.model import Tensor, run_command
from deploy.stages import accuracy, convert
from deploy.workspace import Workspace
from stgcn import onnx_model, plain_json

STAGE = "precision/blocks"
FORMAT = 1
TOLERANCE = 0.02  # relative error of a block; sound fp16 leaves 0.006 behind ten
LOGITS = "logits"


@dataclass(frozen=True)
class Instrumented:
    """What the ONNX with its blocks' outputs gives in fp32."""

    blocks: Mapping[str, str]  # the blocks and, last, the logits -> the output of each
    inputs: Sequence[np.ndarray]  # each (rows, ...)
    fp32: Mapping[str, np.ndarray]  # every output of the ONNX, in its order, each (rows, values)


def compare(connections: Connections, batch_size: int, chosen: Sequence[int], modes: Sequence[str]) -> dict[str, Any]:
    """Make precision/blocks.json, of the precision_mode of the inventory and perhaps another, and give its contents.

    Raises:
        KitError: the model's blocks are not known, or the host's tools refuse the first of the modes.
    """
    workspace = connections.workspace
    npu, (onnx, named) = connections.npus[0], instrument(workspace)
    inputs = {
        "onnx": graph.made(workspace.manifest.steps, graph.Read("onnx", "export", ".onnx")),
        "data": workspace.manifest.steps["preprocess"]["inputs"]["data"],
        "samples": list(chosen),
        "batch_size": batch_size,
        "flags": dict(connections.inventory.atc),
        "modes": list(modes),
        "tolerance": TOLERANCE,
        **npu.facts.tools,
        **connections.inventory.environment,
    }
    path = workspace.artefact("precision/blocks.json")
    builds = {mode: _build(workspace, onnx, mode, batch_size) for mode in modes}
    failures = convert.convert(connections, list(builds.values()))
    if mode_failure := failures.get(builds[modes[0]].name):
        raise mode_failure

    def action() -> dict[str, Any]:
        instrumented = _in_fp32(connections, onnx, named, chosen)
        found: dict[str, list[dict[str, Any]] | str] = {}
        for mode, build in builds.items():
            refused = failures.get(build.name)
            found[mode] = str(refused) if refused else _nearness(connections, build, instrumented)
        write_json(path, located(found, modes, chosen, batch_size) | npu.facts.record)
        return npu.facts.record

    connections.run_step(Step(STAGE, str(npu.devices[0]), inputs, [path], action))
    result: dict[str, Any] = json.loads(path.read_bytes())
    return result


def _build(workspace: Workspace, onnx: Path, mode: str, batch_size: int) -> Build:
    # Without the lists of operators, which are the real graph's.
    flags = with_mode({k: v for k, v in workspace.inventory.atc.items() if k not in FILE_FLAGS}, mode)
    folder, persons = onnx.parent / mode, workspace.inventory.persons
    return Build(f"{STAGE}/{mode}", folder, onnx, "export", batch_size, flags, workspace.card(), persons)


def worst_batch(workspace: Workspace) -> int:
    """The batch size that is farthest off by the last verdict, else the smallest."""
    sizes = workspace.inventory.batch_sizes
    path = workspace.artefact("report/summary.json")
    with reject_malformed(path):
        batches = plain_json.load(path)["batches"] if path.is_file() else []
        known = [batch for batch in batches if batch["batch_size"] in sizes]
        return int(max(known, key=lambda b: float(b["relative_error"]))["batch_size"]) if known else min(sizes)


def instrument(workspace: Workspace) -> tuple[Path, dict[str, str]]:
    """The ONNX with its blocks' outputs; the blocks and, last, the logits, by the output of each.

    Raises:
        KitError: the model has no command `blocks`, or it finds no blocks.
    """
    model, source = workspace.model, workspace.onnx()
    if "blocks" not in model.card.capabilities:
        raise KitError(f"{model.card.name} has no command `blocks`, so its blocks are not known; see docs/own-model.md")
    path, result = (
        workspace.artefact(f"precision/{name}") for name in (f"{model.card.stem}_blocks.onnx", "blocks.json")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    run_command(model, "blocks", "--onnx", str(source), "--output", str(path), "--result", str(result))
    outputs = [value.name for value in onnx_model.load(path).graph.output]
    with reject_malformed(result):
        found = {str(block["name"]): str(block["output"]) for block in plain_json.load(result)["blocks"]}
        if lost := set(found.values()) - set(outputs):
            raise ValueError(f"{sorted(lost)[0]} is no output of {path.name}")
    return path, {**found, LOGITS: outputs[0]}


def _in_fp32(connections: Connections, onnx: Path, named: Mapping[str, str], samples: Sequence[int]) -> Instrumented:
    index = connections.workspace.samples(connections.inventory.persons)
    rows = dict.fromkeys(row for sample in samples for row in ([sample] if index.rows is None else index.rows[sample]))
    inputs = [np.stack([connections.read_row(array, row) for row in rows]) for array in index.inputs]
    session = onnx_model.session(onnx_model.load(onnx))
    names, outputs = [tensor.name for tensor in session.get_inputs()], [each.name for each in session.get_outputs()]
    each = [
        session.run(outputs, {name: row[None] for name, row in zip(names, one, strict=True)})
        for one in zip(*inputs, strict=True)
    ]
    flat = ([values.reshape(-1) for values in every] for every in zip(*each, strict=True))
    fp32 = {name: np.stack(values) for name, values in zip(outputs, flat, strict=True)}
    return Instrumented(named, inputs, fp32)


def _nearness(connections: Connections, build: Build, instrumented: Instrumented) -> list[dict[str, Any]]:
    """Of every output of the OM, the blocks first."""
    fp32 = instrumented.fp32
    tensors = [
        Tensor.model_construct(name=name, dtype=values.dtype.name, shape=list(values.shape[1:]))
        for name, values in fp32.items()
    ]
    build = replace(build, card=build.card.model_copy(update={"outputs": tensors}))
    outputs = accuracy.outputs_of(connections, build, instrumented.inputs)
    device = dict(zip(fp32, outputs, strict=True))
    both = [{block: values[output] for block, output in instrumented.blocks.items()} for values in (device, fp32)]
    return list(nearness(list(instrumented.blocks), *both))


def nearness(
    names: Sequence[str], device: Mapping[str, np.ndarray], fp32: Mapping[str, np.ndarray]
) -> Iterator[dict[str, Any]]:
    """How near a device's output of each block is to fp32's, of arrays (samples, values): |device - fp32| / |fp32|,
    Euclidean, and the cosine, each of the worst sample; the largest absolute error."""
    for name in names:
        a, b = device[name].astype(np.float64), fp32[name].astype(np.float64)
        length = np.maximum(np.linalg.norm(b, axis=1), 1e-30)
        error = np.linalg.norm(a - b, axis=1) / length
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * length, 1e-30)
        worst = {"relative_error": float(error.max()), "cosine_min": float(cosine.min())}
        yield {"block": name, **worst, "max_abs_err": float(np.abs(a - b).max())}


def located(
    found: Mapping[str, list[dict[str, Any]] | str], modes: Sequence[str], samples: Sequence[int], batch_size: int
) -> dict[str, Any]:
    """The contents of locate.json, from each precision_mode's nearness or refusal."""
    return {
        "format": FORMAT,
        "batch_size": batch_size,
        "samples": list(samples),
        "tolerance": TOLERANCE,
        "modes": {mode: _judged(found[mode]) for mode in modes},
        "conclusion": _conclusion(found, modes),
    }


def _judged(nearness: list[dict[str, Any]] | str) -> dict[str, Any]:
    """As JSON, which has no NaN: null stands for it."""
    if isinstance(nearness, str):
        return {"refused": nearness}
    needed = max(near["relative_error"] if near["relative_error"] >= 0 else math.inf for near in nearness)
    return {
        "blocks": [
            {
                **{name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in near.items()},
                "passed": near["relative_error"] <= TOLERANCE,
            }
            for near in nearness
        ],
        "first_past": first_past(nearness),
        "tolerance_that_passes": needed if math.isfinite(needed) else None,
    }


def first_past(nearness: Sequence[Mapping[str, Any]]) -> str | None:
    """The first block whose output is past the tolerance (NaN is)."""
    return next((near["block"] for near in nearness if not near["relative_error"] <= TOLERANCE), None)


def _conclusion(found: Mapping[str, list[dict[str, Any]] | str], modes: Sequence[str]) -> str:
    ours, *others = modes
    nearness = found[ours]
    assert not isinstance(nearness, str)
    where = first_past(nearness)
    if where is None:
        return f"with {ours} no block is past the tolerance of {TOLERANCE:g}"
    needed = _judged(nearness)["tolerance_that_passes"]
    named = f"block {where}" if where != LOGITS else "what follows the last block"
    passing = "it is not finite" if needed is None else f"{needed:.2g} would have passed"
    head = f"{named} is the first past the tolerance of {TOLERANCE:g}; {passing}"
    for other in others:
        alternative = found[other]
        if isinstance(alternative, str):
            return f"{head}; {other} was refused: {alternative}"
        still = first_past(alternative)
        if still is None:
            return f"{head}; with {other} none is"
        changed = "does not change it" if still == where else f"moves it to {still}"
        return f"{head}; {other} {changed}, so it is not a matter of fp16 but of the device or its kernels"
    return head


def print_blocks(result: Mapping[str, Any]) -> None:
    blocks_of = f"blocks{mark(result['simulated'], result['health'])} against fp32"
    title = f"{blocks_of}, batch size {result['batch_size']}, samples {result['samples']}"
    modes = {mode: judged["blocks"] for mode, judged in result["modes"].items() if "blocks" in judged}
    headings = ("block", *(heading for mode in modes for heading in (mode, "cosine min", "")))
    rows = (
        (row[0]["block"], *(cell for near in row for cell in _cells(near))) for row in zip(*modes.values(), strict=True)
    )
    console.print(table(headings, rows, title, headings))
    say(result["conclusion"], "bold")


def _cells(near: Mapping[str, Any]) -> Iterator[str]:
    for name, form in (("relative_error", ".2e"), ("cosine_min", ".6f")):
        yield "NaN" if near[name] is None else format(near[name], form)
    yield "✓" if near["passed"] else "✗"
