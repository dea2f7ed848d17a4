"""What is checked of the steps that a verdict rests on: by `make score` before it is reached, by `fab audit` after it.

Each step ran to its end, after those that it reads from and on what they made; its files are those that it made; and
what its record says follows from these files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.errors import KitError
from deploy.evidence import figure
from deploy.evidence.differences import refuse_any_difference
from deploy.evidence.logits import DIGESTS, read_logits
from deploy.npu import om, versions
from deploy.npu.device import UNKNOWN
from deploy.pipeline import graph
from deploy.pipeline.index import FILES, Index, read_index
from deploy.pipeline.manifest import OK, Manifest
from deploy.pipeline.model import CARD, Card, Model, read_card
from deploy.pipeline.prelude import bare
from deploy.precision import ways
from stgcn import onnx_model, plain_json
from stgcn.errors import InputError
from stgcn.files import read_record, sha256_file

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}  # onnx.TensorProto


def check_step(manifest: Manifest, step: str, model: Model) -> None:
    """One step of the chain.

    Raises:
        KitError: naming the file that does not hold, and of changed logits the sample.
    """
    graph.check(manifest.steps, step)
    graph.check_time(manifest.steps, step)
    for path, output in manifest.steps[step]["outputs"].items():
        check_output(manifest, step, path, output["sha256"])
    if step == "export":
        _check_export(manifest, model)
    if own := _OWN.get(step.partition("/")[0]):
        own(manifest, step)


def check_output(manifest: Manifest, step: str, relative: str, recorded: str) -> None:
    """One output of a step.

    Raises:
        KitError: naming, beyond the file, the sample of changed logits.
    """
    path = manifest.workspace / relative
    if not path.is_file():
        raise KitError(f"{path}: missing, although {step} made it; run `{graph.command_of(step)}`")
    found = sha256_file(path)
    if found == recorded:
        return
    if step.startswith("accuracy/") and (path.suffix == ".npy" or path.name == DIGESTS):
        read_logits(path.parent, dataset_index(manifest).names, exported_card(manifest))
    raise KitError(f"{path}: not the file that {step} made (sha256 {found[:12]}, then {recorded[:12]})")


def exported_card(manifest: Manifest) -> Card:
    """The card that the export wrote.

    Raises:
        KitError: it is missing or was changed; or the run is of a version of the kit that wrote none.
    """
    entry = manifest.steps.get("export")
    if entry and entry["state"] == OK and f"gpu/{CARD}" not in entry["outputs"]:
        raise KitError(
            f"{manifest.workspace}: made by a version of the kit that left no gpu/{CARD} (revision {entry['revision']})"
            "; audit or compare it with that version, or make it again with `make gpu-stage` and what follows"
        )
    return read_card(manifest.output("export", manifest.workspace / "gpu" / CARD, "make gpu-stage"))


def dataset_index(manifest: Manifest, persons: str = "both") -> Index:
    return read_index(manifest.output("preprocess", manifest.workspace / "gpu" / FILES[persons], "make gpu-stage"))


def persons_per_clip(manifest: Manifest, step: str) -> float | None:
    """Of the rows that a step was given, where they are single persons."""
    persons = manifest.steps[step]["inputs"].get("persons", "both")
    return None if persons == "both" else dataset_index(manifest, persons).rows_per_sample


def reference_names(card: Card) -> list[str]:
    """The files of the reference outputs, in gpu/."""
    return ["reference.npy", *(f"reference.{output.name}.npy" for output in card.outputs[1:])]


def onnx_path(manifest: Manifest) -> Path:
    return manifest.workspace / "gpu" / f"{exported_card(manifest).stem}.onnx"


def _check_export(manifest: Manifest, model: Model) -> None:
    """The card is the model's, and the graph has the card's inputs and outputs, for any batch."""
    card, path = exported_card(manifest), onnx_path(manifest)
    parts = {"inputs", "outputs"}  # the graph's own, which the model's card need not know
    expected, found = (each.model_dump(mode="json", exclude=parts) for each in (model.card, card))
    refuse_any_difference(manifest.workspace / "gpu" / CARD, expected, found, f"the model {model.card.name}")
    try:
        proto = onnx_model.load(path).graph
    except InputError as error:
        raise KitError(str(error)) from None
    weights = {weight.name for weight in proto.initializer}
    given = [value for value in proto.input if value.name not in weights]
    for kind, values, tensors in (("input", given, card.inputs), ("output", proto.output, card.outputs)):
        if [value.name for value in values] != [tensor.name for tensor in tensors]:
            raise KitError(f"{path}: it has not the {kind}s of its card; run `make gpu-stage --fresh`")
        for value, tensor in zip(values, tensors, strict=True):
            batch, *shape = value.type.tensor_type.shape.dim or [None]
            has = (_DTYPES.get(value.type.tensor_type.elem_type), [dim.dim_value for dim in shape])
            if batch is None or batch.dim_value or has != (tensor.dtype, tensor.shape):
                raise KitError(
                    f"{path}: its {kind} {value.name} is not {tensor.dtype} of (batch, "
                    f"{', '.join(map(str, tensor.shape))}) for any batch; run `make gpu-stage --fresh`"
                )


def _check_convert(manifest: Manifest, step: str) -> None:
    """The OM can be read, and is for the batch size, the SoC and the CANN of its record."""
    entry = manifest.steps[step]
    inputs, size = entry["inputs"], _batch_size(step, entry)
    (path,) = (manifest.workspace / name for name in entry["outputs"] if name.endswith(".om"))
    try:
        told = om.parse(read_record(path))
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: no OM that can be loaded ({error}); run `fab npu-convert --fresh`") from None
    simulated = _check_simulated(step, entry)
    known = {
        "batch size": (told.batch_sizes, (size,)),
        "SoC": (told.soc_version, inputs["soc_version"]),
        "CANN": (told.cann, inputs["cann"]),
    }
    for what, (found, expected) in known.items():
        if found is not None and found != expected and expected != UNKNOWN:
            raise KitError(f"{path}: its {what} is {found}, and the record of {step} says {expected}")
    if told.simulated is not simulated:
        whose = "a simulated host's" if told.simulated else "a real device's"
        raise KitError(f"{path}: it is {whose}, and the record of {step} says otherwise")
    flags = _flags(entry)
    for name, value in inputs["flags"].items():
        if flags.get(name) != value:
            raise KitError(f"{step}: its command had --{name}={flags.get(name)}, its record has {value}")
    if not all(shape.partition(":")[2].startswith(f"{size},") for shape in flags.get("input_shape", "").split(";")):
        raise KitError(f"{step}: its command made an OM for {flags.get('input_shape')}, not for batches of {size}")
    if flags.get("soc_version", inputs["soc_version"]) != inputs["soc_version"]:
        raise KitError(f"{step}: its command was for {flags['soc_version']}, its record {inputs['soc_version']}")


def _check_accuracy(manifest: Manifest, step: str) -> None:
    entry = manifest.steps[step]
    _batch_size(step, entry)
    _check_simulated(step, entry)
    _check_same_tools(manifest, step)


def _check_throughput(manifest: Manifest, step: str) -> None:
    entry = manifest.steps[step]
    _batch_size(step, entry)
    _check_simulated(step, entry)
    _check_same_tools(manifest, step)
    figure.check(manifest.workspace / f"npu/{step.partition('/')[2]}", entry, persons_per_clip(manifest, step))


def _check_precision(manifest: Manifest, step: str) -> None:
    """precision.json is what its record has, and ATC's file and the lines for the inventory are what it says."""
    folder = manifest.workspace / "precision"
    found = plain_json.load(folder / "precision.json")
    refuse_any_difference(folder / "precision.json", manifest.steps[step]["inputs"]["result"], found, "its record")
    _check_simulated(step, manifest.steps[step])
    texts = {"inventory.yaml": found["inventory"]}
    if found["file"]:
        texts[ways.FILES[found["file"]["flag"]]] = found["file"]["text"]
    for name, text in texts.items():
        if read_record(folder / name) != text.encode():
            raise KitError(f"{folder / name}: not what precision.json says; run `fab npu-precision --fresh`")


_OWN = {
    "convert": _check_convert,
    "accuracy": _check_accuracy,
    "throughput": _check_throughput,
    "precision": _check_precision,
}


def _batch_size(step: str, entry: Mapping[str, Any]) -> int:
    size = int(entry["inputs"]["batch_size"])
    if step.partition("/")[2] != f"bs{size}":
        raise KitError(f"{step}: its record is of batch size {size}")
    return size


def _check_simulated(step: str, entry: Mapping[str, Any]) -> bool:
    """Whether a step ran on a simulated host, which its versions tell."""
    inputs = entry["inputs"]
    told = any(versions.simulated(inputs.get(tool) or "") for tool in ("cann", "driver"))
    if entry["facts"]["simulated"] is not told:
        raise KitError(f"{step}: simulated is {entry['facts']['simulated']}, and its CANN is {inputs['cann']}")
    return bool(told)


def _check_same_tools(manifest: Manifest, step: str) -> None:
    """A step ran for the SoC and with the CANN that its OM was made for and with."""
    convert, inputs = f"convert/{step.partition('/')[2]}", manifest.steps[step]["inputs"]
    for tool in ("soc_version", "cann"):
        made = manifest.steps[convert]["inputs"][tool]
        if inputs[tool] != made:
            raise KitError(f"{step}: its {tool} is {inputs[tool]}, and that of {convert} {made}; run `fab npu-bench`")


def _flags(entry: Mapping[str, Any]) -> dict[str, str]:
    """The `--name=value` options of the recorded command."""
    words = [word.removeprefix("--") for argv in entry["commands"] for word in bare(argv) if word.startswith("--")]
    return {name: value for name, mark, value in (word.partition("=") for word in words) if mark}
