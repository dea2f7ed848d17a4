"""Top-k accuracy, against a sort."""

from __future__ import annotations

import numpy as np
import pytest

from stgcn.accuracy import top_k_hits


def test_it_counts_as_sorting_does() -> None:
    random = np.random.RandomState(1)
    logits = random.normal(size=(300, 400)).astype(np.float32).round(1)  # with ties
    labels = random.randint(400, size=300)
    logits[np.arange(300), labels] += 3
    ranked = np.argsort(-logits, axis=1, kind="stable")
    hits = {k: sum(label in row[:k] for row, label in zip(ranked, labels)) for k in (1, 2, 5, 400)}
    assert top_k_hits(logits, labels, (1, 2, 5, 400)) == hits
    assert 0 < hits[1] < hits[5] < hits[400] == 300


@pytest.mark.parametrize(
    ("label", "hits"), [(0, {1: 1, 5: 1}), (1, {1: 0, 5: 1}), (4, {1: 0, 5: 1}), (5, {1: 0, 5: 0})]
)
def test_of_equal_logits_the_lower_class_is_higher(label: int, hits: dict) -> None:
    assert top_k_hits(np.zeros((1, 400), np.float32), np.array([label]), (1, 5)) == hits
