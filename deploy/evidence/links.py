"""Whether a step's record follows from the step's own files: its OM, its logs, its tables, its readings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import KitError
from deploy.evidence import figure, gpu_figure, logs, sweep, tables
from deploy.evidence.differences import refuse_any_difference, refuse_difference
from deploy.evidence.scores import holds, scores
from deploy.npu import atc, om, versions
from deploy.npu.device import UNKNOWN, prefix_errors
from deploy.pipeline import graph
from deploy.pipeline.artefacts import dataset_index, exported_card, onnx_path, reference_names
from deploy.pipeline.build import FILE_FLAGS, FILES, MODE_FLAGS
from deploy.pipeline.manifest import Manifest
from deploy.pipeline.model import CARD, Model
from deploy.pipeline.prelude import bare
from deploy.precision.arithmetic import Network
from deploy.report.summary import relative_errors
from stgcn import onnx_model, plain_json
from stgcn.errors import InputError
from stgcn.files import read_record

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}  # onnx.TensorProto


@dataclass(frozen=True)
class Link:
    """A step of a manifest, and the model that it is of."""

    manifest: Manifest
    step: str
    model: Model

    @property
    def entry(self) -> Mapping[str, Any]:
        return self.manifest.steps[self.step]

    @property
    def inputs(self) -> Mapping[str, Any]:
        return dict(self.entry["inputs"])

    @property
    def folder(self) -> Path:
        return self.manifest.workspace / graph.folder_of(self.step)


def check(manifest: Manifest, step: str, model: Model) -> None:
    """Raises KitError at the first thing in the record of `step` that does not follow from its files."""
    if own := _OWN.get(step.partition("/")[0]):
        own(Link(manifest, step, model))


def _check_export(link: Link) -> None:
    """The card is the model's, and the graph has the card's inputs and outputs, for any batch."""
    card, path = exported_card(link.manifest), onnx_path(link.manifest)
    parts = {"inputs", "outputs"}  # the graph's own, which the model's card need not know
    expected, found = (each.model_dump(mode="json", exclude=parts) for each in (link.model.card, card))
    refuse_any_difference(link.folder / CARD, expected, found, f"the model {link.model.card.name}")
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


def _check_convert(link: Link) -> None:
    """The OM can be read, and is for the batch size, SoC and CANN of its record; its log says that it was made."""
    inputs, size, simulated = link.inputs, _batch_size(link), _simulated(link)
    (path,) = (link.manifest.workspace / name for name in link.entry["outputs"] if name.endswith(".om"))
    if path.name != f"{link.model.card.stem}_bs{size}.om":
        raise KitError(f"{path}: not what {link.step} calls its OM, {link.model.card.stem}_bs{size}.om")
    try:
        told = om.parse(read_record(path))
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: no OM that can be loaded ({error}); run `fab npu-convert --fresh`") from None
    known = {
        "batch size": (told.batch_sizes, (size,)),
        "SoC": (told.soc_version, inputs["soc_version"]),
        "CANN": (told.cann, inputs["cann"]),
    }
    for what, (found, expected) in known.items():
        if found is not None and found != expected and expected != UNKNOWN:
            raise KitError(f"{path}: its {what} is {found}, and the record of {link.step} says {expected}")
    if told.simulated is not simulated:
        whose = "a simulated host's" if told.simulated else "a real device's"
        raise KitError(f"{path}: it is {whose}, and the record of {link.step} says otherwise")
    _check_command(link, size)
    for log in (link.manifest.workspace / name for name in link.entry["outputs"] if name.endswith(".log")):
        with prefix_errors(str(log)):
            atc.parse(log.stem, read_record(log).decode("utf-8", "replace"), 0)


def _check_command(link: Link, size: int) -> None:
    """The recorded command converts with the flags, for the batch size and the SoC of its record."""
    words = [word.removeprefix("--") for argv in link.entry["commands"] for word in bare(argv) if word.startswith("--")]
    flags = {name: value for name, mark, value in (word.partition("=") for word in words) if mark}
    files = link.inputs.get("files", {})  # which the command names as they lie on the host
    for name, value in link.inputs["flags"].items():
        if flags.get(name) != value and name not in files:
            raise KitError(f"{link.step}: its command had --{name}={flags.get(name)}, its record has {value}")
    if not all(shape.partition(":")[2].startswith(f"{size},") for shape in flags.get("input_shape", "").split(";")):
        raise KitError(f"{link.step}: its command made an OM for {flags.get('input_shape')}, not for batches of {size}")
    soc_version = link.inputs["soc_version"]
    if flags.get("soc_version", soc_version) != soc_version:
        raise KitError(f"{link.step}: its command was for {flags['soc_version']}, its record {soc_version}")


def _check_accuracy(link: Link) -> None:
    _check_run(link)
    index = dataset_index(link.manifest, link.inputs.get("persons", "both"))
    if link.manifest.steps["preprocess"]["outputs"][f"gpu/{index.file}"]["sha256"] != link.inputs["dataset"]:
        return  # of an earlier dataset, and of no verdict
    if "samples" in link.inputs:
        index = index.head(link.inputs["samples"])
    logs.check_accuracy(link.folder, link.entry, index.row_count, index.rows_per_sample)


def _check_throughput(link: Link) -> None:
    _check_run(link)
    graph.check_alone(link.manifest.steps, link.step)
    index = dataset_index(link.manifest, link.inputs.get("persons", "both"))
    figure.check(link.folder, link.entry, index.persons_per_clip)


def _check_profile(link: Link) -> None:
    _check_run(link)
    if graph.is_current(link.manifest.steps, link.step):
        tables.check(link.folder, link.entry, link.model, onnx_path(link.manifest))


def _check_gpu(link: Link) -> None:
    gpu_figure.check(link.folder / "benchmark.json", link.entry, link.model.card.rows_per_sample)


def _check_run(link: Link) -> None:
    """A step that ran an OM is of its name's batch size, and on the SoC and CANN that the OM was made for."""
    _batch_size(link)
    _simulated(link)
    convert = f"convert/{link.step.partition('/')[2]}"
    for tool in ("soc_version", "cann"):
        found, made = link.inputs[tool], link.manifest.steps[convert]["inputs"][tool]
        if found != made:
            raise KitError(f"{link.step}: its {tool} is {found}, and that of {convert} {made}; run `fab npu-bench`")


def _check_precision(link: Link) -> None:
    """precision.json is what its record has, its verdicts follow from their figures, and ATC's file and the lines for
    the inventory from its nodes, which are the ONNX's."""
    if link.step != "precision":  # a ranking, or a set that was tried
        return
    folder, path = link.folder, link.folder / "precision.json"
    found = plain_json.load(path)
    refuse_any_difference(path, link.inputs["result"], found, "its record")
    _simulated(link)
    if not graph.is_current(link.manifest.steps, link.step):
        return
    _check_ways(path, found, link)
    if found["explained"] and found["nodes"]:
        choices = [unit.name for unit in Network(onnx_model.load(onnx_path(link.manifest))).choices]
        if found["units"] != len(choices) or not {node["name"] for node in found["nodes"]} <= set(choices):
            raise KitError(f"{path}: its nodes are not those of the ONNX; run `fab npu-precision --fresh`")
        flags = yaml.safe_load(found["inventory"])["atc"].items()
        others = {flag: value for flag, value in flags if flag not in (*MODE_FLAGS, *FILE_FLAGS)}
        if others != link.inputs["flags"]:
            raise KitError(f"{path}: `inventory` has other flags than the step's; run `fab npu-precision --fresh`")
    texts = {"inventory.yaml": found["inventory"]}
    if found["file"]:
        texts[FILES[found["file"]["flag"]]] = found["file"]["text"]
    for name, text in texts.items():
        if read_record(folder / name) != text.encode():
            raise KitError(f"{folder / name}: not what precision.json says; run `fab npu-precision --fresh`")


def _check_ways(path: Path, found: Mapping[str, Any], link: Link) -> None:
    """The gate holds in those ways of converting where their metrics say so, and with the nodes that are kept."""
    card, gpu = link.model.card, link.manifest.workspace / "gpu"
    reference = [gpu / name for name in reference_names(card)]
    finite = {way: told for way, told in found["verdicts"].items() if told["finite"]}
    counts = {told["samples"] for told in finite.values()}
    expected = {count: scores(link.model, gpu / "labels.npy", [reference], count)[0] for count in counts}
    for way, told in found["verdicts"].items():
        again: dict[str, Any] = {"passed": False}
        if way in finite:
            off = relative_errors(told["metrics"], expected[told["samples"]].metrics)
            wrong = round((1 - told.get("agreement", 1.0)) * told["samples"])
            again = {"passed": holds(off, found["gates"], wrong, told["samples"]), "relative_error": max(off.values())}
        refuse_difference(path, again, told, "its metrics", f"verdicts.{way}")
    passed = found["verdicts"]["kept" if found["nodes"] else "fp16"]["passed"]
    if found["explained"] is not bool(passed):
        raise KitError(f"{path}: explained is {found['explained']}, and its verdicts say otherwise")


_OWN: Mapping[str, Callable[[Link], None]] = {
    "export": _check_export,
    "gpu-throughput": _check_gpu,
    "convert": _check_convert,
    "accuracy": _check_accuracy,
    "throughput": _check_throughput,
    "profile": _check_profile,
    "precision": _check_precision,
    "tune": lambda link: sweep.check(link.manifest, link.model),
}


def _batch_size(link: Link) -> int:
    size, named = int(link.inputs["batch_size"]), re.search(r"bs([0-9]+)$", link.step)
    if named and named[1] != str(size):
        raise KitError(f"{link.step}: its record is of batch size {size}")
    return size


def _simulated(link: Link) -> bool:
    """Whether a step ran on a simulated host, which its versions tell."""
    inputs, recorded = link.inputs, link.entry["facts"]["simulated"]
    told = any(versions.simulated(inputs.get(tool) or "") for tool in ("cann", "driver"))
    if recorded is not told:
        raise KitError(f"{link.step}: simulated is {recorded}, and its CANN is {inputs['cann']}")
    return bool(told)
