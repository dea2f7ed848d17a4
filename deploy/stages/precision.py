"""`fab npu-precision`: which nodes must stay in float32 for the gate to hold, and what that costs.

The nodes are ranked before any conversion (deploy/precision/ranking.py). Then OMs decide: float16 throughout, float32
throughout, and the sets between that the search asks for (deploy/precision/search.py), each by ATC's --keep_dtype.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from deploy.connections import Connections
from deploy.console import console, mark, say
from deploy.errors import KitError
from deploy.evidence.chain import reference_names
from deploy.evidence.logits import output_names
from deploy.evidence.scores import scores
from deploy.inventory import ROOT, chosen
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import Step, write_json
from deploy.precision import ranking
from deploy.precision.arithmetic import Network
from deploy.precision.search import smallest
from deploy.precision.units import blocks_of, units
from deploy.report.summary import relative_errors
from deploy.stages import accuracy, convert, locate, throughput
from deploy.workspace import Workspace
from stgcn import npy, onnx_model
from stgcn.errors import InputError
from stgcn.files import atomic_write, sha256_file

STAGE, STEP = "npu-precision", "precision"
FORMAT = 1
RANKED = 2  # samples whose every value is read
WIDE = {"precision_mode": ("must_keep_origin_dtype", "force_fp32"), "precision_mode_v2": ("origin",)}
KEEP = "keep_dtype"


def run(connections: Connections, samples: int) -> None:
    """Make precision/precision.json, keep_dtype.cfg and inventory.yaml, the lines for the inventory; print them.

    Raises:
        KitError: nothing is lowered to float16, or precision does not explain what is wrong.
    """
    workspace = connections.workspace
    if samples < 1:
        raise KitError(f"--samples {samples}: try each set on at least 1")
    every = workspace.index()
    say(f"{STAGE} on {connections.npus[0].devices[0]}, {min(samples, every.samples)} samples first", "bold")
    doctor = Doctor(connections, locate.worst_batch(workspace), every.head(min(samples, every.samples)))
    if connections.options.dry:
        convert.convert(connections, [doctor.build("fp16", ()), doctor.build("fp32", doctor.names)])
        say("  the ranking and the search, one conversion for each set tried, would follow")
        return
    if doctor.passes(()):
        doctor.widen(every)
    if doctor.passes(()):
        _finish(doctor, [])
        return
    chosen = locate.notable(workspace, RANKED)
    if not doctor.passes(doctor.names):
        _not_precision(doctor, chosen)
    ranked = doctor.rank(chosen)
    names = [finding["name"] for finding in ranked["findings"]]
    kept = smallest(names, doctor.passes, len(ranked["suspects"]))
    doctor.widen(every)
    if not doctor.passes(kept):  # the first samples did not show it all
        rest = [name for name in names if name not in kept]
        kept = smallest([*kept, *rest], doctor.passes, len(kept))
    _finish(doctor, [finding for finding in ranked["findings"] if finding["name"] in kept])


@dataclass
class Doctor:
    """What is tried on the device: sets of units to keep, over the samples of an index."""

    connections: Connections
    batch_size: int
    index: Index
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the build's name
    compared: bool = False  # block by block

    def __post_init__(self) -> None:
        inventory = self.connections.inventory
        self.flags = {flag: value for flag, value in inventory.atc.items() if flag != KEEP}
        named = "precision_mode_v2" if "precision_mode_v2" in self.flags else "precision_mode"
        self.mode = self.flags.get(named, "force_fp16")
        if self.mode in WIDE[named]:
            raise KitError(f"`atc.{named}: {self.mode}` lowers nothing to float16, so there is nothing to keep")
        self.onnx = self.workspace.onnx()
        self.network = Network(onnx_model.load(self.onnx))
        self.names = [unit.name for unit in self.network.choices]

    @property
    def workspace(self) -> Workspace:
        return self.connections.workspace

    @cached_property
    def ends(self) -> Mapping[str, str]:
        """The tensor that each block ends with; empty where the model's package knows no blocks in this graph."""
        if "blocks" not in self.workspace.model.card.capabilities:
            return {}
        try:
            _, named = locate.instrument(self.workspace)
        except InputError as error:
            say(f"  blocks are not told: {error}", "yellow")
            return {}
        return {block: output for block, output in named.items() if block != locate.LOGITS}

    def widen(self, index: Index) -> None:
        """Try on these samples from now on."""
        self.index = index

    def build(self, name: str, kept: Collection[str]) -> Build:
        """The OM with some units kept; its keep_dtype file is made."""
        base = replace(self.workspace.build(self.batch_size), aoe_job_type=None)
        folder = self.workspace.artefact(f"precision/{name}")
        flags, files = dict(self.flags), {flag: path for flag, path in base.files.items() if flag != KEEP}
        if kept:
            files[KEEP] = folder / f"{KEEP}.cfg"
            flags[KEEP] = files[KEEP].name
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(files[KEEP]) as stream:
                stream.write("".join(f"{each}\n" for each in self.names if each in kept).encode())
        return replace(base, name=f"precision/{name}", folder=folder, flags=flags, files=files)

    def build_of(self, kept: Sequence[str]) -> Build:
        if not kept:
            return self.build("fp16", ())
        if len(kept) == len(self.names):
            return self.build("fp32", kept)
        return self.build(f"kept-{_digest(sorted(kept))}", kept)

    def passes(self, kept: Sequence[str]) -> bool:
        """Whether the gate holds with these units in float32.

        Raises:
            KitError: it does not convert, or no device is left that can run it.
        """
        build = self.build_of(kept)
        if self.tried.get(build.name, {}).get("samples") == self.index.samples:
            return bool(self.tried[build.name]["passed"])
        if failed := convert.convert(self.connections, [build]).get(build.name):
            raise failed
        count = self.index.samples
        step, path = f"{build.name}/{count}", build.folder / f"score-{count}.json"
        inputs = {
            "om": sha256_file(self.workspace.om(build)),
            "dataset": self.workspace.index_sha256(self.index),
            "samples": count,
            "gates": self.gates,
            "package": self.workspace.model.sha256,
            **self.connections.npus[0].facts.tools,
            **self.connections.inventory.environment,
        }

        def action() -> dict[str, Any]:
            write_json(path, self._scored(build) | {"kept": len(kept), "samples": count})
            return self.connections.npus[0].facts.record

        self.connections.run_step(Step(step, str(self.connections.npus[0].devices[0]), inputs, [path], action))
        found: dict[str, Any] = json.loads(path.read_bytes())
        self.tried[build.name] = found
        say(f"    {len(kept)} kept: {_said(found)}", "dim")
        return bool(found["passed"])

    @property
    def conversions(self) -> int:
        """How many OMs were made for this: not those of another command."""
        entries = self.workspace.manifest.steps
        made = [f"convert/{name}" for name in self.tried]
        made += [name for name in entries if name.startswith(f"convert/{locate.STAGE}/") and self.compared]
        return sum(convert.COPIED not in entries[name].get("facts", {}) for name in made)

    def found(self, kept: Sequence[str]) -> dict[str, Any] | None:
        """What was last found of a set."""
        return self.tried.get(self.build_of(kept).name)

    @property
    def gates(self) -> dict[str, float]:
        gate = self.connections.inventory.gate
        return {metric.key: metric.gate or gate for metric in self.workspace.card().metrics}

    def _scored(self, build: Build) -> dict[str, Any]:
        """The metrics over the samples against fp32's, and the share of them that get fp32's answer."""
        index = self.workspace.samples(build.persons).head(self.index.samples)
        outputs = accuracy.outputs_over(self.connections, build, index)
        if not all(np.isfinite(values).all() for values in outputs if values.dtype.kind == "f"):
            return {"passed": False, "finite": False}
        card, count = build.card, self.index.samples
        manifest = self.workspace.manifest
        reference = [
            manifest.output("reference", self.workspace.artefact(f"gpu/{name}"), "make gpu-stage")
            for name in reference_names(card)
        ]
        labels = manifest.output("preprocess", self.workspace.artefact("gpu/labels.npy"), "make gpu-stage")
        device = [build.folder / name for name in output_names(card)]
        for file, values in zip(device, outputs, strict=True):
            with atomic_write(file) as stream:
                np.save(stream, values)
        expected, found = scores(self.workspace.model, labels, [reference, device], count)
        for file in device:
            file.unlink()
        off = relative_errors(found.metrics, expected.metrics)
        passed = all(error <= self.gates[key] for key, error in off.items())
        result: dict[str, Any] = {"finite": True, "metrics": found.metrics, "relative_error": max(off.values())}
        if card.classes:
            same = npy.load(reference[0])[:count].argmax(1) == outputs[0].argmax(1)
            result["agreement"] = float(same.mean())
            # Errors that cancel in a metric do not in the answers. Of few samples one may be a tie.
            passed = passed and int((~same).sum()) <= max(1, int(min(self.gates.values()) * count))
        return {**result, "passed": passed}

    def rank(self, chosen: Sequence[int]) -> dict[str, Any]:
        """Every unit by what float16 does to it on these samples, kept in precision/ranking.json."""
        workspace, path = self.workspace, self.workspace.artefact("precision/ranking.json")
        index = workspace.samples(self.connections.inventory.persons)
        numbers = [sample if index.rows is None else index.rows[sample][0] for sample in chosen]
        inputs = {
            "onnx": sha256_file(self.onnx),
            "dataset": workspace.index_sha256(index),
            "rows": numbers,
            "suspect": ranking.SUSPECT,
            "tolerance": ranking.OUTPUT_TOLERANCE,
        }

        def action() -> dict[str, Any]:
            say(f"  reading every value of {len(numbers)} rows, node by node", "dim")
            rows = [[self.connections.read_row(array, row)[None] for array in index.inputs] for row in numbers]
            ranked = ranking.rank(self.network, rows)
            findings = [finding.record() for finding in ranked.findings]
            write_json(path, {"format": FORMAT, "findings": findings, "suspects": list(ranked.suspects)})
            return {}

        self.connections.run_step(Step("precision/ranking", "control", inputs, [path], action))
        result: dict[str, Any] = json.loads(path.read_bytes())
        return result

    def blocks(self) -> Mapping[str, str | None]:
        """The block of each unit."""
        return blocks_of(units(self.network.model), self.ends)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _said(found: Mapping[str, Any]) -> str:
    if not found["finite"]:
        return "✗ NaN or infinite outputs"
    agreement = f", {found['agreement']:.2%} get fp32's answer" if "agreement" in found else ""
    return f"{'✓' if found['passed'] else '✗'} {found['relative_error']:.2%} off{agreement}"


def _not_precision(doctor: Doctor, chosen: Sequence[int]) -> None:
    """Say so, and where the device leaves fp32 in either mode."""
    conclusion = None
    if doctor.ends:
        wide = WIDE["precision_mode_v2" if doctor.mode in locate.MODES_V2 else "precision_mode"][0]
        compared = locate.compare(doctor.connections, doctor.batch_size, chosen, [doctor.mode, wide])
        doctor.compared = True
        locate.print_blocks(compared)
        conclusion = compared["conclusion"]
    verdicts = {"fp16": doctor.found(()), "fp32": doctor.found(doctor.names)}
    _keep(doctor, {"explained": False, "nodes": [], "verdicts": verdicts, "throughput": {}, "blocks": conclusion})
    raise KitError(
        "with every node kept in float32 the gate does not hold either, so precision does not explain it; it is the "
        f"data, their layout or a kernel of the device{f': {conclusion}' if conclusion else ''}"
    )


def _finish(doctor: Doctor, findings: Sequence[Mapping[str, Any]]) -> None:
    """Measure, write and print what was found; `findings` are those of the kept units."""
    kept = [finding["name"] for finding in findings]
    ways = {"fp16": (), "kept": kept, "fp32": doctor.names} if kept else {"fp16": ()}
    figures = {}
    for way, names in ways.items():
        build = doctor.build_of(names)
        throughput.run(doctor.connections, build)
        figures[way] = json.loads((build.folder / "benchmark.json").read_bytes())["throughput"]
    of_block = doctor.blocks() if kept else {}
    result = _keep(
        doctor,
        {
            "explained": True,
            "nodes": [{**finding, "block": of_block.get(finding["name"])} for finding in findings],
            "verdicts": {way: doctor.found(names) for way, names in ways.items()},
            "throughput": figures,
            "blocks": None,
        },
    )
    _print(result)
    if kept:
        say(f"for the inventory: {doctor.workspace.artefact('precision/inventory.yaml')}", "bold green")


def _keep(doctor: Doctor, found: Mapping[str, Any]) -> dict[str, Any]:
    """Write precision.json, ATC's file and the lines for the inventory; the contents of the first."""
    connections, kept = doctor.connections, [node["name"] for node in found["nodes"]]
    facts = connections.npus[0].facts
    result = {
        "format": FORMAT,
        "batch_size": doctor.batch_size,
        "samples": doctor.index.samples,
        "gates": doctor.gates,
        "mode": doctor.mode,
        "units": len(doctor.names),
        "conversions": doctor.conversions,
        "inventory": _lines(doctor, found, kept),
        **found,
        **facts.record,
    }
    folder = doctor.workspace.artefact("precision")
    texts = {"inventory.yaml": result["inventory"]}
    if kept:
        texts[f"{KEEP}.cfg"] = "".join(f"{name}\n" for name in kept)
    files = [folder / "precision.json", *(folder / name for name in texts)]

    def action() -> dict[str, Any]:
        write_json(files[0], result)
        for name, text in texts.items():
            with atomic_write(folder / name) as stream:
                stream.write(text.encode())
        return facts.record

    entries = doctor.workspace.manifest.steps
    inputs = {**graph.inputs(entries, STEP, connections.inventory), "result": result, **facts.tools}
    connections.run_step(Step(STEP, "control", inputs, files, action, [["env", f"INVENTORY={chosen()}", "fab", STAGE]]))
    return result


def _lines(doctor: Doctor, found: Mapping[str, Any], kept: Sequence[str]) -> str:
    """The lines for the inventory."""
    if not found["explained"]:
        return "# Precision does not explain why the gate does not hold.\n"
    if not kept:
        return "# The gate holds in float16 throughout: nothing has to be kept.\n"
    path = doctor.workspace.artefact(f"precision/{KEEP}.cfg")
    place = os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)
    return yaml.safe_dump({"atc": {**doctor.flags, KEEP: place}}, sort_keys=False, default_flow_style=None)


def _print(result: Mapping[str, Any]) -> None:
    marked = mark(result["simulated"], result["health"])
    if not result["nodes"]:
        say(f"the gate holds over {result['samples']} samples in {result['mode']}{marked}: nothing has to be kept")
        return
    count = len(result["nodes"])
    title = f"{count} of {result['units']} nodes must stay in float32{marked}, {result['conversions']} conversions"
    grid = Table(title=title, title_justify="left")
    for heading in ("node", "block", "why"):
        grid.add_column(heading, overflow="fold")
    for node in result["nodes"]:
        grid.add_row(f"{node['name']} ({node['kind']})", node["block"] or "", "; ".join(node["reasons"]))
    console.print(grid)
    rates = {way: figure["median"] for way, figure in result["throughput"].items()}
    shown = ", ".join(f"{way} {rate:.2f}" for way, rate in rates.items())
    say(f"samples/s{marked} at batch size {result['batch_size']}: {shown}", "bold")
    say(f"with them the gate holds over {result['samples']} samples: {_said(result['verdicts']['kept'])}", "bold green")
