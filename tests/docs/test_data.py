"""docs/data.md against the models' cards."""

from __future__ import annotations

import pytest

from deploy.inventory import ROOT
from stgcn.cards import CARDS, Card


@pytest.mark.parametrize("card", CARDS.values(), ids=lambda card: card.name)
def test_the_document_names_the_places_that_doctor_does(card: Card) -> None:
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert card.published.data_url in text
    assert f"({card.published.checkpoint_url})" in text
    assert card.published.sha256 in card.published.checkpoint_url
