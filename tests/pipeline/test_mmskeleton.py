"""Export through mmskeleton as well, and what happens when the two networks are not one.

mmskeleton itself is in the GPU image (tests/system/test_images.py); here a package of its name stands in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.inventory import ROOT

STAND_IN = """
import torch
from stgcn.model import ST_GCN_18 as Network

class ST_GCN_18(Network):
    def __init__(self, in_channels, num_class, graph_cfg):
        assert (in_channels, num_class) == (3, 400)
        assert graph_cfg == {"layout": "openpose", "strategy": "spatial"}
        super().__init__()

    def forward(self, clips):
        return super().forward(clips) + SHIFT
"""


def python(*arguments: str, mmskeleton: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder) for folder in (ROOT, mmskeleton) if folder)
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stand_in(folder: Path, shift: float) -> Path:
    package = folder / "mmskeleton/models/backbones"
    package.mkdir(parents=True)
    (package / "st_gcn_aaai18.py").write_text(STAND_IN.replace("SHIFT", str(shift)))
    return folder


@pytest.mark.full
@pytest.mark.parametrize(("shift", "agrees"), [(5e-6, True), (1e-3, False)])
def test_networks_that_differ_by_more_than_the_tolerance_do_not_go_on(
    sample: Path, tmp_path: Path, shift: float, agrees: bool
) -> None:
    ours, theirs, report = (tmp_path / name for name in ("ours.onnx", "theirs.onnx", "agreement.json"))
    weights = ["--ckpt", str(sample / "st_gcn.sample.pth")]
    assert python("stgcn.export", *weights, "--onnx", str(ours)).returncode == 0
    there = stand_in(tmp_path / "packages", shift)
    exported = python("stgcn.export", *weights, "--onnx", str(theirs), "--source", "mmskeleton", mmskeleton=there)
    assert exported.returncode == 0, exported.stdout
    done = python("stgcn.agree", "--onnx", str(ours), "--other", str(theirs), "--output", str(report))
    if agrees:
        assert done.returncode == 0, done.stdout
        assert json.loads(report.read_text())["max_abs_error"] == pytest.approx(shift, abs=3e-6)
    else:
        assert (done.returncode, report.exists()) == (1, False)
        assert "aren't the same network" in done.stdout


@pytest.mark.full
def test_without_mmskeleton_the_export_says_where_it_is(sample: Path, tmp_path: Path) -> None:
    weights = ["--ckpt", str(sample / "st_gcn.sample.pth"), "--onnx", str(tmp_path / "x.onnx")]
    done = python("stgcn.export", *weights, "--source", "mmskeleton")
    assert done.returncode == 1
    assert "error: --source mmskeleton needs mmskeleton" in done.stdout
    assert list(tmp_path.iterdir()) == []
    done = python("stgcn.export", *weights, "--source", "mmskeleton", "--variant", "fused")
    assert "--variant fused is of stgcn's own network" in done.stdout


@pytest.mark.parametrize("content", [b"", b"not an onnx"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    paths = ["--onnx", str(tmp_path / "a.onnx"), "--other", str(tmp_path / "none.onnx")]
    done = python("stgcn.agree", *paths, "--output", str(tmp_path / "out.json"))
    assert done.returncode == 1
    assert "a.onnx isn't an ONNX model (" in done.stdout
    assert "Traceback" not in done.stdout
