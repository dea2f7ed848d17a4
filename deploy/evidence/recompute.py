"""What a verdict rests on, computed again: index and labels from the dataset, the reference by the ONNX.

The model's own commands make the index, as they did the first time; ONNX Runtime does what torch did.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import KitError, reject_malformed
from deploy.evidence.differences import refuse_any_difference
from deploy.evidence.logits import fold
from deploy.pipeline import artefacts
from deploy.pipeline.index import FILES, Array, Index, read_index
from deploy.pipeline.manifest import Manifest, write_json
from deploy.pipeline.model import Card, Model, run_command
from stgcn import npy, onnx_model, plain_json

ReadRow = Callable[[Array, int], np.ndarray]  # one row of an input, from where the dataset lies
SAMPLES = 4  # whose outputs are computed again, unless more are asked for
TOLERANCE = 3e-5  # of the largest output of a sample, or of 1: three times what exporting allows


class NoRowError(KitError):
    """A row that its host does not give up: a verdict can do without."""


class Dataset:
    """The dataset, at hand: its index made again in `folder`, with the arrays that the index command makes of it.

    Raises:
        KitError: the model's command cannot make it here.
    """

    def __init__(self, model: Model, data: Path, labels: Path, folder: Path) -> None:
        self.data, self.folder, self.arrays = data, folder, folder / "arrays"
        self.arrays.mkdir(parents=True, exist_ok=True)
        files = ["--data_path", str(data), "--label_path", str(labels)]
        run_command(model, "index", *files, "--output_dir", str(folder), "--array_dir", str(self.arrays))

    def read_row(self, array: Array, row: int) -> np.ndarray:
        """One row of an input."""
        path = self.data if array.file is None else self.arrays / array.file
        items = np.load(path, mmap_mode="r", allow_pickle=False)
        item, first = array.places[row] if array.places is not None else (row, 0)
        return np.array(items[item]).reshape(-1)[first :: array.step].reshape(array.shape)


def check_index(manifest: Manifest, dataset: Dataset) -> None:
    """Whether the index and the labels are those of the dataset.

    Raises:
        KitError: naming the label, or the place in the index, that differs.
    """
    _check_labels(manifest.workspace / "gpu/labels.npy", dataset.folder / "labels.npy")
    for name in FILES.values():
        path = manifest.workspace / "gpu" / name
        if f"gpu/{name}" in manifest.steps["preprocess"]["outputs"]:
            with reject_malformed(path):
                again, found = plain_json.load(dataset.folder / name), plain_json.load(path)
                _round_as(again.get("preflight"), found.get("preflight"))
                refuse_any_difference(path, again, found, "the dataset")


def _round_as(again: Any, found: Any) -> None:
    """Take over `found`'s numbers where they are near: another numpy adds float32 in another order, and by more than
    other figures are off by."""
    if not isinstance(again, (dict, list)) or type(again) is not type(found):
        return
    for key in list(again) if isinstance(again, dict) else range(min(len(again), len(found))):
        value, other = again[key], found.get(key) if isinstance(found, dict) else found[key]
        if isinstance(value, float) and isinstance(other, float):
            again[key] = other if math.isclose(value, other, rel_tol=1e-3, abs_tol=1e-4) else value
        _round_as(value, other)


def check_labels(manifest: Manifest, model: Model, labels: Path, folder: Path) -> None:
    """Whether the labels are those of the label file, where that alone is at hand. Raises as `check_index` does."""
    again = folder / "labels.npy"
    run_command(model, "labels", "--label_path", str(labels), "--output", str(again))
    _check_labels(manifest.workspace / "gpu/labels.npy", again)


def _check_labels(path: Path, again: Path) -> None:
    try:
        found, expected = npy.load(path), npy.load(again)
    except (OSError, ValueError) as error:
        raise KitError(f"{path}: missing or damaged ({error}); run `make gpu-stage --fresh`") from None
    if found.dtype != expected.dtype or found.shape != expected.shape:
        raise KitError(
            f"{path}: {found.dtype} {found.shape}, and the label file gives {expected.dtype} {expected.shape}"
        )
    for sample in np.flatnonzero((found != expected).reshape(len(found), -1).any(axis=1))[:1]:
        raise KitError(f"{path}: the label of sample {sample} is {found[sample]} and was {expected[sample]}")


def choose(seed: str, count: int, samples: int) -> list[int]:
    """`count` of so many samples, by the hexadecimal digest of what is audited: not for a forger to choose."""
    return sorted(random.Random(int(seed, 16)).sample(range(samples), min(count, samples)))  # noqa: S311 (no secret)


def check_reference(manifest: Manifest, model: Model, read_row: ReadRow, samples: Sequence[int], scratch: Path) -> None:
    """Whether the ONNX gives the reference outputs of `samples`.

    Raises:
        NoRowError: `read_row` did not give a row.
        KitError: naming the sample whose outputs differ.
    """
    card = artefacts.exported_card(manifest)
    index = artefacts.dataset_index(manifest, manifest.steps["export"]["inputs"].get("persons", "both"))
    outputs = _outputs(manifest, model, card, read_row, index, samples, scratch)
    for name, values in zip(artefacts.reference_names(card), outputs, strict=True):
        path = manifest.workspace / "gpu" / name
        reference = npy.load(path)
        if len(reference) != index.samples:
            raise KitError(f"{path}: of {len(reference)} samples, not of {index.samples}; run `make gpu-stage --fresh`")
        for sample, again in zip(samples, values, strict=True):
            apart = float(np.abs(again.astype(np.float64) - reference[sample]).max())
            if not apart <= TOLERANCE * max(1.0, float(np.abs(again).max())):
                raise KitError(
                    f"{path}: sample {sample} ({index.names[sample]}) is {apart:.2g} from what the ONNX gives; "
                    "run `make gpu-stage --fresh`"
                )


def _outputs(
    manifest: Manifest,
    model: Model,
    card: Card,
    read_row: ReadRow,
    index: Index,
    samples: Sequence[int],
    scratch: Path,
) -> Sequence[np.ndarray]:
    """What ONNX Runtime computes of `samples`, one array per output."""
    rows_of = [[sample] if index.rows is None else list(index.rows[sample]) for sample in samples]
    rows = sorted({row for own in rows_of for row in own})
    path = artefacts.onnx_path(manifest)
    try:
        session = onnx_model.session(onnx_model.load(path))
        inputs = {array.name: np.stack([read_row(array, row) for row in rows]) for array in index.inputs}
        names = [output.name for output in card.outputs]
        ran = [session.run(names, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(len(rows))]
    except KitError as error:
        raise NoRowError(str(error)) from None
    except Exception as error:  # ONNX Runtime's own have no common base
        raise KitError(f"{path}: cannot be run ({error}); run `make gpu-stage --fresh`") from None
    outputs = [np.concatenate(values) for values in zip(*ran, strict=True)]
    if index.rows is None:
        return outputs
    few = scratch / index.file
    write_json(few, _of_few(manifest.workspace / "gpu" / index.file, samples, rows))
    return fold(model, few, read_index(few), outputs, scratch)


def _of_few(path: Path, samples: Sequence[int], rows: Sequence[int]) -> Mapping[str, Any]:
    """The index at `path` as it would be of these samples and their rows alone."""
    content, place = plain_json.load(path), {row: i for i, row in enumerate(rows)}
    shard = {"first": 0, "count": len(rows), "sha256": ""}
    inputs = [{**array, "shards": [shard]} for array in content["inputs"]]
    for array in inputs:
        if array.get("places"):
            array["places"] = [array["places"][row] for row in rows]
    return {
        **content,
        "samples": len(samples),
        "names": [content["names"][sample] for sample in samples],
        "rows": [[place[row] for row in content["rows"][sample]] for sample in samples],
        "inputs": inputs,
    }
