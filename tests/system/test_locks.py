"""Every lock of what runs on both machines has its wheels for both: asked of the index, nothing is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.inventory import ROOT

LOCKS = [
    ("docker/npu/cann.lock", "3.7"),
    ("docker/npu/cann.lock", "3.9"),
    ("docker/npu/cann.lock", "3.11"),
    ("docker/npu/cann.lock", "3.13"),
    ("docker/npu/simulator.lock", "3.11"),
    ("requirements/kit.lock", "3.10"),
    ("requirements/ray.lock", "3.11"),
]


def resolve(lock: str, python: str, machine: str, target: Path) -> subprocess.CompletedProcess[str]:
    uv = str(Path(sys.executable).with_name("uv"))
    argv = [uv, "pip", "install", "--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    argv += ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_28", "--target", str(target)]
    return subprocess.run([*argv, "--requirements", str(ROOT / lock)], capture_output=True, text=True)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("lock", "python"), LOCKS)
def test_a_lock_has_wheels_for_both_machines(lock: str, python: str, machine: str, tmp_path: Path) -> None:
    done = resolve(lock, python, machine, tmp_path / "target")
    assert done.returncode == 0, done.stderr


def test_the_legacy_image_has_none_for_aarch64(tmp_path: Path) -> None:
    done = resolve("docker/gpu/torch.lock", "3.7", "aarch64", tmp_path / "target")
    assert done.returncode != 0
    assert "torch" in done.stderr
