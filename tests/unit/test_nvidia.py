"""What nvidia-smi prints of GPUs, and which of them is idle."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import nvidia
from deploy.hosts.local import LocalHost

TWO = """\
0, GPU-aa, Tesla V100-SXM2-32GB, 0, 4, 32510, 470.82.01
1, GPU-bb, Tesla V100-SXM2-32GB, 87, 20110, 32510, 470.82.01
"""


def test_a_program_or_use_makes_a_gpu_busy() -> None:
    idle, busy = nvidia.parse(TWO, "GPU-bb, 4711, /usr/bin/python3\n")
    assert (idle.index, idle.name, idle.memory_total_mb, idle.driver, idle.busy) == (
        *(0, "Tesla V100-SXM2-32GB", 32510, "470.82.01"),
        None,
    )
    assert busy.busy == "/usr/bin/python3 (pid 4711), 87 % in use"


@pytest.mark.parametrize(
    ("told", "programs", "busy"),
    [
        ("0, GPU-a, NVIDIA H200 MIG, [N/A], [N/A], [N/A], 550.54", "", None),  # a partitioned one tells no use
        ("0, GPU-a, NVIDIA T4, [Not Supported], 4, 15360, 550.54", "GPU-a, [N/A], [N/A]", None),
        ("0, GPU-a, NVIDIA T4, [Not Supported], 4, 15360, 550.54", "GPU-a, 7, [Not Found]", "[Not Found] (pid 7)"),
        ("0, GPU-a, NVIDIA T4, 0, 4, 15360, 550.54", "GPU-a, 7, a, b", "a, b (pid 7)"),
        ("0, GPU-a, NVIDIA T4, 1, 4, 15360, 550.54", 'GPU-a, 7, "a, b"', "a, b (pid 7)"),
    ],
)
def test_what_is_not_told_is_not_guessed(told: str, programs: str, busy: str | None) -> None:
    (gpu,) = nvidia.parse(told, programs)
    assert gpu.busy == busy


def test_a_host_without_a_gpu_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = LocalHost("here", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.gpus(host) == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert nvidia.gpus(host) == []
