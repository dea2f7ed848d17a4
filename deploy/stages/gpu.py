"""`make gpu-stage`: check and index the dataset, export the ONNX, compute the fp32 reference outputs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.connections import Connections
from deploy.console import say
from deploy.containers.images import LABEL, SOURCES_LABEL
from deploy.containers.native import Native, Runtime
from deploy.errors import KitError
from deploy.hosts import transfer
from deploy.hosts.job import Job, job_name
from deploy.hosts.local import LocalHost
from deploy.pipeline.artefacts import reference_names
from deploy.pipeline.index import FILES
from deploy.pipeline.manifest import Step
from deploy.pipeline.model import BUNDLED, CARD
from deploy.progress import activity
from stgcn import plain_json

STAGE = "gpu-stage"
FOLDER = "{folder}"  # in a command's options: where its outputs go


def run(connections: Connections) -> None:
    """Make gpu/labels.npy, gpu/dataset.json, the ONNX, gpu/model.json and gpu/reference.npy.

    Where the GPU image has another implementation of the model (the card's `sources`), that one is exported too, and
    the stage goes on only if both give the same outputs.
    """
    workspace = connections.workspace
    say(f"{STAGE} on {connections.inventory.gpu.name}", "bold")
    card, inventory = workspace.model.card, connections.inventory
    paths = {name: connections.file(name) for name in ("data", "labels")}
    with activity(f"packages of {inventory.gpu.name}"):
        tools, sources = _tools(connections)
    workspace.artefact("gpu").mkdir(exist_ok=True)
    arrays = options_of(array_dir=connections.array_folder)
    options = options_of(data_path=paths["data"], label_path=paths["labels"], output_dir=FOLDER) + arrays
    indices = sorted((FILES[persons] for persons in card.persons), reverse=True)
    read = {name: connections.input_sha256(path) for name, path in paths.items()}
    inputs: dict[str, Any] = {**read, "numpy": tools["numpy"]}
    lost = _lost_its_array(connections)
    run_command(connections, "preprocess", inputs, "index", options, ["labels.npy", *indices], fresh=lost)
    _say_warnings(connections)
    inputs = {"checkpoint": checkpoint_of(connections), "tools": tools}
    outputs = [f"{card.stem}.onnx", CARD]
    _export(connections, "export", inputs, inventory.variant, inventory.persons, outputs)
    for source in sources:
        _export_from_source(connections, inputs, source)
    options = options_of(ckpt=connections.file("checkpoint"), data_path=paths["data"]) + arrays
    options += options_of(output=f"{FOLDER}/reference.npy")
    run_command(connections, "reference", {**inputs, "data": read["data"]}, "reference", options, reference_names(card))


def export_variant(connections: Connections, variant: str, persons: str) -> tuple[Path, str, Path]:
    """The ONNX of a variant of the graph, the step that made it (the stage's own, or one more export), its card."""
    workspace = connections.workspace
    if (variant, persons) == (connections.inventory.variant, connections.inventory.persons):
        return workspace.onnx(), "export", workspace.artefact(f"gpu/{CARD}")
    form = variant if persons == "both" else f"{variant}-{persons}"
    names = [f"{workspace.model.card.stem}.{form}.onnx", f"model.{form}.json"]
    inputs = {"checkpoint": checkpoint_of(connections), "tools": _tools(connections)[0]}
    _export(connections, f"export/{form}", inputs, variant, persons, names)
    onnx, card = (workspace.artefact(f"gpu/{name}") for name in names)
    return onnx, f"export/{form}", card


def options_of(**values: object) -> list[str]:
    """The words of a command's options, in their order."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def checkpoint_of(connections: Connections) -> dict[str, str]:
    """The checkpoint as keys have it."""
    path = connections.file("checkpoint")
    return {"name": path.name, "sha256": connections.input_sha256(path)}


def _export(
    connections: Connections,
    step: str,
    inputs: Mapping[str, Any],
    variant: str,
    persons: str,
    names: Sequence[str],
    **source: str,
) -> None:
    card = connections.workspace.model.card
    for key, value, offered in (("variant", variant, card.variants), ("persons", persons, card.persons)):
        if value not in offered:
            raise KitError(
                f"{key}: {card.name} has no {value!r}, only {', '.join(offered)}; correct it in the inventory"
            )
    options = options_of(
        ckpt=connections.file("checkpoint"), onnx=f"{FOLDER}/{names[0]}", variant=variant, persons=persons
    )
    options += options_of(**source, **({"card": f"{FOLDER}/{names[1]}"} if names[1:] else {}))
    run_command(connections, step, {**inputs, "variant": variant, "persons": persons}, "export", options, names)


def _export_from_source(connections: Connections, inputs: dict[str, Any], source: str) -> None:
    """Export another implementation, and compare both on the control side, where both files are."""
    workspace = connections.workspace
    model, persons = workspace.model, connections.inventory.persons
    name = f"{model.card.stem}.{source}.onnx"
    _export(connections, f"export/{source}", inputs, model.card.variants[0], persons, [name], source=source)
    exports = [workspace.manifest.steps.get(step, {}).get("outputs") for step in ("export", f"export/{source}")]
    ours, theirs, report, log = (
        workspace.artefact(f"gpu/{path}")
        for path in (f"{model.card.stem}.onnx", name, "agreement.json", "export/agreement.log")
    )
    control = Native(LocalHost("control", workspace.folder), shown={"PYTHONPATH": str(model.path)})
    command = model.command(sys.executable, "agree", *options_of(onnx=ours, other=theirs, output=report))

    def action() -> Mapping[str, Any]:
        done = control.run(command, log=log, echo=True)
        if done.status != 0:
            raise _failure(connections, "export/agreement", done.output, done.status, log)
        return {}

    step = Step("export/agreement", "control", {"exports": exports}, [report], action, [control.argv(command)])
    connections.run_step(step)


def run_command(
    connections: Connections,
    name: str,
    inputs: Mapping[str, Any],
    command: str,
    options: Sequence[str],
    names: Sequence[str],
    fresh: bool = False,
    guard: AbstractContextManager[Mapping[str, Any]] | None = None,
    runtime: Runtime | None = None,
) -> None:
    """One command of the model's package, which writes `names` into FOLDER, as a step; `guard` is around it, and gives
    facts for its entry. `runtime` takes the place of the GPU host's.

    Its key has the package's sources in it too. On this machine it writes into the workspace; elsewhere into a folder
    of that host, and the files come back.
    """
    workspace, runtime = connections.workspace, runtime or connections.gpu
    host, folder, model = runtime.host, workspace.artefact("gpu"), workspace.model
    inputs = {**inputs, "model": model.card.name, model.card.package: model.sha256}
    job = Job(host, job_name(inputs, name))
    is_contained = connections.inventory.gpu.runtime == "docker"
    is_there = isinstance(host, LocalHost) and not is_contained
    there = PurePosixPath(folder) if is_there else job.folder
    inside = there if is_contained else None  # what a container may write in
    argv = model.command(_python(connections), command, *(option.replace(FOLDER, str(there)) for option in options))
    outputs = [folder / output for output in names]

    def action() -> Mapping[str, Any]:
        log = connections.workspace.artefact(f"gpu/{name}.log")
        with guard or nullcontext({}) as facts, job.attached(connections.options.fresh) as resumed:
            if inside and not resumed:
                host.call("link", {"folder": str(inside), "files": {}})
                host.run(["mkdir", "-p", str(connections.array_folder)])
            done = runtime.run(argv, folder=inside, log=log, echo=True, job=job.name)
            if done.status != 0:
                raise _failure(connections, name, done.output, done.status, log)
            for output in outputs:
                if there != PurePosixPath(folder):
                    transfer.get(host, there / output.name, output)
        return {**runtime.facts(), **facts}

    connections.run_step(Step(name, host.name, inputs, outputs, action, [runtime.argv(argv, inside)]), fresh=fresh)


def _lost_its_array(connections: Connections) -> bool:
    """Whether rows that the GPU host had to make are no longer there, so that they are to be made again."""
    with suppress(KitError):
        files = {array.file for array in connections.workspace.samples().inputs} - {None}
        there = connections.gpu.host.call("listing", {"folder": str(connections.array_folder)}) if files else {}
        return not files <= there.keys()
    return False


def _say_warnings(connections: Connections) -> None:
    """What the index found wrong with the dataset, said each time: it is kept, and hours hang on it."""
    path = connections.workspace.artefact(f"gpu/{FILES['both']}")
    with suppress(OSError, ValueError, LookupError, TypeError):
        for warning in plain_json.load(path)["preflight"]["warnings"]:
            say(f"  the dataset: {warning}", "bold yellow")


def _failure(connections: Connections, name: str, output: str, status: int, log: Path) -> KitError:
    """The program's own sentence where it has one."""
    sentences = [line.removeprefix("error: ") for line in output.splitlines() if line.startswith("error: ")]
    if sentences:
        return KitError(sentences[-1])
    return KitError(
        f"{connections.gpu.host.name}: {name} ended with status {status} and no reason; its output is in {log}"
    )


def _python(connections: Connections) -> str:
    gpu = connections.inventory.gpu
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


def _tools(connections: Connections) -> tuple[dict[str, str], list[str]]:
    """What the artefacts depend on besides their inputs, and which of the card's further sources are there.

    Raises:
        KitError: the image was built of another package than this one.
    """
    tools, model = versions(connections), connections.workspace.model
    image = connections.gpu.facts().get("image")
    if image is None:
        return tools, []
    if model.package == BUNDLED and image["labels"].get(SOURCES_LABEL) != model.sha256:
        raise KitError(
            f"{connections.gpu.host.name}: image {image['name']} was built of another {model.card.package}/ than "
            "this one; build it again with `make gpu-image`"
        )
    found = [source for source in model.card.sources[1:] if image["labels"].get(LABEL + source, "absent") != "absent"]
    return {**tools, "image": image["id"]}, found


def versions(connections: Connections) -> dict[str, str]:
    """The versions of Python and the packages that make the artefacts, on the GPU host."""
    done = connections.gpu.run([_python(connections), "-c", _VERSIONS], timeout_s=60)
    try:
        found = {str(k): str(v) for k, v in plain_json.loads(done.output.strip().splitlines()[-1]).items()}
    except (ValueError, IndexError, AttributeError):
        raise KitError(
            f"{connections.gpu.host.name}: {_python(connections)} does not run; correct gpu.python in the inventory"
        ) from None
    missing = [name for name, version in found.items() if version == "missing"]
    if missing:
        raise KitError(
            f"{connections.gpu.host.name}: {_python(connections)} has no {', '.join(missing)}; install them there"
        )
    return found
