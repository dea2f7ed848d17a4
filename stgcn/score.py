"""Top-1 and Top-5 of a folder of results:

    python -m stgcn.score --result_dir st_gcn_bs1_out --label_path val_label.pkl

Results are `<row>_<output>.bin`, float32 logits, 400 each of st_gcn.kinetics; any other file in the folder is left
alone. Where a model (`--model`) has several rows per sample, a sample's score is the mean of their softmax.
"""

from __future__ import annotations

import os
from typing import List, Optional

from stgcn.cards import card_of, program
from stgcn.errors import InputError, run_main
from stgcn.results import read_ahead

KS = (1, 5)


def main(argv: Optional[List[str]] = None) -> None:
    """Print the Top-1 and Top-5 accuracy of inference results."""
    parser = program("score", main.__doc__)
    parser.add_argument("--result_dir", required=True, help="folder of <row>_<output>.bin")
    parser.add_argument("--label_path", required=True, help="val_label.pkl, or mmaction2's annotations")
    options = parser.parse_args(argv)
    card = card_of(options.model)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # idle ones spin, and the reader needs their core
    with read_ahead(options.result_dir, card.classes) as read:
        import numpy as np  # which takes about as long to start as all files to be read

        from stgcn.accuracy import mean_softmax, top_k_hits
        from stgcn.sources import labels_of

        names, labels = labels_of(options.label_path, card)
        rows = card.rows_per_sample
        names = [name for name in names for _ in range(rows)] if rows > 1 else names
        logits = np.frombuffer(read(names), "<f4").reshape(len(names), card.classes)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(
            f"the result of sample {bad[0]} ({names[bad[0]]}) in {options.result_dir} holds NaN or infinity: "
            "infer again"
        )
    if rows > 1:
        logits = mean_softmax(logits.reshape(-1, rows, card.classes))
    for k, hits in top_k_hits(logits, labels, KS).items():
        print(f"Top {k}: {100 * hits / len(labels):.2f}%")


if __name__ == "__main__":
    run_main(main)
