"""The network of each model."""

from __future__ import annotations

from typing import Any, Callable, Dict

from stgcn import mmaction
from stgcn.cards import Card
from stgcn.model import ST_GCN_18

# Each takes rows (n, *card.row_shape) and gives logits (n, card.classes); `features` gives what its classifier sees,
# and `persons` is how many a row has.
NETWORKS: Dict[str, Callable[[Card], Any]] = {
    "st_gcn": ST_GCN_18,
    "mmaction.stgcn": mmaction.stgcn,
    "mmaction.stgcnpp": mmaction.stgcnpp,
}


def network(card: Card) -> Any:
    """A model's network, with weights that are not trained."""
    return NETWORKS[card.network](card)
