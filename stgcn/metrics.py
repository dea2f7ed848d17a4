"""Top-1 and Top-5 of sets of logits against the labels, for the kit's verdict (docs/own-model.md):

python -m stgcn.metrics --labels labels.npy --outputs reference.npy --outputs logits.npy --result scores.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from stgcn import npy
from stgcn.accuracy import top_k_hits
from stgcn.cards import card_of, program
from stgcn.errors import InputError, run_main
from stgcn.files import PathLike, write_whole

KS = (1, 5)


def score(logits: np.ndarray, labels: np.ndarray) -> Dict[str, Any]:
    """Hits and rates of (n, classes) logits against (n,) labels."""
    hits = top_k_hits(logits, labels, KS)
    counts = {f"top{k}": hits[k] for k in KS}
    return {"metrics": {key: count / len(labels) for key, count in counts.items()}, "counts": counts}


def _load(path: PathLike) -> np.ndarray:
    try:
        return npy.load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"can't read {path} ({error}): make it again") from error


def main(argv: Optional[List[str]] = None) -> None:
    """Score sets of logits."""
    parser = program("metrics", main.__doc__)
    parser.add_argument("--labels", required=True, help="labels.npy of stgcn.index")
    parser.add_argument("--samples", type=int, help="score the first so many (default: all)")
    parser.add_argument("--outputs", required=True, action="append", help=".npy of logits; again for another set")
    parser.add_argument("--result", required=True, type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    card_of(options.model)
    labels = _load(options.labels)[: options.samples]
    scores = []
    for path in options.outputs:
        logits = _load(path)[: len(labels)]
        if len(logits) != len(labels) or logits.ndim != 2:
            raise InputError(f"{path} holds {logits.shape} and there are {len(labels)} labels: make it again")
        scores.append(score(logits, labels))
    write_whole(options.result, json.dumps({"format": 1, "scores": scores}).encode())


if __name__ == "__main__":
    run_main(main)
