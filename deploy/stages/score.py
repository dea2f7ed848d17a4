"""`make score`: the device's logits against the labels and the fp32 reference of the same samples; the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deploy.console import console, say
from deploy.errors import GateFailed, KitError, reject_malformed
from deploy.evidence import chain, recompute, runs, signature
from deploy.evidence.elsewhere import require_run
from deploy.evidence.logits import DIGESTS, first_not_finite, output_names, read_logits
from deploy.evidence.recompute import ReadRow
from deploy.evidence.scores import scores
from deploy.inventory import ROOT, local_path
from deploy.options import Options
from deploy.outcome import Check, Outcome
from deploy.pipeline import graph, reproduce
from deploy.pipeline.artefacts import dataset_index, exported_card, reference_names
from deploy.pipeline.index import FILES, Index, read_index
from deploy.pipeline.manifest import OK, Manifest, Step, digest_of, write_json
from deploy.pipeline.model import CARD, Card, Model, published
from deploy.pipeline.sources import sources_sha256
from deploy.report.summary import Evidence, summary
from deploy.report.table import off, shown, table, to_csv
from deploy.stages import gpu_bench, report
from deploy.workspace import Workspace
from stgcn import npy, plain_json
from stgcn.files import write_whole

STAGE = "score"
SOURCES = [ROOT / name for name in ("deploy/report/summary.py", "deploy/report/table.py")]


def run(workspace: Workspace, options: Options, read_row: ReadRow) -> Outcome:
    """Make report/summary.json, summary.csv and report.html, print the table, keep the run; `read_row` as in report.

    Raises:
        KitError: an artefact is missing, changed or another's (naming the sample).
        GateFailed: a batch size missed the gate.
    """
    require_run(workspace, "score")
    say(STAGE, "bold")
    sizes, manifest = workspace.inventory.batch_sizes, workspace.manifest
    resting_on = [name for name in graph.steps(sizes) if _needed(manifest, name)]
    with reject_malformed(manifest.path):
        refuse_other_sources(workspace)
        for name in resting_on:
            chain.check_step(manifest, name, workspace.model)
        chain.check_others(manifest, workspace.model, resting_on)
    key = local_path(workspace.inventory.sign) if workspace.inventory.sign else None
    inputs = {
        "entries": {name: digest_of(manifest.steps[name]) for name in resting_on},
        "batch_sizes": sizes,
        **graph.inputs(manifest.steps, "score", workspace.inventory),
        "reference": published(workspace.inventory, workspace.model.card),
        "sources": sources(),
        **({"signer": signature.fingerprint(key)} if key else {}),
    }
    # Even when the verdict is cached: what it rests on is checked every time.
    recomputed = nullcontext() if options.dry else _recomputed(workspace, read_row, digest_of(inputs))
    with reject_malformed(manifest.workspace), recomputed:
        verdict = summary(evidence(manifest, workspace.model, inputs))
    folder = workspace.artefact("report")
    outputs = [folder / "summary.json", folder / "summary.csv"]

    def action() -> dict[str, Any]:
        write_json(outputs[0], verdict)
        write_whole(outputs[1], to_csv(verdict).encode())
        return {"simulated": verdict["device"]["simulated"], "passed": verdict["verdict"]["passed"]}

    step = Step("score", "control", inputs, outputs, action, [report.command("score")])
    workspace.run_step(step, options)
    if options.dry:
        return Outcome()
    report.make(workspace, options, read_row)
    reproduce.write(manifest)
    kept = runs.keep(manifest, key)
    with reject_malformed(outputs[0]):
        verdict = plain_json.load(outputs[0])
        results, outcome = table(verdict), _outcome(verdict, kept)
        missed = [f"batch size {b['batch_size']}: {off(verdict, b)}" for b in verdict["batches"] if not b["passed"]]
    console.print(results)
    say(f"summary: {outputs[0]}")
    say(f"page:    {folder / report.PAGE}")
    say(f"run:     {kept.folder}" + (f", signed with {inputs['signer']}" if key else ""))
    if missed:
        raise GateFailed(
            f"{'; '.join(missed)}; `fab npu-precision` says which nodes float16 spoils, or that it is another cause",
            outcome,
        )
    return outcome


@contextmanager
def _recomputed(workspace: Workspace, read_row: ReadRow, seed: str) -> Iterator[None]:
    """What `fab audit` computes again: index and labels, where the dataset lies here, and some samples' reference.

    The index takes longest: it is made beside the reference and what is done inside, and checked at the end.
    """
    manifest, model, files = workspace.manifest, workspace.model, workspace.local_files()
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as beside:
        if files:
            made = beside.submit(recompute.Dataset, model, files["data"], files["labels"], Path(scratch) / "index")
        samples = recompute.choose(seed, recompute.SAMPLES, dataset_index(manifest).samples)
        try:
            recompute.check_reference(manifest, model, read_row, samples, Path(scratch))
        except recompute.NoRowError as error:
            say(f"  not recomputed: the reference ({error})", "yellow")
        yield
        if files:
            try:
                dataset = made.result()
            except KitError as error:
                say(f"  not recomputed: the index, for the model's `index` does not run here ({error})", "yellow")
            else:
                recompute.check_index(manifest, dataset)


def sources() -> str:
    """The sha256 of what makes a verdict of its evidence."""
    return sources_sha256(*SOURCES)


def _outcome(summary: Mapping[str, Any], kept: runs.Run) -> Outcome:
    """The verdict in few words, and a check per batch size."""
    metrics = summary["metrics"]
    checks = []
    for batch in summary["batches"]:
        values = ", ".join(f"{metric['title']} {shown(batch[metric['key']], metric['unit'])}" for metric in metrics)
        checks.append(
            Check(f"bs{batch['batch_size']}", "accuracy", batch["passed"], f"{values}; {off(summary, batch)}")
        )
    return Outcome({"run": {"id": kept.id, "folder": str(kept.folder)}, **runs.brief(summary)}, checks)


def refuse_other_sources(workspace: Workspace) -> None:
    """Whether the inventory's dataset and checkpoint, where they lie on this machine, are those that were run.

    Raises:
        KitError: naming the file.
    """
    if workspace.inventory.gpu.connection != "local":
        return
    for path, step, recorded in source_files(workspace.manifest.steps, workspace.local_files()):
        found = workspace.manifest.input_sha256(path)
        if found != recorded:
            raise KitError(
                f"{path}: sha256 {found[:12]}, but {step} read {str(recorded)[:12]}; run `make gpu-stage` for this"
                " file, or name the other one in the inventory"
            )


def source_files(entries: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[tuple[Path, str, str]]:
    """(file, the first step that read it, its sha256 then) of each of `files`, which are from outside the workspace."""
    left = dict(files)
    for kind in (kind for kind in graph.GRAPH if kind.name in entries):
        for name in (name for name in kind.files if name in left):
            recorded = entries[kind.name]["inputs"][name]
            yield left.pop(name), kind.name, recorded["sha256"] if name == "checkpoint" else recorded


def _needed(manifest: Manifest, name: str) -> bool:
    """A verdict needs every step but a figure that was not taken, or one asked for apart whose model is gone."""
    kind, entries = graph.kind_of(name), manifest.steps
    if kind.required or entries.get(name, {}).get("state") != OK:
        return kind.required
    if kind.apart and not graph.is_current(entries, name):
        say(f"  {name} is left out: it is of other files than those now; run `{kind.command}` for it again", "yellow")
        return False
    return True


def evidence(manifest: Manifest, model: Model, inputs: Mapping[str, Any]) -> Evidence:
    """What the artefacts of a workspace say, each checked against its manifest entry, and scored by the model.

    Raises:
        KitError: naming the file, and the sample where one row is wrong.
    """
    index, card = dataset_index(manifest), exported_card(manifest)
    if card.name != model.card.name:
        raise KitError(f"gpu/{CARD}: of {card.name}, not of {model.card.name}; name that `model` in the inventory")
    sizes: Sequence[int] = inputs["batch_sizes"]
    labels = _array(manifest, "preprocess", "gpu/labels.npy")
    names = [f"gpu/{name}" for name in reference_names(card)]
    reference = [_array(manifest, "reference", name) for name in names]
    _refuse_other_forms(index, card, labels, dict(zip(names, reference, strict=True)))
    logits = {size: device_outputs(manifest, size, index.names, card) for size in sizes}
    folders = [manifest.workspace / "npu" / f"bs{size}" for size in sizes]
    sets = [[manifest.workspace / name for name in names]]
    sets += [[folder / name for name in output_names(card)] for folder in folders]

    def found(step: str, name: str) -> dict[str, Any] | None:
        """What a step left that a verdict can do without."""
        return dict(plain_json.load(graph.output(manifest, step, name))) if step in inputs["entries"] else None

    def figure(size: int) -> dict[str, Any] | None:
        measured = found(f"throughput/bs{size}", f"npu/bs{size}/benchmark.json")
        # End to end is the accuracy run's: that one reads real files and writes results, as an application does.
        return measured and {**measured, "end_to_end": manifest.steps[f"accuracy/bs{size}"]["facts"].get("end_to_end")}

    first, *others = scores(model, manifest.workspace / "gpu/labels.npy", sets, index.samples)
    return Evidence(
        card=card,
        device=device(manifest, sizes),
        persons=persons(manifest, sizes),
        names=index.names,
        labels=labels,
        reference=reference,
        logits=logits,
        reference_score=first,
        scores=dict(zip(sizes, others, strict=True)),
        figures={size: figure(size) for size in sizes},
        profiles={size: each for size in sizes if (each := found(f"profile/bs{size}", f"npu/bs{size}/profile.json"))},
        precision=found("precision", "precision/precision.json"),
        gpu=found(gpu_bench.STEP, f"gpu/{gpu_bench.FILE}"),
        gate=inputs["gate"],
        published=_comparable(manifest, card, inputs["reference"], index.samples),
    )


def _refuse_other_forms(index: Index, card: Card, labels: np.ndarray, reference: Mapping[str, np.ndarray]) -> None:
    """Raise KitError where labels or reference are not of the index's samples and the model's outputs."""
    again = "run `make gpu-stage --fresh`"
    if len(labels) != index.samples:
        raise KitError(f"gpu/labels.npy {labels.shape} is not of the {index.samples} samples; {again}")
    classes = len(card.classes or ())
    if classes and not (labels.dtype == np.int64 and labels.ndim == 1 and 0 <= labels.min() <= labels.max() < classes):
        raise KitError(f"gpu/labels.npy ({labels.dtype}) is not int64 from 0 to {classes - 1}; {again}")
    for (name, values), tensor in zip(reference.items(), card.outputs, strict=True):
        if values.dtype != np.float32 or values.shape != (index.samples, *tensor.shape):
            raise KitError(f"{name} ({values.dtype} {values.shape}) is not float32 of {index.samples} samples; {again}")
        if (bad := first_not_finite(values)) is not None:
            sample = f"sample {bad} ({index.names[bad]})"
            raise KitError(f"{name}: {sample} has NaN or infinite logits; check the checkpoint")


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
    index = read_index(graph.output(manifest, "preprocess", f"gpu/{FILES['nonempty']}"))
    return {"samples": index.row_count, "a_clip": index.rows_per_sample}


def device_outputs(manifest: Manifest, batch_size: int, names: Sequence[str], card: Card) -> Sequence[np.ndarray]:
    folder = manifest.workspace / "npu" / f"bs{batch_size}"
    outputs = read_logits(folder, names, card)
    for name in (*output_names(card), DIGESTS):
        graph.output(manifest, f"accuracy/bs{batch_size}", f"npu/bs{batch_size}/{name}")
    for name, values in zip(output_names(card), outputs, strict=True):
        if (bad := first_not_finite(values)) is not None:
            sample = f"sample {bad} ({names[bad]})"
            raise KitError(f"{folder / name}: {sample} has NaN or infinite logits; run `fab npu-bench` again")
    return outputs


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
    path = graph.output(manifest, step, name)
    try:
        return npy.load(path)
    except ValueError as error:
        raise KitError(f"{path}: damaged ({error}); run `make gpu-stage --fresh`") from None


def _comparable(
    manifest: Manifest, card: Card, reference: Mapping[str, Any] | None, samples: int
) -> dict[str, float] | None:
    """The published accuracy, where it is comparable: the published weights on the whole set."""
    weights = manifest.steps["reference"]["inputs"]["checkpoint"]["sha256"]
    known = reference is not None and card.published is not None and weights.startswith(card.published.sha256)
    if reference is None or not known or samples != reference["samples"]:
        return None
    return {key: value for key, value in reference.items() if key != "samples"}
