"""`fab npu-convert`: the ONNX to the NPU hosts, through ATC once per batch size, each OM and its log back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.connections import Connections
from deploy.console import say
from deploy.errors import LinkLost, of_all
from deploy.hosts.job import job_name
from deploy.npu.convert import Conversion
from deploy.npu.worker import CachedFile, Place
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.manifest import FAILED, Manifest, Step, StepResult, announce, digest_of
from stgcn.errors import InputError
from stgcn.files import atomic_write

STAGE = "npu-convert"
COPIED = "copied_from"  # among a step's facts: the conversion whose OM this is


def run(connections: Connections) -> None:
    """Make npu/bs<N>/<model>_bs<N>.om for every batch size; one that fails does not stop the others.

    Raises:
        KitError: naming every batch size that failed, after the others are done.
    """
    facts = connections.npus[0].facts
    say(f"{STAGE} on {', '.join(npu.section.name for npu in connections.npus)} for {facts.target}", "bold")
    builds = [connections.workspace.build(batch_size) for batch_size in connections.inventory.batch_sizes]
    failures = convert(connections, builds)
    if failures:
        failed = [build for build in builds if build.name in failures]
        sizes = ", ".join(str(build.batch_size) for build in failed)
        raise of_all(f"batch size {sizes} not converted: {failures[failed[0].name]}", failures.values())


def convert(
    connections: Connections, builds: Sequence[Build], ended: Callable[[], None] = lambda: None
) -> dict[str, InputError]:
    """Make the OM of every build; name -> error of those that failed, each announced. `ended` is called after each."""
    failures: dict[str, InputError] = {}

    def one(place: Place, build: Build) -> None:
        if connections.options.dry and not build.onnx.is_file():
            say(f"  convert/{build.name} would run after {build.onnx_step}")
            return
        try:
            connections.run_step(_step(connections, place, build))
        except LinkLost:
            raise
        except InputError as error:
            announce(f"convert/{build.name}", FAILED, str(error))
            failures[build.name] = error
        ended()

    connections.scheduler.on_hosts(builds, one)
    return failures


def _step(connections: Connections, place: Place, build: Build) -> Step:
    npu, inventory = place.npu, connections.inventory
    step, entries = f"convert/{build.name}", connections.workspace.manifest.steps
    onnx = CachedFile.of(build.onnx)
    inputs: dict[str, Any] = {
        **graph.inputs(entries, step, inventory, build),
        "onnx": onnx.sha256,
        "soc_version": npu.facts.soc_version,
        "cann": npu.facts.cann,
    }
    files = [onnx, *map(CachedFile.of, build.files.values())]
    job = job_name(inputs, f"convert-bs{build.batch_size}")
    conversion = Conversion(job, build, files, inventory.timeout_s, connections.options.fresh)

    outputs = [build.om, build.folder / conversion.log]

    def action() -> StepResult:
        if not connections.options.fresh and (made := _made_already(connections.workspace.manifest, step, inputs)):
            return _copied(connections.workspace.manifest, made, outputs)
        for file in (build.onnx, *build.files.values()):
            place.send(file)
        ran = place.do(conversion, build.folder)
        build.om.chmod(0o600)  # its owner's alone, as ATC makes it
        return ran

    return Step(step, str(place), inputs, outputs, action, *conversion.argv(npu))


def _made_already(manifest: Manifest, step: str, inputs: Mapping[str, Any]) -> str | None:
    """Another conversion of the very same inputs, whose OM is there."""
    key = digest_of(inputs)
    return next(
        (
            name
            for name, entry in manifest.steps.items()
            if name.startswith("convert/") and name != step and entry["key"] == key and manifest.whole(entry)
        ),
        None,
    )


def _copied(manifest: Manifest, made: str, outputs: Sequence[Path]) -> StepResult:
    """Copy the OM and the log of another conversion; the record is that one's, and says whose it is."""
    entry = manifest.steps[made]
    sources = {Path(path).name: manifest.workspace / path for path in entry["outputs"]}
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        with sources[path.name].open("rb") as source, atomic_write(path) as target:
            shutil.copyfileobj(source, target)
    outputs[0].chmod(0o600)
    return StepResult({**entry["facts"], COPIED: made}, entry["host"], entry["commands"], entry.get("prepare", ()))
