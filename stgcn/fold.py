"""The samples' logits from those of their rows (docs/own-model.md):

    python -m stgcn.fold --index persons.json --rows rows.npy --outputs logits.npy [--model NAME]

The rows of a clip of ST-GCN are its persons, whose mean is taken: the classifier is linear. mmaction2's are clips of a
sample, whose softmax is averaged (`average_clips='prob'`).
"""

from __future__ import annotations

from typing import List, Optional

import numpy as np

from stgcn import npy, plain_json
from stgcn.accuracy import mean_softmax
from stgcn.cards import card_of, program
from stgcn.errors import InputError, run_main


def fold(logits: np.ndarray, rows: np.ndarray, softmax: bool = False) -> np.ndarray:
    """float32 (samples, classes) from (rows, classes); `rows` is (samples, rows per sample)."""
    if softmax:
        return mean_softmax(logits[rows])
    mean: np.ndarray = logits[rows].mean(axis=1, dtype=np.float32)
    return mean


def main(argv: Optional[List[str]] = None) -> None:
    """Fold the rows' logits to the samples'."""
    parser = program("fold", main.__doc__)
    parser.add_argument("--index", required=True, help="dataset.json or persons.json of stgcn.index")
    parser.add_argument("--samples", type=int, help="fold the first so many (default: all)")
    parser.add_argument("--rows", required=True, help=".npy of the rows' logits")
    parser.add_argument("--outputs", required=True, help=".npy to write")
    options = parser.parse_args(argv)
    softmax = card_of(options.model).rows_per_sample > 1
    try:
        logits, content = npy.load(options.rows), plain_json.load(options.index)
        rows = content["rows"] or [[i] for i in range(content["samples"])]
        folded = fold(logits, np.array(rows[: options.samples]), softmax)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"can't fold {options.rows} by {options.index} ({error}): make them again") from error
    npy.save(options.outputs, folded)


if __name__ == "__main__":
    run_main(main)
