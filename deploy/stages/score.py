"""`make score`: the device's logits against the labels and the fp32 reference of the same samples; the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.console import console, say
from deploy.context import Context
from deploy.errors import KitError, as_written
from deploy.evidence import runs
from deploy.evidence.logits import DIGESTS, LOGITS, read_logits
from deploy.inventory import ROOT
from deploy.pipeline import chain, reproduce
from deploy.pipeline.manifest import Manifest, Step, digest_of, sources, write_json
from deploy.report.summary import Evidence, summary
from deploy.report.table import table, to_csv
from deploy.stages import report
from stgcn import npy, plain_json
from stgcn.dataset import CLASSES
from stgcn.files import atomic_write
from stgcn.index import Index, PersonIndex, load_index, load_persons

STAGE = "score"
PUBLISHED_WEIGHTS = "6fa43f73"  # head of the sha256 of the weights whose accuracy was published
SOURCES = [ROOT / name for name in ("deploy/report/summary.py", "deploy/report/table.py", "stgcn/accuracy.py")]


def run(context: Context) -> None:
    """Make report/summary.json, summary.csv and report.html, print the table, keep the run.

    Raises:
        KitError: an artefact is missing, changed or another's (naming the sample), or a batch size missed the gate.
    """
    say(STAGE, "bold")
    sizes, manifest = context.inventory.batch_sizes, context.manifest
    resting_on = [name for name in chain.steps(sizes) if _needed(manifest, name)]
    with as_written(manifest.path):
        refuse_other_sources(context)
        for name in resting_on:
            chain.check(manifest.steps, name)
    inputs = {
        "entries": {name: digest_of(manifest.steps[name]) for name in resting_on},
        "batch_sizes": sizes,
        "gate": context.inventory.gate,
        "reference": context.inventory.reference.model_dump(),
        "sources": sources(SOURCES),
    }
    with as_written(manifest.workspace):
        found = evidence(manifest, inputs)  # even when the verdict is cached: what it rests on is checked every time
    folder = context.artefact("report")
    outputs = [folder / "summary.json", folder / "summary.csv"]

    def action() -> dict[str, Any]:
        verdict = summary(found)
        write_json(outputs[0], verdict)
        with atomic_write(outputs[1]) as stream:
            stream.write(to_csv(verdict).encode())
        return {"simulated": verdict["device"]["simulated"], "passed": verdict["verdict"]["passed"]}

    context.perform(Step("score", "control", inputs, outputs, action, [report.command("score")]))
    if context.dry:
        return
    report.make(context)
    reproduce.write(manifest)
    kept = runs.keep(manifest)
    with as_written(outputs[0]):
        verdict = plain_json.load(outputs[0])
        shown, passed = table(verdict), verdict["verdict"]["passed"]
        missed = [str(batch["batch_size"]) for batch in verdict["batches"] if not batch["passed"]]
    console.print(shown)
    say(f"summary: {outputs[0]}")
    say(f"page:    {folder / report.PAGE}")
    say(f"run:     {kept.folder}")
    if not passed:
        raise KitError(
            f"batch size {', '.join(missed)}: accuracy is more than {100 * context.inventory.gate:g}% (relative) off;"
            " `fab locate` says in which block, and whether another precision_mode helps"
        )


def refuse_other_sources(context: Context) -> None:
    """Whether the inventory's dataset and checkpoint, where they lie on this machine, are those that were run.

    Raises:
        KitError: naming the file.
    """
    if context.inventory.gpu.connection != "local":
        return
    files = [Path(path) for path in (context.data, context.labels, context.checkpoint)]
    for path, step, recorded in source_files(context.manifest.steps, *files):
        found = context.manifest.input_sha256(path)
        if found != recorded:
            raise KitError(
                f"{path}: sha256 {found[:12]}, but {step} read {str(recorded)[:12]}; run `make gpu-stage` for this"
                " file, or name the other one in the inventory"
            )


def source_files(entries: Mapping[str, Any], data: Path, labels: Path, checkpoint: Path) -> list[tuple[Path, str, str]]:
    """(file, the step that read it, its sha256 then) of what came from outside the workspace."""
    known = []
    if "preprocess" in entries:
        read = entries["preprocess"]["inputs"]
        known += [(data, "preprocess", read["data"]), (labels, "preprocess", read["labels"])]
    if "export" in entries:
        known.append((checkpoint, "export", entries["export"]["inputs"]["checkpoint"]["sha256"]))
    return known


def _needed(manifest: Manifest, name: str) -> bool:
    """A verdict needs every step but a figure that was not taken."""
    return not name.startswith("throughput/") or manifest.steps.get(name, {}).get("state") == "OK"


def evidence(manifest: Manifest, inputs: Mapping[str, Any]) -> Evidence:
    """What the artefacts of a workspace say, each checked against its manifest entry.

    Raises:
        KitError: naming the file, and the sample where one row is wrong.
    """
    index = dataset_index(manifest)
    sizes: Sequence[int] = inputs["batch_sizes"]
    labels = _array(manifest, "preprocess", "gpu/labels.npy")
    reference = _array(manifest, "reference", "gpu/reference.npy")
    if labels.shape != (index.samples,) or reference.shape != (index.samples, CLASSES):
        raise KitError(
            f"gpu/labels.npy {labels.shape} and gpu/reference.npy {reference.shape} are not of the {index.samples}"
            " samples of gpu/dataset.json; run `make gpu-stage --fresh`"
        )
    if labels.dtype != np.int64 or reference.dtype != np.float32 or not (0 <= labels.min() <= labels.max() < CLASSES):
        raise KitError(
            f"gpu/labels.npy ({labels.dtype}) and gpu/reference.npy ({reference.dtype}) are not int64 from 0 to "
            f"{CLASSES - 1} and float32; run `make gpu-stage --fresh`"
        )
    bad = np.flatnonzero(~np.isfinite(reference).all(axis=1))
    if bad.size:
        sample = f"sample {bad[0]} ({index.names[bad[0]]})"
        raise KitError(f"gpu/reference.npy: {sample} has NaN or infinite logits; check the checkpoint")
    return Evidence(
        device=device(manifest, sizes),
        persons=persons(manifest, sizes),
        names=index.names,
        labels=labels,
        reference=reference,
        logits={size: device_logits(manifest, size, index.names) for size in sizes},
        figures={
            size: figure(manifest, size) if f"throughput/bs{size}" in inputs["entries"] else None for size in sizes
        },
        gate=inputs["gate"],
        published=_published(manifest, inputs["reference"], index.samples),
    )


def dataset_index(manifest: Manifest) -> Index:
    return load_index(manifest.output("preprocess", manifest.workspace / "gpu/dataset.json", "make gpu-stage"))


def persons(manifest: Manifest, batch_sizes: Sequence[int]) -> dict[str, Any] | None:
    """Where the device was given single persons: how many, and how many make a clip. None where it was given clips.

    Raises:
        KitError: it was given the one at some batch size and the other at another.
    """
    given = {manifest.steps[f"accuracy/bs{size}"]["inputs"].get("persons", "both"): size for size in batch_sizes}
    if len(given) > 1:
        sizes = " and ".join(f"accuracy/bs{size} was given {form}" for form, size in given.items())
        raise KitError(f"persons: {sizes}; run `fab npu-convert npu-bench` so that one verdict is about one of them")
    if "nonempty" not in given:
        return None
    path = manifest.output("preprocess", manifest.workspace / "gpu" / PersonIndex.FILE, "make gpu-stage")
    index = load_persons(path)
    return {"samples": index.samples, "a_clip": index.samples_a_clip}


def device_logits(manifest: Manifest, batch_size: int, names: Sequence[str]) -> np.ndarray:
    folder = manifest.workspace / "npu" / f"bs{batch_size}"
    logits = read_logits(folder, names).logits
    for path in (folder / LOGITS, folder / DIGESTS):
        manifest.output(f"accuracy/bs{batch_size}", path, "fab npu-bench")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if bad.size:
        sample = f"sample {bad[0]} ({names[bad[0]]})"
        raise KitError(f"{folder / LOGITS}: {sample} has NaN or infinite logits; run `fab npu-bench` again")
    return logits


def figure(manifest: Manifest, batch_size: int) -> dict[str, Any]:
    path = manifest.workspace / "npu" / f"bs{batch_size}" / "benchmark.json"
    return dict(plain_json.load(manifest.output(f"throughput/bs{batch_size}", path, "fab npu-bench")))


def device(manifest: Manifest, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """What the results were made on, as the accuracy runs recorded it; the NPU hosts are not asked again.

    Raises:
        KitError: the batch sizes ran on devices or tools of more than one kind.
    """
    kinds = {}
    for size in batch_sizes:
        entry = manifest.steps[f"accuracy/bs{size}"]
        soc = entry["inputs"]["soc_version"]
        kinds[size] = {
            "chip": soc.removeprefix("Ascend"),
            "soc_version": soc,
            "simulated": entry["facts"]["simulated"],
            "cann": entry["inputs"]["cann"],
            "driver": entry["inputs"]["driver"],
        }
    ailments = {manifest.steps[f"accuracy/bs{size}"]["facts"].get("health") for size in batch_sizes}
    first = kinds[batch_sizes[0]]
    for size, kind in kinds.items():
        if kind != first:
            differing = ", ".join(f"{k} {kind[k]} and {first[k]}" for k in kind if kind[k] != first[k])
            raise KitError(
                f"accuracy/bs{size} and accuracy/bs{batch_sizes[0]} ran on different devices or tools ({differing});"
                " run `fab npu-convert npu-bench` so that one verdict is about one kind"
            )
    return {**first, "health": ", ".join(sorted(filter(None, ailments))) or None}


def _array(manifest: Manifest, step: str, name: str) -> np.ndarray:
    path = manifest.output(step, manifest.workspace / name, "make gpu-stage")
    try:
        return npy.load(path)
    except ValueError as error:
        raise KitError(f"{path}: damaged ({error}); run `make gpu-stage --fresh`") from None


def _published(manifest: Manifest, reference: Mapping[str, Any], samples: int) -> dict[str, float] | None:
    """The published accuracy, where it is comparable: the published weights on the whole set."""
    weights = manifest.steps["reference"]["inputs"]["checkpoint"]["sha256"]
    if samples != reference["samples"] or not weights.startswith(PUBLISHED_WEIGHTS):
        return None
    return {"top1": reference["top1"], "top5": reference["top5"]}
