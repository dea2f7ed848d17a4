"""`make gpu-stage`: check and index the dataset, export the ONNX, compute the fp32 reference logits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.console import say
from deploy.containers.images import MMSKELETON_LABEL, SOURCES_LABEL
from deploy.containers.runtime import Native
from deploy.context import Context, Job, sources_sha256
from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.hosts.local import LocalHost
from deploy.inventory import ROOT
from deploy.pipeline.manifest import Step
from stgcn import plain_json
from stgcn.index import Index

STAGE = "gpu-stage"


def run(context: Context) -> None:
    """Make gpu/labels.npy, gpu/dataset.json, gpu/persons.json, gpu/st_gcn.onnx and gpu/reference.npy.

    Where the GPU host has mmskeleton, the model is exported through it too and goes on only if both give one logits.
    """
    say(f"{STAGE} on {context.inventory.gpu.name}", "bold")
    data, labels = context.input_sha256(context.data), context.input_sha256(context.labels)
    checkpoint = {"name": context.checkpoint.name, "sha256": context.input_sha256(context.checkpoint)}
    tools, has_mmskeleton = _tools(context)
    context.artefact("gpu").mkdir(exist_ok=True)

    clips = ["--data_path", str(context.data), "--array_dir", str(context.array_folder)]
    dataset = [*clips, "--label_path", str(context.labels)]
    weights = ["--ckpt", str(context.checkpoint)]
    variant, persons = context.inventory.variant, context.inventory.persons
    _perform(
        context,
        "preprocess",
        {"data": data, "labels": labels, "numpy": tools["numpy"]},
        lambda folder: ["stgcn.index", *dataset, "--output_dir", str(folder)],
        ["labels.npy", "persons.json", "dataset.json"],
        fresh=_lost_its_array(context),
    )
    _say_warnings(context)
    _export(context, "export", "st_gcn.onnx", {"checkpoint": checkpoint, "tools": tools}, variant, persons)
    if has_mmskeleton:
        _export_through_mmskeleton(context, {"checkpoint": checkpoint, "tools": tools}, persons)
    reference = ["stgcn.reference", *weights, *clips]
    _perform(
        context,
        "reference",
        {"checkpoint": checkpoint, "data": data, "tools": tools},
        lambda folder: [*reference, "--output", str(folder / "reference.npy")],
        ["reference.npy"],
    )


def export_variant(context: Context, variant: str, persons: str) -> tuple[Path, str]:
    """The ONNX of a variant of the graph, and the step that made it: the stage's own, or one more export."""
    if (variant, persons) == (context.inventory.variant, context.inventory.persons):
        return context.onnx(), "export"
    form = variant if persons == "both" else f"{variant}-{persons}"
    step, name = f"export/{form}", f"st_gcn.{form}.onnx"
    checkpoint = {"name": context.checkpoint.name, "sha256": context.input_sha256(context.checkpoint)}
    _export(context, step, name, {"checkpoint": checkpoint, "tools": _tools(context)[0]}, variant, persons)
    return context.artefact(f"gpu/{name}"), step


def _export(
    context: Context,
    step: str,
    name: str,
    inputs: dict[str, Any],
    variant: str,
    persons: str,
    source: Sequence[str] = (),
) -> None:
    options = ["--variant", variant, "--persons", persons, *source]
    weights = ["--ckpt", str(context.checkpoint)]
    _perform(
        context,
        step,
        {**inputs, "variant": variant, "persons": persons},
        lambda folder: ["stgcn.export", *weights, "--onnx", str(folder / name), *options],
        [name],
    )


def _export_through_mmskeleton(context: Context, inputs: dict[str, Any], persons: str) -> None:
    """Export the original network, and compare both on the control side, where both files are."""
    name = "st_gcn.mmskeleton.onnx"
    _export(context, "export/mmskeleton", name, inputs, "reference", persons, ["--source", "mmskeleton"])
    exports = [context.manifest.steps.get(step, {}).get("outputs") for step in ("export", "export/mmskeleton")]
    ours, theirs, report, log = (
        context.artefact(f"gpu/{name}") for name in ("st_gcn.onnx", name, "agreement.json", "export/agreement.log")
    )
    control = Native(LocalHost("control", context.workspace), shown={"PYTHONPATH": str(ROOT)})
    command = [sys.executable, "-u", "-m", "stgcn.agree"]
    command += ["--onnx", str(ours), "--other", str(theirs), "--output", str(report)]

    def action() -> Mapping[str, Any]:
        done = control.run(command, log=log, echo=True)
        if done.status != 0:
            raise _failure(context, "export/agreement", done.output, done.status, log)
        return {}

    step = Step("export/agreement", "control", {"exports": exports}, [report], action, [control.argv(command)])
    context.perform(step)


def _perform(
    context: Context,
    name: str,
    inputs: dict[str, Any],
    module: Callable[[PurePosixPath], list[str]],
    names: list[str],
    fresh: bool = False,
) -> None:
    """One `python -m stgcn...` program, which writes `names` into the folder it is given, as a step.

    Its key has the sources of stgcn/ in it too. On this machine it writes into the workspace; elsewhere into a folder
    of that host, and the files come back.
    """
    host, folder = context.gpu.host, context.artefact("gpu")
    inputs = {**inputs, "stgcn": sources_sha256()}
    job = Job.of(host, inputs, name)
    is_contained = context.inventory.gpu.runtime == "docker"
    is_there = isinstance(host, LocalHost) and not is_contained
    there = PurePosixPath(folder) if is_there else job.folder
    inside = there if is_contained else None  # what a container may write in
    command = [_python(context), "-u", "-m", *module(there)]
    outputs = [folder / output for output in names]

    def action() -> Mapping[str, Any]:
        log = context.artefact(f"gpu/{name}.log")
        with job.begun(context.fresh) as begun:
            if inside and not begun:
                host.call("link", {"folder": str(inside), "files": {}})
                host.run(["mkdir", "-p", str(context.array_folder)])
            done = context.gpu.run(command, folder=inside, log=log, echo=True, job=job.name)
            if done.status != 0:
                raise _failure(context, name, done.output, done.status, log)
            for output in outputs:
                if there != PurePosixPath(folder):
                    transfer.get(host, there / output.name, output)
        return context.gpu.facts()

    context.perform(Step(name, host.name, inputs, outputs, action, [context.gpu.argv(command, inside)]), fresh=fresh)


def _lost_its_array(context: Context) -> bool:
    """Whether the clips that the GPU host had converted are no longer there, so that they are to be made again."""
    with suppress(KitError):
        path = context.clips_file(context.index())
        return path != context.data and path.name not in context.gpu.host.call("listing", {"folder": str(path.parent)})
    return False


def _say_warnings(context: Context) -> None:
    """What the index found wrong with the dataset, said each time: it is kept, and hours hang on it."""
    path = context.artefact(f"gpu/{Index.FILE}")
    with suppress(OSError, ValueError, LookupError, TypeError):
        for warning in plain_json.load(path)["preflight"]["warnings"]:
            say(f"  the dataset: {warning}", "bold yellow")


def _failure(context: Context, name: str, output: str, status: int, log: Path) -> KitError:
    """The program's own sentence where it has one."""
    sentences = [line.removeprefix("error: ") for line in output.splitlines() if line.startswith("error: ")]
    if sentences:
        return KitError(sentences[-1])
    return KitError(f"{context.gpu.host.name}: {name} ended with status {status} and no reason; its output is in {log}")


def _python(context: Context) -> str:
    gpu = context.inventory.gpu
    return gpu.python or (sys.executable if gpu.connection == "local" and gpu.runtime == "native" else "python3")


_VERSIONS = """
import json, platform
try:
    from importlib.metadata import version, PackageNotFoundError as Missing
except ImportError:  # Python 3.7
    from pkg_resources import DistributionNotFound as Missing, get_distribution
    version = lambda name: get_distribution(name).version
found = {"python": platform.python_version()}
for name in ("numpy", "onnx", "onnxruntime", "torch"):
    try:
        found[name] = version(name)
    except Missing:
        found[name] = "missing"
print(json.dumps(found))
"""


def _tools(context: Context) -> tuple[dict[str, str], bool]:
    """What the artefacts depend on besides their inputs, and whether mmskeleton is there.

    Raises:
        KitError: the image was built of another stgcn/ than this one.
    """
    tools = versions(context)
    image = context.gpu.facts().get("image")
    if image is None:
        return tools, False
    if image["labels"].get(SOURCES_LABEL) != sources_sha256():
        raise KitError(
            f"{context.gpu.host.name}: image {image['name']} was built of another stgcn/ than this one; "
            "build it again with `make gpu-image`"
        )
    return {**tools, "image": image["id"]}, image["labels"].get(MMSKELETON_LABEL, "absent") != "absent"


def versions(context: Context) -> dict[str, str]:
    """The versions of Python and the packages that make the artefacts, on the GPU host."""
    done = context.gpu.run([_python(context), "-c", _VERSIONS], timeout_s=60)
    try:
        found = {str(k): str(v) for k, v in plain_json.loads(done.output.strip().splitlines()[-1]).items()}
    except (ValueError, IndexError, AttributeError):
        raise KitError(
            f"{context.gpu.host.name}: {_python(context)} does not run; correct gpu.python in the inventory"
        ) from None
    missing = [name for name, version in found.items() if version == "missing"]
    if missing:
        raise KitError(f"{context.gpu.host.name}: {_python(context)} has no {', '.join(missing)}; install them there")
    return found
