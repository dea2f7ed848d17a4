"""`fab locate`: where a device leaves fp32, block by block, and whether another precision_mode changes it.

The ONNX gets the outputs of its blocks as outputs of its own, is converted and run as the real one is, and compared
with the same graph in ONNX Runtime in fp32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from deploy.connections import Connections
from deploy.console import console, mark, say
from deploy.containers.runtime import Runtime
from deploy.errors import KitError, as_written
from deploy.evidence import blocks
from deploy.execution.worker import Copy, Worker
from deploy.hosts import transfer
from deploy.hosts.job import Job, job_name
from deploy.npu import ais_bench, atc
from deploy.pipeline import graph
from deploy.pipeline.manifest import Step, write_json
from deploy.pipeline.model import run_command
from stgcn import onnx_model, plain_json
from stgcn.files import atomic_write

STAGE = "locate"
FORMAT = 1
TOLERANCE = 0.02  # relative error of a block; sound fp16 leaves 0.006 behind ten
LOGITS = "logits"
ATC_DEFAULT_MODE, WIDE_MODE = "force_fp16", "must_keep_origin_dtype"
RESULTS = "results"


@dataclass(frozen=True)
class Instrumented:
    """The ONNX with its blocks' outputs, and what fp32 gives for the rows; those arrays are (rows, values)."""

    onnx: Path
    places: Mapping[str, int]  # the logits and the blocks, each by its number among the outputs
    inputs: Sequence[np.ndarray]  # each (rows, ...)
    fp32: Mapping[str, np.ndarray]

    @property
    def rows(self) -> int:
        return len(self.inputs[0])


def run(connections: Connections, samples: int) -> None:
    """Make report/locate.json and print it.

    Raises:
        KitError: nothing to look at yet, or the host's tools refuse.
    """
    workspace = connections.workspace
    say(STAGE, "bold")
    if samples < 1:
        raise KitError(f"--samples {samples}: compare at least 1")
    batch_size, chosen = _worst_batch(connections), _samples(connections, samples)
    mode = connections.inventory.atc.get("precision_mode", ATC_DEFAULT_MODE)
    modes = [mode, WIDE_MODE if mode != WIDE_MODE else ATC_DEFAULT_MODE]
    npu, (onnx, places) = connections.npus[0], _instrument(connections)
    inputs = {
        "onnx": graph.made(workspace.manifest.steps, graph.Read("onnx", "export", ".onnx")),
        "data": workspace.manifest.steps["preprocess"]["inputs"]["data"],
        "samples": chosen,
        "batch_size": batch_size,
        "flags": dict(connections.inventory.atc),
        "modes": modes,
        "tolerance": TOLERANCE,
        **npu.facts.tools,
        **connections.inventory.environment,
    }
    path = workspace.artefact("report/locate.json")
    runs = [_Run(connections, inputs, each, batch_size) for each in modes]

    def action() -> dict[str, Any]:
        instrumented = _in_fp32(connections, onnx, places, chosen)
        found = {run.mode: run.nearness(instrumented) for run in runs}
        write_json(path, located(found, modes, chosen, batch_size) | npu.facts.record)
        return npu.facts.record

    commands = [argv for run in runs for argv in run.commands(onnx)]
    connections.run_step(Step(STAGE, str(npu.devices[0]), inputs, [path], action, commands))
    if not connections.options.dry:
        _print(json.loads(path.read_bytes()))


def _worst_batch(connections: Connections) -> int:
    """The batch size that is farthest off by the last verdict, else the smallest."""
    sizes = connections.inventory.batch_sizes
    path = connections.workspace.artefact("report/summary.json")
    with as_written(path):
        batches = plain_json.load(path)["batches"] if path.is_file() else []
        known = [batch for batch in batches if batch["batch_size"] in sizes]
        return int(max(known, key=lambda b: float(b["relative_error"]))["batch_size"]) if known else min(sizes)


def _samples(connections: Connections, count: int) -> list[int]:
    """The samples that the last verdict notes (flipped ones first), then the dataset's first."""
    workspace = connections.workspace
    path, every = workspace.artefact("report/summary.json"), range(workspace.index().samples)
    with as_written(path):
        noted = plain_json.load(path)["noted"] if path.is_file() else []
        order = dict.fromkeys([*(every[sample["sample"]] for sample in noted), *every])
    return list(order)[:count]


def _instrument(connections: Connections) -> tuple[Path, dict[str, int]]:
    """The ONNX with its blocks' outputs; the logits and the blocks, each by its number among the outputs.

    Raises:
        KitError: the model has no command `blocks`, or it finds no blocks.
    """
    workspace = connections.workspace
    model, source = workspace.model, workspace.onnx()
    if "blocks" not in model.card.capabilities:
        raise KitError(f"{model.card.name} has no command `blocks`, so its blocks are not known; see docs/own-model.md")
    path, result = (workspace.artefact(f"locate/{name}") for name in (f"{model.card.stem}_blocks.onnx", "blocks.json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    run_command(model, "blocks", "--onnx", str(source), "--output", str(path), "--result", str(result))
    outputs = [value.name for value in onnx_model.load(path).graph.output]
    with as_written(result):
        found = {str(block["name"]): outputs.index(block["output"]) for block in plain_json.load(result)["blocks"]}
    return path, {LOGITS: 0, **found}


def _in_fp32(connections: Connections, onnx: Path, places: Mapping[str, int], samples: Sequence[int]) -> Instrumented:
    index = connections.workspace.samples(connections.inventory.persons)
    rows = dict.fromkeys(row for sample in samples for row in ([sample] if index.rows is None else index.rows[sample]))
    inputs = [np.stack([connections.read_row(array, row) for row in rows]) for array in index.inputs]
    session = onnx_model.session(onnx_model.load(onnx))
    names, outputs = [tensor.name for tensor in session.get_inputs()], [each.name for each in session.get_outputs()]
    each = [
        session.run(outputs, {name: row[None] for name, row in zip(names, one, strict=True)})
        for one in zip(*inputs, strict=True)
    ]
    fp32 = {name: np.stack([values[place].reshape(-1) for values in each]) for name, place in places.items()}
    return Instrumented(onnx, places, inputs, fp32)


@dataclass(frozen=True)
class _Run:
    """One precision_mode: converted, run, fetched."""

    connections: Connections
    inputs: Mapping[str, Any]
    mode: str
    batch_size: int

    def nearness(self, instrumented: Instrumented) -> list[dict[str, Any]] | str:
        """Of every output, the blocks first; or the sentence with which the tools refused this mode."""
        host, folder = self.connections.npus[0].host, self._folder
        try:
            self._prepare(instrumented)
            self._tools(instrumented.onnx)
            device = self._fetch(instrumented)
        except KitError as error:
            if self.mode == self.inputs["modes"][0]:
                raise
            return str(error)
        finally:
            host.call("remove", {"paths": [str(folder)]})
        order = [*(name for name in instrumented.places if name != LOGITS), LOGITS]
        return [asdict(near) for near in blocks.compare(order, device, instrumented.fp32)]

    def commands(self, onnx: Path) -> list[list[str]]:
        """atc's and ais_bench's whole argument lists."""
        atc_argv, bench_argv = self._argv(onnx)
        runtime = self.connections.npus[0].runtime
        return [runtime.argv(atc_argv, self._folder), self._device[0].argv(bench_argv, self._folder)]

    def _argv(self, onnx: Path) -> tuple[list[str], list[str]]:
        npu, om = self.connections.npus[0], str(self._folder / "blocks")
        tools = npu.section.tools
        flags = {**self.connections.inventory.atc, "precision_mode": self.mode}
        there = str(Copy.of(onnx).on(npu.host))
        shapes = {tensor.name: tensor.shape for tensor in self.connections.workspace.card().inputs}
        convert = atc.argv(tools.atc, there, om, self.batch_size, npu.facts.soc_version, flags, shapes)
        folders = [str(self._folder / f"input-{name}") for name in shapes]
        places = (folders, str(self._folder / "output"), RESULTS)
        number = self._device[1]
        return convert, ais_bench.infer_argv(tools.python, f"{om}.om", *places, number, self.batch_size)

    @property
    def _device(self) -> tuple[Runtime, int]:
        """What runs on the first device that the inventory lists, and the number that ais_bench knows it by."""
        npu = self.connections.npus[0]
        return npu.runtime.on_device(npu.devices[0].chip.device)

    def _prepare(self, instrumented: Instrumented) -> None:
        host = self.connections.npus[0].host
        Worker(self.connections.npus[0]).send(instrumented.onnx)
        host.call("link", {"folder": str(self._folder / "output"), "files": {}})
        for tensor, rows in zip(self.connections.workspace.card().inputs, instrumented.inputs, strict=True):
            folder = self._folder / f"input-{tensor.name}"
            host.call("link", {"folder": str(folder), "files": {}})
            for i in range(self._padded(instrumented.rows)):
                local = self.connections.workspace.artefact(f"locate/{i}.bin")
                with atomic_write(local) as stream:
                    stream.write(np.ascontiguousarray(rows[i % instrumented.rows]).tobytes())
                transfer.put(host, local, folder / f"{i}.bin")
                local.unlink()

    def _tools(self, onnx: Path) -> None:
        runtime, limit = self.connections.npus[0].runtime, self.connections.inventory.timeout_s
        convert, infer = self._argv(onnx)
        log = self.connections.workspace.artefact(f"locate/{self.mode}-atc.log")
        done = runtime.run(convert, folder=self._folder, log=log, timeout_s=limit)
        atc.parse(done.output, done.status)
        log = self.connections.workspace.artefact(f"locate/{self.mode}-ais_bench.log")
        done = self._device[0].run(infer, folder=self._folder, log=log, timeout_s=limit)
        if done.status != 0:
            raise ais_bench.failure(done.output, done.status)

    def _fetch(self, instrumented: Instrumented) -> dict[str, np.ndarray]:
        """Each output as (samples, values), from the files <sample>_<output>.bin."""
        host = self.connections.npus[0].host
        top = self._folder / "output" / RESULTS
        listing: dict[str, int] = host.call("listing", {"folder": str(top)})
        files = [f"{i}_{place}.bin" for place in instrumented.places.values() for i in range(instrumented.rows)]
        expected = [
            4 * instrumented.fp32[name].shape[1] for name in instrumented.places for _ in range(instrumented.rows)
        ]
        for name, size in zip(files, expected, strict=True):
            if listing.get(name) != size:
                raise KitError(
                    f"{host.name}: ais_bench left {name} with {listing.get(name)} bytes and not {size};"
                    f" its output is in {self.connections.workspace.artefact('locate')}"
                )
        local = self.connections.workspace.artefact(f"locate/{self.mode}.raw")
        host.call("pack", {"folder": str(top), "names": files, "path": str(self._folder / "packed")})
        transfer.get(host, self._folder / "packed", local)
        values = np.fromfile(local, np.float32)
        local.unlink()
        sizes = [instrumented.fp32[name].size for name in instrumented.places]
        if values.size != sum(sizes):
            raise KitError(f"{host.name}: {values.nbytes} bytes came back, not {4 * sum(sizes)}; run it again")
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return {
            name: part.reshape(instrumented.rows, -1) for name, part in zip(instrumented.places, parts, strict=True)
        }

    def _padded(self, samples: int) -> int:
        """Whole batches: eras of ais_bench differ in what they do with a partial one."""
        return math.ceil(samples / self.batch_size) * self.batch_size

    @property
    def _folder(self) -> Any:
        return Job(self.connections.npus[0].host, job_name(self.inputs, f"locate-{self.mode}")).folder


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
    if isinstance(nearness, str):
        return {"refused": nearness}
    return {
        "blocks": [{**near, "passed": near["relative_error"] <= TOLERANCE} for near in nearness],
        "first_past": first_past(nearness),
        "tolerance_that_passes": max(near["relative_error"] for near in nearness),
    }


def first_past(nearness: Sequence[Mapping[str, Any]]) -> str | None:
    """The first block whose output is past the tolerance (NaN is)."""
    return next((near["block"] for near in nearness if not near["relative_error"] <= TOLERANCE), None)


def _conclusion(found: Mapping[str, list[dict[str, Any]] | str], modes: Sequence[str]) -> str:
    ours, other = modes
    nearness, alternative = found[ours], found[other]
    assert not isinstance(nearness, str)
    where = first_past(nearness)
    if where is None:
        return f"with precision_mode={ours} no block is past the tolerance of {TOLERANCE:g}"
    needed = max(near["relative_error"] for near in nearness)
    named = f"block {where}" if where != LOGITS else "what follows the last block"
    head = f"{named} is the first past the tolerance of {TOLERANCE:g}; {needed:.2g} would have passed"
    if isinstance(alternative, str):
        return f"{head}; precision_mode={other} was refused: {alternative}"
    still = first_past(alternative)
    if still is None:
        return f"{head}; precision_mode={other} mends it: set it under `atc` in the inventory"
    changed = "does not change it" if still == where else f"moves it to {still}"
    return f"{head}; precision_mode={other} {changed}, so it is not a matter of fp16 but of the device or its kernels"


def _print(result: Mapping[str, Any]) -> None:
    blocks_of = f"blocks{mark(result['simulated'], result['health'])} against fp32"
    title = f"{blocks_of}, batch size {result['batch_size']}, samples {result['samples']}"
    grid = Table(title=title, title_justify="left")
    modes = {mode: judged["blocks"] for mode, judged in result["modes"].items() if "blocks" in judged}
    grid.add_column("block", justify="right")
    for mode in modes:
        for heading in (mode, "cosine min", ""):
            grid.add_column(heading, justify="right", overflow="fold")
    for row in zip(*modes.values(), strict=True):
        cells = [(f"{n['relative_error']:.2e}", f"{n['cosine_min']:.6f}", "✓" if n["passed"] else "✗") for n in row]
        grid.add_row(row[0]["block"], *(cell for three in cells for cell in three))
    console.print(grid)
    say(result["conclusion"], "bold")
