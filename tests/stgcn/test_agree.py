"""Two exports compared, also where one is what somebody else made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch

from stgcn.dataset import CLASSES, CLIP_SHAPE

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = pytest.importorskip("onnx.helper")
numpy_helper = pytest.importorskip("onnx.numpy_helper")

pytestmark = pytest.mark.skipif(torch.__version__.startswith("1.2."), reason="torch 1.2 and onnx crash in one process")
FLOAT, BOOL = 1, 9
HANG_S = 120


def network(*nodes: Any, classes: Any = 0, **weights: Any) -> Any:
    """Every logit is the clip's mean plus its class; `nodes` come before, `weights` beside."""
    every = [
        *nodes,
        helper.make_node("ReduceMean", ["input1"], ["mean"], axes=[1, 2, 3, 4], keepdims=0),
        helper.make_node("Unsqueeze", ["mean"], ["column"], axes=[1]),
        helper.make_node("Add", ["column", "classes"], ["output1"]),
    ]
    arrays = {"classes": np.arange(CLASSES, dtype=np.float32) + np.float32(classes), **weights}
    graph = helper.make_graph(
        every,
        "mean",
        [helper.make_tensor_value_info("input1", FLOAT, ["batch", *CLIP_SHAPE])],
        [helper.make_tensor_value_info("output1", FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)


def with_ends(dims: Any, output: str = "output1") -> Any:
    model = network()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input1", FLOAT, dims))
    model.graph.output[0].name = model.graph.node[-1].output[0] = output
    return model


def endless() -> Any:
    state = helper.make_tensor_value_info("state", FLOAT, [1])
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("go", "state")],
        "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", BOOL, []), state],
        [helper.make_tensor_value_info("go_out", BOOL, []), helper.make_tensor_value_info("state_out", FLOAT, [1])],
    )
    loop = helper.make_node("Loop", ["times", "yes", "one"], ["never"], body=body)
    return network(loop, times=np.array(1 << 62), yes=np.array(True), one=np.ones(1, np.float32))


def huge() -> Any:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("Add", ["input1", "zeros"], ["unused"]),
    ]
    return network(*nodes, size=np.array([1 << 31, 1, 1, 1, 1]))


def agree(onnx_file: Path, other: Path, output: Path) -> Any:
    command = [sys.executable, "-m", "stgcn.agree", "--onnx", str(onnx_file), "--other", str(other)]
    return subprocess.run(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=HANG_S,
        check=False,
    )


def test_a_network_agrees_with_itself(tmp_path: Path) -> None:
    onnx.save(network(), str(tmp_path / "a.onnx"))
    assert agree(tmp_path / "a.onnx", tmp_path / "a.onnx", tmp_path / "out.json").returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())["max_abs_error"] == 0


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: network(classes=1), "aren't the same network"),
        (lambda: network(classes=np.nan), "finite logits per row"),
        (lambda: with_ends(["batch", "\x1b[2J"]), "takes and gives input1"),
        (lambda: with_ends(["batch", 1 << 40]), "takes and gives input1"),
        (lambda: with_ends([]), "takes and gives input1"),
        (lambda: with_ends(["batch", *CLIP_SHAPE], "logits"), "takes and gives input1"),
        (endless, "has a graph in its Loop"),
        (huge, "can't be run"),
    ],
)
def test_another_model_is_refused_by_name(make: Callable[[], Any], fault: str, tmp_path: Path) -> None:
    onnx.save(network(), str(tmp_path / "a.onnx"))
    onnx.save(make(), str(tmp_path / "bad.onnx"))
    for first, second in (("a.onnx", "bad.onnx"), ("bad.onnx", "bad.onnx")):
        if first == second and fault == "aren't the same network":
            continue
        done = agree(tmp_path / first, tmp_path / second, tmp_path / "out.json")
        assert done.returncode == 1
        assert fault in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr[:-1].isprintable(), done.stderr
        assert not (tmp_path / "out.json").exists()
