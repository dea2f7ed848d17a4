"""The whole job on this machine, as an operator runs it: `fab` in a process of its own, simulated NPU host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.inventory import ROOT
from tests.once import made_once
from tests.pipeline.browser import Browser

SAMPLES = 9  # not a multiple of any batch size but 1
FAB = Path(sys.executable).with_name("fab")


class Job:
    """An inventory of its own in a folder of its own."""

    def __init__(self, folder: Path, sample: Path, **changes: Any) -> None:
        self.folder = folder
        self.workspace = folder / "work"
        self.inventory: dict[str, Any] = yaml.safe_load((ROOT / "inventory.demo.yaml").read_text())
        self.inventory |= {
            "workspace": str(self.workspace),
            "dataset": {"data": str(sample / "val_data.npy"), "labels": str(sample / "val_label.pkl")},
            "checkpoint": str(sample / "st_gcn.sample.pth"),
            "benchmark": {"loop": 1, "max_repeats": 2, "idle_timeout_s": 4},
            **changes,
        }
        self.npu: dict[str, Any] = self.inventory["npu"][0]
        self.npu["workspace"] = str(folder / "npu-host")

    def fab(self, *tasks: str, status: int = 0, **environment: str) -> str:
        """Run tasks; their output, once the exit status is the expected one."""
        path = self.folder / "inventory.yaml"
        path.write_text(yaml.safe_dump(self.inventory))
        done = subprocess.run(
            [str(FAB), *tasks],
            cwd=ROOT,
            env={**os.environ, "INVENTORY": str(path), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert done.returncode == status, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(scope="session")
def sample(request: pytest.FixtureRequest) -> Path:
    def make(folder: Path) -> None:
        argv = [sys.executable, "-m", "stgcn.sample", "--output_dir", str(folder), "--samples", str(SAMPLES)]
        subprocess.run([*argv, "--classes", "10"], cwd=ROOT, check=True, timeout=600)

    return made_once(request, "sample", make)[0]


@pytest.fixture(scope="session")
def finished(request: pytest.FixtureRequest, sample: Path) -> tuple[Job, str]:
    """A job that ran to its verdict, and what it printed; never changed: take a copy."""
    whole = ("gpu-stage", "npu-convert", "npu-bench", "score")
    folder, printed = made_once(request, "finished", lambda folder: Job(folder, sample).fab(*whole))
    return Job(folder, sample), printed


@pytest.fixture
def copy(finished: tuple[Job, str], sample: Path, tmp_path: Path) -> Job:
    """A finished job that a test may damage; its sample is its own too."""
    shutil.copytree(finished[0].folder, tmp_path / "job", copy_function=shutil.copy2)
    shutil.copytree(sample, tmp_path / "sample", copy_function=shutil.copy2)
    return Job(tmp_path / "job", tmp_path / "sample")


@pytest.fixture
def make_job(sample: Path, tmp_path: Path) -> Callable[..., Job]:
    """A job that has not run, with changes to its inventory."""
    return lambda **changes: Job(tmp_path, sample, **changes)
