"""The logits of one batch size as files: `logits.npy`, and `results.tsv` with a digest a sample, so that a changed or
misplaced row is found and named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import KitError
from stgcn import npy
from stgcn.dataset import CLASSES
from stgcn.files import atomic_write, read_record

RESULT_BYTES = CLASSES * 4  # float32
LOGITS, DIGESTS = "logits.npy", "results.tsv"


@dataclass(frozen=True)
class DeviceLogits:
    """What the device said of every sample, in the dataset's order."""

    names: Sequence[str]
    logits: np.ndarray  # (n, 400) float32


def write_logits(results: DeviceLogits, folder: Path) -> None:
    with atomic_write(folder / LOGITS) as stream:
        np.save(stream, results.logits)
    with atomic_write(folder / DIGESTS) as stream:
        for index, (name, row) in enumerate(zip(results.names, results.logits, strict=True)):
            stream.write(f"{index}\t{name}\t{_digest(row)}\n".encode())


def read_logits(folder: Path, names: Sequence[str]) -> DeviceLogits:
    """The results that `write_logits` left, each row checked against its digest.

    Raises:
        KitError: naming the first sample whose row is missing, changed or another's.
    """
    digests = _read_digests(folder / DIGESTS, names)
    try:
        logits = npy.load(folder / LOGITS)
    except (OSError, ValueError) as error:
        raw = _rows_of_damaged(folder / LOGITS)
        pairs = enumerate(zip(raw, digests, strict=False))  # a damaged file may hold more rows than there are samples
        sample = next((i for i, (row, digest) in pairs if _digest(row) != digest), min(len(raw), len(names) - 1))
        raise KitError(
            f"{folder / LOGITS}: damaged ({error}) from sample {sample} ({names[sample]}) on; run `fab npu-bench` again"
        ) from None
    if logits.dtype != np.float32 or logits.shape[1:] != (CLASSES,):
        raise KitError(
            f"{folder / LOGITS}: {logits.dtype} {logits.shape}, not float32 (n, {CLASSES}); run `fab npu-bench` again"
        )
    if len(logits) != len(names):
        sample = min(len(logits), len(names) - 1)
        raise KitError(
            f"{folder / LOGITS}: {len(logits)} results for {len(names)} samples, the first without its own is"
            f" sample {sample} ({names[sample]}); run `fab npu-bench` again"
        )
    place = {digest: i for i, digest in enumerate(digests)}
    for i, row in enumerate(logits):
        found = _digest(row)
        if found != digests[i]:
            other = place.get(found)
            what = f"holds the result of sample {other} ({names[other]})" if other is not None else "was changed"
            raise KitError(f"{folder / LOGITS}: the row of sample {i} ({names[i]}) {what}; run `fab npu-bench` again")
    return DeviceLogits(names, logits)


def _digest(row: np.ndarray) -> str:
    return hashlib.sha256(row.tobytes()).hexdigest()[:16]


def _read_digests(path: Path, names: Sequence[str]) -> list[str]:
    try:
        rows = [line.split("\t") for line in read_record(path).decode("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        rows = []
    for i, name in enumerate(names):
        if i >= len(rows) or len(rows[i]) != 3 or rows[i][:2] != [str(i), name]:
            raise KitError(f"{path}: line {i + 1} is not that of sample {i} ({name}); run `fab npu-bench` again")
    return [row[2] for row in rows[: len(names)]]


def _rows_of_damaged(path: Path) -> np.ndarray:
    """The whole rows that a torn logits file still holds, for naming the first that does not hold."""
    try:
        data = read_record(path)[128:]  # numpy pads the header of so short a description to 128 bytes
    except OSError:
        data = b""
    return np.frombuffer(data[: len(data) // RESULT_BYTES * RESULT_BYTES], np.float32).reshape(-1, CLASSES)
