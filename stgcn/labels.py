"""The labels of a dataset alone, as stgcn.index writes them; `fab audit` makes them again with it:

python -m stgcn.labels --label_path val_label.pkl --output labels.npy
"""

from __future__ import annotations

from typing import List, Optional

from stgcn import npy
from stgcn.cards import card_of, program
from stgcn.errors import run_main
from stgcn.sources import labels_of


def main(argv: Optional[List[str]] = None) -> None:
    """Write the labels of a dataset."""
    parser = program("labels", main.__doc__)
    parser.add_argument("--label_path", required=True, help="val_label.pkl")
    parser.add_argument("--output", required=True, help=".npy to write")
    options = parser.parse_args(argv)
    labels = labels_of(options.label_path, card_of(options.model)).labels
    npy.save(options.output, labels)


if __name__ == "__main__":
    run_main(main)
