"""`make score`: the device's logits against the labels and the fp32 reference of the same samples; the verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from deploy.console import console, say
from deploy.context import Context
from deploy.errors import KitError
from deploy.logits import DIGESTS, LOGITS, DeviceLogits, read_logits
from deploy.manifest import Step, write_json
from deploy.report.summary import accuracy, batch, summary
from deploy.report.table import table, to_csv
from stgcn.dataset import CLASSES
from stgcn.files import atomic_write

STAGE = "score"
PUBLISHED_WEIGHTS = "6fa43f73"  # head of the sha256 of the weights whose accuracy was published


def run(context: Context) -> None:
    """Make report/summary.json and summary.csv, print the table.

    Raises:
        KitError: an artefact is missing, changed or another's (naming the sample), or a batch size missed the gate.
    """
    say(STAGE, "bold")
    index = context.index()
    results = {size: _results(context, size, index.names) for size in context.inventory.batch_sizes}
    folder = context.artefact("report")
    outputs = [folder / "summary.json", folder / "summary.csv"]
    names = ["export", "preprocess", "reference"]
    names += [f"{kind}/bs{size}" for kind in ("accuracy", "throughput") for size in results]
    steps = context.manifest.steps
    inputs = {
        "outputs": {name: steps[name]["outputs"] for name in names if name in steps},
        "device": _device(context),
        "gate": context.inventory.gate,
        "reference": context.inventory.reference.model_dump(),
    }

    def action() -> dict[str, Any]:
        verdict = _verdict(context, results)
        folder.mkdir(exist_ok=True)
        write_json(outputs[0], verdict)
        with atomic_write(outputs[1]) as stream:
            stream.write(to_csv(verdict).encode())
        return {"simulated": verdict["device"]["simulated"], "passed": verdict["verdict"]["passed"]}

    context.perform(Step("score", "control", inputs, outputs, action))
    if context.dry:
        return
    verdict = json.loads(outputs[0].read_bytes())
    console.print(table(verdict))
    say(f"summary: {outputs[0]}")
    if not verdict["verdict"]["passed"]:
        missed = [str(b["batch_size"]) for b in verdict["batches"] if not b["passed"]]
        raise KitError(
            f"batch size {', '.join(missed)}: accuracy is more than {context.inventory.gate:.0%} (relative) off the"
            " fp32 reference; try another precision_mode under `atc` in the inventory"
        )


def _results(context: Context, batch_size: int, names: Sequence[str]) -> DeviceLogits:
    folder = context.batch_folder(batch_size)
    entry = context.manifest.steps.get(f"accuracy/bs{batch_size}")
    if entry is None or entry["state"] != "OK":
        raise KitError(f"batch size {batch_size} has no results yet; run `fab npu-bench` first")
    results = read_logits(folder, names)
    for path in (folder / LOGITS, folder / DIGESTS):
        context.manifest.output(f"accuracy/bs{batch_size}", path, "fab npu-bench")
    return results


def _device(context: Context) -> dict[str, Any]:
    """What the results were made on, as the accuracy runs recorded it; the NPU hosts are not asked again."""
    entry = context.manifest.steps[f"accuracy/bs{context.inventory.batch_sizes[0]}"]
    soc = entry["inputs"]["soc_version"]
    return {
        "chip": soc.removeprefix("Ascend"),
        "soc_version": soc,
        "simulated": entry["facts"]["simulated"],
        "cann": entry["inputs"]["cann"],
        "driver": entry["inputs"]["driver"],
    }


def _verdict(context: Context, results: dict[int, DeviceLogits]) -> dict[str, Any]:
    labels = _array(context, "preprocess", "gpu/labels.npy")
    reference = _array(context, "reference", "gpu/reference.npy")
    if reference.shape != (len(labels), CLASSES):
        raise KitError(f"gpu/reference.npy: {reference.shape} for {len(labels)} samples; run `make gpu-stage --fresh`")
    gate = context.inventory.gate
    published = _published(context, len(labels))
    batches = [
        batch(size, found.logits, reference, labels, _figure(context, size), gate, published)
        for size, found in results.items()
    ]
    return summary(_device(context), {**accuracy(reference, labels), "published": published}, batches, gate)


def _array(context: Context, step: str, name: str) -> np.ndarray:
    path = context.manifest.output(step, context.artefact(name), "make gpu-stage")
    return np.asarray(np.load(path, allow_pickle=False))


def _figure(context: Context, batch_size: int) -> dict[str, Any] | None:
    """The throughput that was measured, or None where it was not."""
    step = f"throughput/bs{batch_size}"
    entry = context.manifest.steps.get(step)
    if entry is None or entry["state"] != "OK":
        return None
    path = context.manifest.output(step, context.batch_folder(batch_size) / "benchmark.json", "fab npu-bench")
    return dict(json.loads(path.read_bytes()))


def _published(context: Context, samples: int) -> dict[str, float] | None:
    """The published accuracy, where it is comparable: the published weights on the whole set."""
    reference = context.inventory.reference
    weights = context.manifest.steps["reference"]["inputs"]["checkpoint"]["sha256"]
    if samples != reference.samples or not weights.startswith(PUBLISHED_WEIGHTS):
        return None
    return {"top1": reference.top1, "top5": reference.top5}
