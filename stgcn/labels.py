"""The labels of a dataset alone, as stgcn.index writes them; `fab audit` makes them again with it:

python -m stgcn.labels --label_path val_label.pkl --output labels.npy
"""

from __future__ import annotations

import argparse
from typing import List, Optional

import numpy as np

from stgcn.cards import add_model_option, card_of
from stgcn.errors import run_main
from stgcn.files import atomic_write
from stgcn.sources import labels_of


def main(argv: Optional[List[str]] = None) -> None:
    """Write the labels of a dataset."""
    parser = argparse.ArgumentParser(prog="python -m stgcn.labels", description=main.__doc__)
    add_model_option(parser)
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    parser.add_argument("--output", required=True, help=".npy to write")
    options = parser.parse_args(argv)
    labels = labels_of(options.label_path, card_of(options.model)).labels
    with atomic_write(options.output) as file:
        np.save(file, labels)


if __name__ == "__main__":
    run_main(main)
