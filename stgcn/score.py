"""Top-1 and Top-5 of a folder of results:

    python -m stgcn.score --result_dir st_gcn_bs1_out --label_path val_label.pkl

Results are `<sample>_<output>.bin`, 400 float32 logits each; any other file in the folder is left alone.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np

from stgcn.dataset import CLASSES, load_labels
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike

RESULT_NAME = re.compile(r"(\d+)_\d+\.bin")
RESULT_BYTES = 4 * CLASSES


def top_k_hits(logits: np.ndarray, labels: np.ndarray, k: int) -> int:
    """How many of the (N, 400) logits have their label among the k highest; of equal ones the lower class is higher."""
    own = logits[np.arange(len(labels)), labels][:, None]
    before_label = np.arange(logits.shape[1]) < labels[:, None]
    rank = (logits > own).sum(axis=1) + ((logits == own) & before_label).sum(axis=1)
    return int((rank < k).sum())


def read_results(result_dir: PathLike, names: List[str]) -> np.ndarray:
    """The logits of all samples, float32 (N, 400), in the order of `names` (whose length is N).

    Raises InputError, naming the sample, for a result that is missing, surplus, doubled, of another size, or holds NaN
    or infinity.
    """
    files = _result_files(result_dir)
    for index, name in enumerate(names):
        if index not in files:
            raise InputError(f"{result_dir} misses the result of sample {index} ({name}): infer again")
    surplus = sorted(files.keys() - range(len(names)))
    if surplus:
        raise InputError(
            f"{result_dir} holds {files[surplus[0]]} and there are only {len(names)} samples: give the labels of the "
            "dataset that was inferred, or infer again into an empty folder"
        )
    logits = np.empty((len(names), CLASSES), "<f4")
    rows, beyond = logits.data.cast("B"), bytearray(1)
    folder = os.open(str(result_dir), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for index, name in enumerate(names):
            # Two system calls a file: opening by folder, without waiting for a pipe's other end, and one read, with a
            # byte to notice a file that is too long
            try:
                file = os.open(files[index], os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
                try:
                    size = os.readv(file, [rows[index * RESULT_BYTES : (index + 1) * RESULT_BYTES], beyond])
                finally:
                    os.close(file)
            except OSError as error:
                raise InputError(
                    f"can't read the result of sample {index} ({name}), {files[index]} in {result_dir} "
                    f"({error.strerror}): infer again"
                ) from error
            if size != RESULT_BYTES:
                raise InputError(
                    f"the result of sample {index} ({name}) in {result_dir} isn't {RESULT_BYTES} bytes, which "
                    f"{CLASSES} float32 logits are: infer again"
                )
    finally:
        os.close(folder)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(
            f"the result of sample {bad[0]} ({names[bad[0]]}) in {result_dir} holds NaN or infinity: infer again"
        )
    return logits


def _result_files(result_dir: PathLike) -> Dict[int, str]:
    """Sample index to file name."""
    files: Dict[int, str] = {}
    try:
        entries = [path.name for path in Path(result_dir).iterdir()]
    except OSError as error:
        raise InputError(f"can't read {result_dir} ({error.strerror}): give the folder of the results") from error
    for entry in entries:
        named = RESULT_NAME.fullmatch(entry)
        if named is None:
            continue
        index = int(named.group(1))
        if index in files:
            raise InputError(
                f"sample {index} has two results in {result_dir}, {files[index]} and {entry}: infer again into an "
                "empty folder"
            )
        files[index] = entry
    return files


def main(argv: Optional[List[str]] = None) -> None:
    """Print the Top-1 and Top-5 accuracy of inference results."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.score", description=main.__doc__)
    parser.add_argument("--result_dir", required=True, type=Path, help="folder of <sample>_<output>.bin")
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    options = parser.parse_args(argv)
    names, labels = load_labels(options.label_path)
    logits = read_results(options.result_dir, names)
    for k in (1, 5):
        print(f"Top {k}: {100 * top_k_hits(logits, labels, k) / len(labels):.2f}%")


if __name__ == "__main__":
    run_main(main)
