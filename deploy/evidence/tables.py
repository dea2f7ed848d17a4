"""profile.json, of the profiler's tables and the ONNX: made by `fab npu-profile`, and made again by `fab audit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.console import say
from deploy.errors import KitError, reject_malformed
from deploy.evidence import logs
from deploy.evidence.costs import PUBLISHED, Node, nodes
from deploy.evidence.differences import refuse_any_difference
from deploy.evidence.profile import profile
from deploy.npu import op_summary
from deploy.npu.profiler import FUSIONS, LOG, TABLE
from deploy.pipeline.model import Model, run_command
from stgcn import onnx_model, plain_json
from stgcn.files import read_record

RESULT = "profile.json"


def profile_of(folder: Path, model: Model, onnx: Path, batch_size: int, soc_version: str) -> dict[str, Any]:
    """profile.json of a folder's tables, but for the device's `simulated` and `health`.

    Raises:
        KitError: a table is not of the profiler's form.
    """
    fusions = folder / FUSIONS
    text = op_summary.decode(read_record(folder / TABLE))
    fused = op_summary.decode(read_record(fusions)) if fusions.is_file() else None
    return {**of_text(text, fused, model, onnx, batch_size, soc_version), "soc_version": soc_version}


def of_text(
    table: str, fusions: str | None, model: Model, onnx: Path, batch_size: int, soc_version: str | None
) -> dict[str, Any]:
    """The same of the tables' texts, without the chip's name."""
    if not (operators := op_summary.parse(table)):
        raise KitError("op_summary tells the duration of no operator; profile again")
    fused = op_summary.parse_fusions(fusions) if fusions else None
    limits = PUBLISHED.get(str(soc_version))
    return profile(operators, _nodes(model, onnx), batch_size, limits, fused)


def check(folder: Path, entry: Mapping[str, Any], model: Model, onnx: Path) -> None:
    """Whether a folder's profile.json follows from its tables and the ONNX, and its log is of its OM and device.

    Raises:
        KitError: naming what does not follow.
    """
    inputs, facts = entry["inputs"], entry["facts"]
    logs.read(folder / LOG, entry)
    again = profile_of(folder, model, onnx, inputs["batch_size"], inputs["soc_version"])
    again |= {name: facts[name] for name in ("simulated", "health")}
    try:
        refuse_any_difference(folder / RESULT, again, plain_json.load(folder / RESULT), "its tables and the ONNX")
    except KitError as error:  # another version of the kit may have made it, from the same tables
        raise KitError(f"{error}; run `fab npu-profile --fresh`") from None


def _nodes(model: Model, onnx: Path) -> list[Node]:
    """The nodes of an ONNX with their costs, in the model's blocks where its package can tell them."""
    blocks = dict[str, str]()
    if "blocks" in model.card.capabilities:
        with TemporaryDirectory() as scratch:
            path, result = (Path(scratch) / name for name in ("blocks.onnx", "blocks.json"))
            try:
                run_command(model, "blocks", "--onnx", str(onnx), "--output", str(path), "--result", str(result))
                with reject_malformed(result):
                    blocks = {str(block["name"]): str(block["output"]) for block in plain_json.load(result)["blocks"]}
            except KitError as error:
                say(f"  the time is told by node alone: {error}", "yellow")
    return nodes(onnx_model.load(onnx), blocks)
