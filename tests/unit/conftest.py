"""Workspaces of made-up numbers, finished once and copied where a test damages them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.workspace import Workspace
from tests.unit import made_up


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with its verdict: passed, no sample flipped. Not to be changed."""
    workspace = made_up.make(tmp_path_factory.mktemp("scored"))
    made_up.score(workspace)
    return workspace


@pytest.fixture
def workspace(scored: Workspace, tmp_path: Path) -> Workspace:
    """The same, to be damaged."""
    return made_up.copy(scored, tmp_path)
