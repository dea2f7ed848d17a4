"""The network of the soak and of the bench's whole job: its ONNX gives its reference, as the kit asks of any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from deploy.inventory import ROOT
from deploy.pipeline.model import read_card
from stgcn import onnx_model
from stgcn.cards import INPUT, KINETICS, OUTPUT


def play(command: str, *options: str) -> None:
    argv = [sys.executable, "-m", "tests.robust.short_network", command, "--ckpt", "any.pth", *options]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=60)


def test_the_onnx_gives_the_reference(tmp_path: Path) -> None:
    clips = np.random.default_rng(0).normal(size=(65, *KINETICS.row_shape)).astype(np.float32)
    np.save(tmp_path / "val_data.npy", clips)
    play("export", "--onnx", f"{tmp_path}/short.onnx", "--card", f"{tmp_path}/model.json", "--variant", "reference")
    play("reference", "--data_path", f"{tmp_path}/val_data.npy", "--output", f"{tmp_path}/reference.npy")
    session = onnx_model.session(onnx_model.load(tmp_path / "short.onnx"))
    found = session.run([OUTPUT], {INPUT: clips})[0]
    np.testing.assert_allclose(np.load(tmp_path / "reference.npy"), found, rtol=1e-5, atol=1e-4)
    assert read_card(tmp_path / "model.json").name == KINETICS.name
