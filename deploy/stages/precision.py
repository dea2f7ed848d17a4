"""`fab npu-precision`: which nodes must stay in float32 for the gate to hold, and what that costs.

The nodes are ranked before any conversion (deploy/precision/ranking.py). Then OMs decide: float16 throughout, float32
throughout, and the sets between that the search asks for (deploy/precision/search.py), each by ATC's --keep_dtype or,
where an ATC lacks that or does not heed it, by operator types in --modify_mixlist.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from deploy.connections import Connections
from deploy.console import console, mark, say, table
from deploy.errors import KitError
from deploy.evidence.logits import output_names
from deploy.evidence.scores import holds, scores
from deploy.inventory import ROOT, chosen, local_path
from deploy.npu import atc
from deploy.pipeline import graph
from deploy.pipeline.build import FILES, KEEP, MIXLIST, MODES_V2, Build
from deploy.pipeline.index import Index
from deploy.pipeline.manifest import Step, write_json
from deploy.precision import ranking, ways
from deploy.precision.arithmetic import Network
from deploy.precision.reasons import in_words
from deploy.precision.search import smallest
from deploy.precision.units import blocks_of, units
from deploy.report.summary import relative_errors
from deploy.stages import accuracy, convert, locate, throughput
from deploy.workspace import Workspace
from stgcn import npy, onnx_model
from stgcn.errors import InputError
from stgcn.files import atomic_write, sha256_file, write_whole

STAGE, STEP = "npu-precision", "precision"
FORMAT = 2
RANKED = 2  # rows whose every value is read
RANKINGS = 3  # each of the samples that what the one before named leaves farthest off
WIDE = {"precision_mode": ("must_keep_origin_dtype", "force_fp32"), "precision_mode_v2": ("origin",)}


def run(connections: Connections, samples: int) -> None:
    """Make precision/precision.json, ATC's file and inventory.yaml, the lines for the inventory; print them.

    Raises:
        KitError: nothing is lowered to float16, or precision does not explain what is wrong.
    """
    workspace = connections.workspace
    if samples < 1:
        raise KitError(f"--samples {samples}: try each set on at least 1")
    every = workspace.samples()
    say(f"{STAGE} on {connections.devices[0]}, {min(samples, every.samples)} samples first", "bold")
    doctor = Doctor(connections, locate.worst_batch(workspace), every.head(min(samples, every.samples)))
    if connections.options.dry:
        convert.convert(connections, [doctor.build_of(()), doctor.build_of(doctor.names)])
        say("  the ranking and the search, one conversion for each set tried, would follow")
        return
    if doctor.passes(()):
        doctor.index = every
    if doctor.passes(()):
        _finish(doctor, ())
        return
    if not doctor.finds_a_way():
        _not_precision(doctor)
    kept = doctor.search(())
    doctor.index = every
    if not doctor.passes(kept):  # the first samples did not show it all
        if not doctor.passes(doctor.names):
            _not_precision(doctor)
        kept = doctor.search(kept)
    _finish(doctor, kept)


@dataclass
class Doctor:
    """What is tried on the device: sets of names (of units, or of operator types) to keep, over an index's samples."""

    connections: Connections
    batch_size: int
    index: Index  # the first samples; all of them, once those are found to show too little
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the build's name
    compared: bool = False  # block by block
    findings: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # the worst of each unit
    rankings: int = 0

    def __post_init__(self) -> None:
        inventory = self.connections.inventory
        self.flags = {flag: value for flag, value in inventory.atc.items() if flag != KEEP}
        named = "precision_mode_v2" if "precision_mode_v2" in self.flags else "precision_mode"
        own = self.workspace.artefact(f"precision/{FILES[MIXLIST]}")
        if MIXLIST in self.flags and local_path(self.flags[MIXLIST]) == own:  # what was found before
            del self.flags[MIXLIST]
            self.flags[named] = ways.MODES[named][0]
        self.mode = self.flags.get(named, ways.MODES[named][0])
        if self.mode in WIDE[named]:
            raise KitError(f"`atc.{named}: {self.mode}` lowers nothing to float16, so there is nothing to keep")
        self.onnx = self.workspace.onnx()
        self.network = Network(onnx_model.load(self.onnx))
        self.way = ways.by_name(self.network.choices)

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

    @property
    def names(self) -> list[str]:
        """All that can be kept."""
        return list(self.way.members)

    def finds_a_way(self) -> bool:
        """Whether the gate holds with all in float32; by operator types where this ATC does not keep single nodes."""
        try:
            if self.passes(self.names):
                return True
            say("  the gate does not hold with every node kept: operator types are tried", "yellow")
        except InputError as error:
            if not atc.lacks_flag(str(error), KEEP):
                raise
            say(f"  this ATC has no --{KEEP}: operator types are kept, by --{MIXLIST}", "yellow")
        self.way = ways.by_type(self.network.choices)
        return self.passes(self.names)

    def build_of(self, kept: Sequence[str]) -> Build:
        """The OM with these in float32; ATC's file is made."""
        base, way = replace(self.workspace.build(self.batch_size), aoe_job_type=None), self.way
        name = f"kept-{_digest(sorted(kept))}" if kept else "fp16"
        name = "fp32" if len(kept) == len(self.names) else name
        name = f"types-{name}" if kept and way.flag == MIXLIST else name
        folder = self.workspace.artefact(f"precision/{name}")
        flags, files = self.flags, {flag: path for flag, path in base.files.items() if flag in self.flags}
        if kept:
            files[way.flag] = folder / FILES[way.flag]
            flags = way.flags(flags, files[way.flag].name)
            write_whole(files[way.flag], way.text(kept).encode())
        return replace(base, name=f"precision/{name}", folder=folder, flags=flags, files=files)

    def passes(self, kept: Sequence[str]) -> bool:
        """Whether the gate holds with these in float32.

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
            "format": FORMAT,
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

        self.connections.run_step(Step(step, str(self.connections.devices[0]), inputs, [path], action))
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
        card, count = build.card, self.index.samples
        reference = self.workspace.reference(card)
        worst = {"worst": _farthest(outputs, [npy.load(path)[:count] for path in reference], RANKED)}
        if not all(np.isfinite(values).all() for values in outputs if values.dtype.kind == "f"):
            return {"passed": False, "finite": False, **worst}
        device = [build.folder / name for name in output_names(card)]
        for file, values in zip(device, outputs, strict=True):
            with atomic_write(file) as stream:
                np.save(stream, values)
        expected, found = scores(self.workspace.model, self.workspace.labels(), [reference, device], count)
        for file in device:
            file.unlink()
        off = relative_errors(found.metrics, expected.metrics)
        wrong = 0
        measured = {"metrics": found.metrics, "relative_error": max(off.values())}
        result: dict[str, Any] = {"finite": True, **worst, **measured}
        if card.classes:
            same = npy.load(reference[0])[:count].argmax(1) == outputs[0].argmax(1)
            result["agreement"], wrong = float(same.mean()), int((~same).sum())
        return {**result, "passed": holds(off, self.gates, wrong, count)}

    def search(self, kept: Sequence[str]) -> list[str]:
        """The smallest set of names that passes; `kept` is a part of it that does not."""
        named = list(kept)
        for _ in range(RANKINGS):
            order, suspects = self.rank(self.tried[self.build_of(named).name]["worst"])
            if not (new := [name for name in suspects if name not in named]):
                break
            named += new
            if self.passes(named):
                break
        return smallest([*named, *(name for name in order if name not in named)], self.passes, len(named))

    def rank(self, samples: Sequence[int]) -> tuple[list[str], list[str]]:
        """All names by what float16 does to the units on these samples, and those that should do.

        What was found of each unit is kept in precision/ranking.json, of a second ranking in ranking-2.json.
        """
        self.rankings += 1
        name = f"ranking-{self.rankings}" if self.rankings > 1 else "ranking"
        workspace, path = self.workspace, self.workspace.artefact(f"precision/{name}.json")
        inputs = {
            "format": FORMAT,
            "onnx": sha256_file(self.onnx),
            "dataset": workspace.index_sha256(workspace.samples(self.connections.inventory.persons)),
            "samples": list(samples),
            "suspect": ranking.SUSPECT,
            "tolerance": ranking.OUTPUT_TOLERANCE,
        }

        def action() -> dict[str, Any]:
            rows = self._rows(samples)
            say(f"  reading every value of {len(rows)} rows, node by node", "dim")
            ranked = ranking.rank(self.network, rows)
            findings = [finding.record() for finding in ranked.findings]
            write_json(path, {"format": FORMAT, "findings": findings, "suspects": list(ranked.suspects)})
            return {}

        self.connections.run_step(Step(f"precision/{name}", "control", inputs, [path], action))
        result = json.loads(path.read_bytes())
        for finding in result["findings"]:
            before = self.findings.get(finding["name"])
            self.findings[finding["name"]] = max(filter(None, (before, finding)), key=_error)
        every = self.way.naming(finding["name"] for finding in result["findings"])
        return every, self.way.naming(result["suspects"])

    def of_matrix_unit(self) -> list[str]:
        """The nodes that would spoil even float32 throughout on a chip whose matrix unit takes float16 alone."""
        worst = self.tried[self.build_of(self.names).name]["worst"]
        return ranking.of_matrix_unit(self.network, self._rows(worst))

    def _rows(self, samples: Sequence[int]) -> Sequence[Sequence[np.ndarray]]:
        """Rows of these samples that float16 is farthest off on, each the arrays of the inputs, of batch 1."""
        index = self.workspace.samples(self.connections.inventory.persons)
        numbers = [row for sample in samples for row in ([sample] if index.rows is None else index.rows[sample])]
        rows = [[self.connections.read_row(array, row)[None] for array in index.inputs] for row in numbers]
        return ranking.farthest(self.network, rows, RANKED)

    def blocks(self) -> Mapping[str, str | None]:
        """The block of each unit."""
        return blocks_of(units(self.network.model), self.ends)


def _farthest(found: Sequence[np.ndarray], exact: Sequence[np.ndarray], count: int) -> list[int]:
    """The samples whose outputs, each (samples, ...), are farthest off; those that are not finite first."""
    worst = np.zeros(len(found[0]))
    for a, b in zip(found, exact, strict=True):
        if b.dtype.kind == "f":
            off, size = (np.linalg.norm(x.reshape(len(x), -1).astype(np.float64), axis=1) for x in (a - b, b))
            errors = np.divide(off, size, out=np.zeros_like(off), where=size > 0)
            worst = np.maximum(worst, np.where(np.isfinite(off), errors, np.inf))
    return [int(sample) for sample in np.argsort(-worst, kind="stable")[:count]]


def _error(finding: Mapping[str, Any]) -> float:
    return math.inf if finding["error"] is None else float(finding["error"])


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _said(found: Mapping[str, Any]) -> str:
    if not found["finite"]:
        return "✗ NaN or infinite outputs"
    agreement = f", {found['agreement']:.2%} get fp32's answer" if "agreement" in found else ""
    return f"{'✓' if found['passed'] else '✗'} {found['relative_error']:.2%} off{agreement}"


def _not_precision(doctor: Doctor) -> None:
    """Say so, and where the device leaves fp32 in either mode."""
    conclusion, of_modes, matrix = None, [], doctor.of_matrix_unit()
    if doctor.ends:
        wide = WIDE["precision_mode_v2" if doctor.mode in MODES_V2 else "precision_mode"][0]
        worst = doctor.tried[doctor.build_of(doctor.names).name]["worst"]
        compared = locate.compare(doctor.connections, doctor.batch_size, worst, [doctor.mode, wide])
        doctor.compared = True
        locate.print_blocks(compared)
        conclusion = compared["conclusion"]
        of_modes = [
            {"mode": mode, "first_past": judged.get("first_past"), "refused": "refused" in judged}
            for mode, judged in compared["modes"].items()
        ]
    verdicts = {"fp16": doctor.found(()), "fp32": doctor.found(doctor.names)}
    found = {"explained": False, "nodes": [], "verdicts": verdicts, "throughput": {}, "blocks": of_modes}
    _keep(doctor, {**found, "matrix": matrix}, ())
    unless = "; or the chip's matrix unit takes float16 alone, whatever ATC is told: then scale the weights of "
    raise KitError(
        "with every node kept in float32 the gate does not hold either, so precision does not explain it; it is the "
        f"data, their layout or a kernel of the device{f' ({conclusion})' if conclusion else ''}"
        f"{unless + ', '.join(matrix) if matrix else ''}"
    )


def _finish(doctor: Doctor, kept: Sequence[str]) -> None:
    """Measure, write and print what was found."""
    tried = {"fp16": (), "kept": kept, "fp32": doctor.names} if kept else {"fp16": ()}
    figures = {}
    for way, names in tried.items():
        build = doctor.build_of(names)
        throughput.run(doctor.connections, build)
        figures[way] = json.loads((build.folder / "benchmark.json").read_bytes())["throughput"]
    of_block, units_kept = (doctor.blocks(), doctor.way.units(kept)) if kept else ({}, set())
    findings = [doctor.findings[unit.name] for unit in doctor.network.choices if unit.name in units_kept]
    result = _keep(
        doctor,
        {
            "explained": True,
            "nodes": [
                {**finding, "reasons": _reasons(doctor, finding), "block": of_block.get(finding["name"])}
                for finding in findings
            ],
            "verdicts": {way: doctor.found(names) for way, names in tried.items()},
            "throughput": figures,
            "blocks": [],
            "matrix": [],
        },
        kept,
    )
    _print(result)
    if kept:
        say(f"for the inventory: {doctor.workspace.artefact('precision/inventory.yaml')}", "bold green")


def _reasons(doctor: Doctor, finding: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why a unit is kept; one that nothing ails may be of a type that is."""
    if _error(finding) > ranking.SUSPECT or doctor.way.flag == KEEP:
        return list(finding["reasons"])
    return [{"cause": "type", "figure": None}]


def _keep(doctor: Doctor, found: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Write precision.json, ATC's file and the lines for the inventory; the contents of the first."""
    connections, way = doctor.connections, doctor.way
    facts = connections.npus[0].facts
    result = {
        "format": FORMAT,
        "batch_size": doctor.batch_size,
        "samples": doctor.index.samples,
        "gates": doctor.gates,
        "mode": doctor.mode,
        "units": len(doctor.network.choices),
        "conversions": doctor.conversions,
        "inventory": _lines(doctor, found, kept),
        "file": {"flag": way.flag, "text": way.text(kept)} if kept else None,
        **found,
        **facts.record,
    }
    folder = doctor.workspace.artefact("precision")
    texts = {"inventory.yaml": result["inventory"]}
    if kept:
        texts[FILES[way.flag]] = result["file"]["text"]
    files = [folder / "precision.json", *(folder / name for name in texts)]

    def action() -> dict[str, Any]:
        write_json(files[0], result)
        for name, text in texts.items():
            write_whole(folder / name, text.encode())
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
    path = doctor.workspace.artefact(f"precision/{FILES[doctor.way.flag]}")
    place = os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)
    lines = {"atc": doctor.way.flags(doctor.flags, place)}
    return yaml.safe_dump(lines, sort_keys=False, default_flow_style=None)


def _print(result: Mapping[str, Any]) -> None:
    marked = mark(result["simulated"], result["health"])
    if not result["nodes"]:
        say(f"the gate holds over {result['samples']} samples in {result['mode']}{marked}: nothing has to be kept")
        return
    count = len(result["nodes"])
    title = f"{count} of {result['units']} nodes must stay in float32{marked}, {result['conversions']} conversions"
    rows = ((f"{n['name']} ({n['kind']})", n["block"] or "", in_words(n["reasons"])[0]) for n in result["nodes"])
    console.print(table(("node", "block", "why"), rows, title))
    rates = {way: figure["median"] for way, figure in result["throughput"].items()}
    shown = ", ".join(f"{way} {rate:.2f}" for way, rate in rates.items())
    say(f"samples/s{marked} at batch size {result['batch_size']}: {shown}", "bold")
    say(f"with them the gate holds over {result['samples']} samples: {_said(result['verdicts']['kept'])}", "bold green")
