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
        ("0, GPU-a, NVIDIA A100, [N/A], 3000, 40536, 535.1", "MIG-5, 7, a", "a (pid 7)"),  # of a partition
        ("0, GPU-a, NVIDIA GB10, 0, [N/A], [N/A], 580.95", "", None),  # the memory is the host's
        ("0, GPU-a, NVIDIA T4, 0, 13000, 15360, 550.54", "", "13000 of 15360 MB of memory held"),  # in a container
        ("0, GPU-a, NVIDIA T4, 2, 612, 15360, 550.54", "", None),  # a desktop's
        ("0, GPU-a, NVIDIA T4, 1, 4, 15360, 550.54", 'GPU-a, 7, "a, b"', "a, b (pid 7)"),
    ],
)
def test_what_is_not_told_is_not_guessed(told: str, programs: str, busy: str | None) -> None:
    (gpu,) = nvidia.parse(told, programs)
    assert gpu.busy == busy


@pytest.mark.parametrize(
    ("visible", "index"),
    [(None, 0), ("1", 1), ("1,0", 1), ("GPU-b", 1), ("", None), ("-1", None), ("7", None), ("MIG-9", 0)],
)
def test_the_gpu_that_cuda_calls_0(visible: str | None, index: int | None) -> None:
    found = nvidia.first(nvidia.parse(TWO, ""), visible)
    assert (found and found.index) == index


MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize(
    ("told", "status", "warned"),
    [("No devices were found", 6, False), (MISMATCH, 18, True), ("it couldn't communicate with the driver", 9, True)],
)
def test_a_host_without_a_gpu_has_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: str,
    status: int,
    warned: bool,
) -> None:
    host = LocalHost("here", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.gpus(host) == []
    assert capsys.readouterr().out == ""
    (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\necho "{told}"\nexit {status}\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert nvidia.gpus(host) == []
    assert (told in " ".join(capsys.readouterr().out.split())) is warned
