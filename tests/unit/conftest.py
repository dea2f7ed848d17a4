"""Workspaces of made-up numbers, finished once and copied where a test damages them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.evidence import signature
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


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's key, a forger's, one with a passphrase, and the file of those who may sign."""
    folder = tmp_path_factory.mktemp("keys")
    for name, passphrase in (("operator", ""), ("forger", ""), ("locked", "open sesame")):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(folder / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    public = " ".join((folder / "operator.pub").read_text().split()[:2])
    (folder / "allowed_signers").write_text(f'operator@example.org namespaces="{signature.NAMESPACE}" {public}\n')
    return folder
