"""The ONNX that is handed on. Exports run as programs: torch 1.2 and onnx don't share a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
import torch

from stgcn.blocks import add_block_outputs
from stgcn.dataset import CLASSES, CLIP_SHAPE
from stgcn.errors import InputError
from stgcn.fold import fold
from stgcn.index import write_index
from stgcn.model import ST_GCN_18
from tests.stgcn.conftest import random_clips, write_labels

onnx = pytest.importorskip("onnx")
numpy_helper = pytest.importorskip("onnx.numpy_helper")
onnxruntime = pytest.importorskip("onnxruntime")

from stgcn import export, onnx_model  # noqa: E402

LEGACY_TORCH = torch.__version__.startswith("1.2.")


def run_export(checkpoint: Path, path: Path, *options: str, python_path: str = "") -> Any:
    command = [sys.executable, "-m", "stgcn.export", "--ckpt", str(checkpoint), "--onnx", str(path), *options]
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": python_path, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((variant, persons), id=f"{variant}-{persons}", marks=[] if quick else pytest.mark.full)
        for variant, persons, quick in [
            ("reference", "both", False),  # as in the whole job
            ("reference", "nonempty", False),
            ("fused", "both", False),
            ("fused", "nonempty", True),
            ("winograd", "both", False),
            ("winograd", "nonempty", False),
        ]
    ],
)
def exported(request: Any, checkpoint: Path, tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("onnx") / "st_gcn.onnx"
    variant, persons = request.param
    ended = run_export(checkpoint, path, "--variant", variant, "--persons", persons)
    assert ended.returncode == 0, ended.stderr
    assert list(path.parent.iterdir()) == [path]
    return variant, path, ended.stdout


def test_the_checklist_is_printed(exported: Any) -> None:
    lines = exported[2].splitlines()
    assert len(lines) == 8
    assert all(line.startswith("✓ ") for line in lines)


def test_the_graph_is_what_cann_takes(exported: Any) -> None:
    variant, path, _ = exported
    model = onnx.load(str(path))
    assert [value.name for value in model.graph.input] == ["input1"]
    assert [value.name for value in model.graph.output] == ["output1"]
    assert 9 <= model.opset_import[0].version <= 13
    operators: List[str] = [node.op_type for node in model.graph.node]
    assert not {"Einsum", "Constant"} & set(operators)
    if variant != "reference":
        assert len(operators) <= 90
        assert operators.count("Transpose") == 1
        assert not {"Shape", "Gather", "BatchNormalization"} & set(operators)
    if sys.version_info >= (3, 8):  # blocks are found on the control side: the guide's onnx crashes as it infers shapes
        assert len(set(add_block_outputs(model))) == 10


def test_it_gives_torchs_logits(exported: Any, model: ST_GCN_18, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported[1]), providers=["CPUExecutionProvider"])
    clips = random_clips(5)
    for clip, empty in enumerate([[], [1], [0], [0, 1]]):
        clips[clip][..., empty] = 0
    with torch.no_grad():
        wanted = model(torch.from_numpy(clips)).numpy()
    single = session.get_inputs()[0].shape[-1] == 1
    logits = _by_persons(session, clips, tmp_path) if single else session.run(["output1"], {"input1": clips})[0]
    assert np.abs(logits - wanted).max() < 1e-5
    best, expected = (np.argsort(-values, axis=1, kind="stable")[:, :5] for values in (logits, wanted))
    assert (best == expected).all()


def _by_persons(session: Any, clips: np.ndarray, folder: Path) -> np.ndarray:
    """The clips' logits from those of the persons whom the index finds in them."""
    np.save(str(folder / "val_data.npy"), clips)
    write_index(folder / "val_data.npy", write_labels(folder / "val_label.pkl", [0] * len(clips)), folder)
    persons = json.loads((folder / "persons.json").read_text())
    places = persons["inputs"][0]["places"]
    assert len(places) == 2 * len(clips) - 3  # of four who are empty, one is a row
    rows = np.stack([clips[clip][..., [person]] for clip, person in places])
    return fold(session.run(["output1"], {"input1": rows})[0], np.array(persons["rows"]))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--opset", "8"], r"--opset 8 is outside 9\.\.13"),
        (["--opset", "14"], r"--opset 14 is outside 9\.\.13"),
        (["--ckpt", "/missing.pth"], r"can't read /missing\.pth"),
        (["--onnx", "/dev/null/x.onnx"], r"can't write /dev/null/x\.onnx"),
    ],
)
def test_a_bad_option_is_told(checkpoint: Path, tmp_path: Path, options: List[str], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        export.main(["--ckpt", str(checkpoint), "--onnx", str(tmp_path / "x.onnx"), *options])
    assert not list(tmp_path.iterdir())


if LEGACY_TORCH:

    def test_an_opset_beyond_torch_is_told(checkpoint: Path, tmp_path: Path) -> None:
        ended = run_export(checkpoint, tmp_path / "x.onnx", "--opset", "11")
        assert "--opset 11 is beyond torch 1.2" in ended.stderr


@pytest.mark.full
def test_a_model_that_cannot_be_checked_is_not_handed_on(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "onnxruntime.py").write_text("raise ImportError('no onnxruntime here')")
    ended = run_export(checkpoint, tmp_path / "new" / "x.onnx", python_path=str(tmp_path / "modules"))
    assert ended.returncode == 1
    assert "error: the check needs onnx and onnxruntime (no onnxruntime here): install them" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.skipif(LEGACY_TORCH, reason="torch 1.2 and the checker of onnx crash in one process")
class TestCheck:
    """The checklist, on a network that is quickly run: every logit is the clip's mean plus its class."""

    def network(self, opset: int = 11, batch: Any = "batch", output: str = "output1") -> Any:
        helper = onnx.helper
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["input1"], ["flat"]),
                helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1]),
                helper.make_node("Add", ["mean", "classes"], [output]),
            ],
            "mean",
            [helper.make_tensor_value_info("input1", onnx.TensorProto.FLOAT, [batch, *CLIP_SHAPE])],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [batch, CLASSES])],
            [numpy_helper.from_array(np.arange(CLASSES, dtype=np.float32)[None], "classes")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 4
        return model

    def expected(self) -> Dict[str, np.ndarray]:
        arrays = {}
        for batch_size in onnx_model.CHECKED_BATCH_SIZES:
            clips = random_clips(batch_size, seed=batch_size)
            arrays[f"input1_{batch_size}"] = clips
            mean = clips.reshape(batch_size, -1).mean(axis=1, dtype=np.float64)[:, None]
            arrays[f"output1_{batch_size}"] = (mean + np.arange(CLASSES)).astype(np.float32)
        return arrays

    def test_a_right_one_passes(self, capsys: Any) -> None:
        onnx_model.check(self.network(), self.expected())
        assert capsys.readouterr().out.count("✓") == 8

    @pytest.mark.parametrize(
        ("change", "fault"),
        [({"opset": 8}, "opset 8"), ({"batch": 1}, "input1 \\(1, 3"), ({"output": "logits"}, "logits \\('batch', 400")],
    )
    def test_another_interface_fails(self, change: Dict[str, Any], fault: str, capsys: Any) -> None:
        with pytest.raises(InputError, match=fault):
            onnx_model.check(self.network(**change), self.expected())
        assert capsys.readouterr().out.splitlines()[-1].startswith("✗ ")

    @pytest.mark.parametrize("value", [0.005, np.nan])
    def test_other_logits_fail(self, value: float, capsys: Any) -> None:
        expected = self.expected()
        expected["output1_3"][2, 0] += value
        with pytest.raises(InputError, match="batch size 3"):
            onnx_model.check(self.network(), expected)
        assert capsys.readouterr().out.splitlines()[-1].startswith("✗ ")

    def test_weights_become_constants(self) -> None:
        model = self.network()
        graph = model.graph
        graph.input.extend([onnx.helper.make_tensor_value_info("classes", onnx.TensorProto.FLOAT, [1, CLASSES])])
        graph.initializer.extend([numpy_helper.from_array(np.zeros(3, np.float32), "unused")])
        one = numpy_helper.from_array(np.float32([[0]]), "")
        graph.node.insert(0, onnx.helper.make_node("Constant", [], ["zero"], value=one))
        graph.node.insert(1, onnx.helper.make_node("Add", ["zero", "zero"], ["nothing"]))
        onnx_model.tidy(model)
        assert [value.name for value in graph.input] == ["input1"]
        assert sorted(weight.name for weight in graph.initializer) == ["classes", "zero"]
        assert [node.op_type for node in graph.node] == ["Add", "Flatten", "ReduceMean", "Add"]
        onnx_model.check(model, self.expected())
