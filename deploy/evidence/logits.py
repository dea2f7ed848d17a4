"""The outputs of one batch size as files: `logits.npy` of the first, `logits.NAME.npy` of others, and
`results.tsv` with a digest per sample, so that a changed or misplaced row is found and named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deploy.errors import KitError
from deploy.npu.infer import Outputs
from deploy.pipeline.index import Index
from deploy.pipeline.model import Card, Model, Tensor, run_command
from stgcn import npy
from stgcn.files import atomic_write, read_record, write_whole

LOGITS, DIGESTS = "logits.npy", "results.tsv"


def output_names(card: Card) -> list[str]:
    """The files of the outputs, in the model's order."""
    return [LOGITS, *(f"logits.{output.name}.npy" for output in card.outputs[1:])]


def write_logits(names: Sequence[str], outputs: Outputs, folder: Path, card: Card) -> None:
    """Write what the device said of every sample, each output (n, ...), in the order of the samples' names."""
    for name, values in zip(output_names(card), outputs, strict=True):
        with atomic_write(folder / name) as stream:
            np.save(stream, values)
    rows = enumerate(zip(names, *outputs, strict=True))
    write_whole(folder / DIGESTS, "".join(f"{i}\t{name}\t{_digest(row)}\n" for i, (name, *row) in rows).encode())


def read_logits(folder: Path, names: Sequence[str], card: Card) -> Outputs:
    """The outputs that `write_logits` left, each row checked against its digest.

    Raises:
        KitError: naming the first sample whose row is missing, changed or another's.
    """
    digests = _read_digests(folder / DIGESTS, names)
    paths = [folder / name for name in output_names(card)]
    outputs = [_read_output(*each, names, digests) for each in zip(paths, card.outputs, strict=True)]
    place = {digest: i for i, digest in enumerate(digests)}
    for i, rows in enumerate(zip(*outputs, strict=True)):
        found = _digest(rows)
        if found != digests[i]:
            other = place.get(found)
            what = f"holds the result of sample {other} ({names[other]})" if other is not None else "was changed"
            where = ", ".join(map(str, paths))
            raise KitError(f"{where}: the row of sample {i} ({names[i]}) {what}; run `fab npu-bench` again")
    return outputs


def first_not_finite(values: np.ndarray) -> int | None:
    """The first row of (n, ...) values that has NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    return int(bad[0]) if bad.size else None


def _read_output(path: Path, tensor: Tensor, names: Sequence[str], digests: Sequence[str]) -> np.ndarray:
    try:
        values = npy.load(path)
    except (OSError, ValueError) as error:
        raw = _rows_of_damaged(path, tensor)
        pairs = enumerate(zip(raw, digests, strict=False))  # a damaged file may hold more rows than there are samples
        sample = next((i for i, (row, digest) in pairs if _digest([row]) != digest), min(len(raw), len(names) - 1))
        raise KitError(
            f"{path}: damaged ({error}) from sample {sample} ({names[sample]}) on; run `fab npu-bench` again"
        ) from None
    if values.dtype != np.dtype(tensor.dtype) or values.shape[1:] != tuple(tensor.shape):
        expected = ", ".join(["n", *map(str, tensor.shape)])
        raise KitError(
            f"{path}: {values.dtype} {values.shape}, not {tensor.dtype} ({expected}); run `fab npu-bench` again"
        )
    if len(values) != len(names):
        sample = min(len(values), len(names) - 1)
        raise KitError(
            f"{path}: {len(values)} results for {len(names)} samples, the first without its own is"
            f" sample {sample} ({names[sample]}); run `fab npu-bench` again"
        )
    return values


def _digest(rows: Iterable[np.ndarray]) -> str:
    """Over a sample's row of each output."""
    return hashlib.sha256(b"".join(row.tobytes() for row in rows)).hexdigest()[:16]


def _read_digests(path: Path, names: Sequence[str]) -> list[str]:
    try:
        rows = [line.split("\t") for line in read_record(path).decode("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        rows = []
    for i, name in enumerate(names):
        if i >= len(rows) or len(rows[i]) != 3 or rows[i][:2] != [str(i), name]:
            raise KitError(f"{path}: line {i + 1} is not that of sample {i} ({name}); run `fab npu-bench` again")
    return [row[2] for row in rows[: len(names)]]


def _rows_of_damaged(path: Path, tensor: Tensor) -> np.ndarray:
    """The whole rows that a torn file still holds, for naming the first that does not hold."""
    try:
        data = read_record(path)[128:]  # numpy pads the header of so short a description to 128 bytes
    except OSError:
        data = b""
    whole = data[: len(data) // tensor.row_bytes * tensor.row_bytes]
    return np.frombuffer(whole, tensor.dtype).reshape(-1, *tensor.shape)


def fold(model: Model, path: Path, index: Index, rows: Outputs, scratch: Path) -> Outputs:
    """The samples' outputs from those of their rows, by the package's command; `path` is the index's file.

    Raises:
        KitError: the command's own sentence, or it made something else than an array per output.
    """
    before, after = ([scratch / f"{name}-{i}.npy" for i in range(len(rows))] for name in ("rows", "samples"))
    for place, values in zip(before, rows, strict=True):
        np.save(place, values)
    options = ["--index", str(path), "--samples", str(index.samples), "--rows", ",".join(map(str, before))]
    run_command(model, "fold", *options, "--outputs", ",".join(map(str, after)))
    try:
        folded = [npy.load(place) for place in after]
    except (OSError, ValueError) as error:
        raise KitError(f"{model.card.package}.fold left no arrays ({error}); correct the model's package") from None
    if any(len(values) != index.samples for values in folded):
        raise KitError(f"{model.card.package}.fold did not give {index.samples} samples; correct the model's package")
    return folded
