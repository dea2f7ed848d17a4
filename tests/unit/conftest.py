"""Workspaces of made-up numbers, finished once and copied where a test damages them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.context import Context
from deploy.stages import score
from tests.unit import made_up


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A workspace with its verdict: passed, no sample flipped. Not to be changed."""
    context = made_up.make(tmp_path_factory.mktemp("scored"))
    score.run(context)
    return context


@pytest.fixture
def workspace(scored: Context, tmp_path: Path) -> Context:
    """The same, to be damaged."""
    return made_up.copy(scored, tmp_path)
