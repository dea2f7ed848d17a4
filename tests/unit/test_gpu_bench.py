"""What is known of a GPU's idleness where nvidia-smi tells nothing of it, and what a figure's device may be called."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.evidence import gpu_figure
from deploy.stages import gpu_bench


@pytest.mark.parametrize(("kind", "warned"), [("rocm", True), ("cuda", True), ("cpu", False)])
def test_without_nvidia_smi_idleness_is_not_known(tmp_path: Path, kind: str, warned: bool, capsys: Any) -> None:
    path = tmp_path / "benchmark.json"
    connections: Any = SimpleNamespace(
        options=SimpleNamespace(force=False),
        gpu=SimpleNamespace(host=SimpleNamespace(name="gpu")),
        inventory=SimpleNamespace(benchmark=SimpleNamespace(idle_timeout_s=1)),
        workspace=SimpleNamespace(artefact=lambda _: path),
    )
    with gpu_bench._idle(connections, has_gpu=False) as facts:
        path.write_text(json.dumps({"device": {"kind": kind}}))
    assert json.loads(path.read_text())["idle"] is facts["idle"] is None
    assert ("idle is not known" in capsys.readouterr().out) is warned


@pytest.mark.parametrize(
    ("kind", "name", "recorded", "follows"),
    [
        ("cuda", "Tesla T4", "Tesla T4, driver 535.1", True),
        ("cuda", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB, driver 535.1", True),
        ("cuda", "Tesla T4", "Tesla V100, driver 535.1", False),
        ("cuda", "Tesla T4", "cpu", False),
        ("rocm", "AMD Instinct MI210", gpu_figure.NOT_TOLD, True),
        ("cpu", "Xeon, 2 threads", "Tesla T4, driver 535.1", True),
    ],
)
def test_the_device_is_that_of_the_record(tmp_path: Path, kind: str, name: str, recorded: str, follows: bool) -> None:
    path = tmp_path / "benchmark.json"
    figure = {"device": {"kind": kind, "name": name}, "batches": [], "idle": None, "host": "gpu"}
    path.write_text(json.dumps(figure))
    entry = {"inputs": {"device": recorded, "batch_sizes": []}, "facts": {"idle": None}, "host": "gpu"}
    if follows:
        gpu_figure.check(path, entry, 1)
    else:
        with pytest.raises(KitError, match=name):
            gpu_figure.check(path, entry, 1)
