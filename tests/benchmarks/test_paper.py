"""What a graph computes and moves, counted by hand; and that docs/performance.md says what the graphs say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import paper
from benchmarks.figures import with_table
from benchmarks.preprocess import straightness
from deploy.evidence.costs import Cost


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One block on 3 channels of 4 x 5: a constant product, a convolution to 7 channels, a matmul, a sum, the mean."""
    nodes = [
        helper.make_node("Transpose", ["input1"], ["x"], perm=[0, 1, 2, 3]),
        helper.make_node("Mul", ["a", "a"], ["aa"]),
        helper.make_node("Conv", ["x", "spatial.0.mix", "bias"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("MatMul", ["z", "aa"], ["w"]),
        helper.make_node("Add", ["w", "z"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["output1"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input1", TensorProto.FLOAT, ["batch", 3, 4, 5])],
        [helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", 7])],
        [weight("a", 5, 5), weight("spatial.0.mix", 7, 3, 1, 1), weight("bias", 7)],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path


def test_costs_counted_by_hand(small: Path) -> None:
    convolution = Cost(2 * 7 * 20 * 3, 2 * (60 + 21 + 7 + 140))
    product = Cost(2 * 140 * 5, 2 * (140 + 25 + 140))
    assert paper.layers(small) == {
        "input": Cost(0, 2 * (60 + 60)),
        "1": convolution + product + Cost(0, 2 * 140),
        "head": Cost(0, 2 * (140 + 7)),
    }


@pytest.mark.parametrize(
    ("cost", "at_most"), [(Cost(70e9, 1.0), 1000.0), (Cost(1.0, 2048e6), 100.0), (Cost(70e9, 2048e6), 100.0)]
)
def test_the_slower_of_computing_and_moving_is_the_limit(cost: Cost, at_most: float) -> None:
    assert 1 / max(cost.at_least_s(paper.LIMITS)) == pytest.approx(at_most)


def test_layers_of_forms_stand_side_by_side() -> None:
    forms = {"a": {"input": Cost(0, 1e6), "2": Cost(1e9, 0), "10": Cost(), "head": Cost()}, "b": {"1": Cost(2e9, 3e6)}}
    rows = paper.table(forms).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:7]] == ["| input", "| block 1", "| block 2", "| block 10", "| head"]
    assert rows[3] == "| block 1 | 0.00 / 0.0 | 2.00 / 3.0 |"
    assert rows[7] == "| **all** | **1.00 / 1.0** | **2.00 / 3.0** |"


@pytest.mark.full
def test_the_document_says_what_the_graphs_say(tmp_path: Path) -> None:
    text = paper.DOCUMENT.read_text(encoding="utf-8")
    assert text == with_table(text, paper.made_table(tmp_path))


@pytest.mark.parametrize(("seconds", "straight"), [([1.0, 2.0, 4.0], True), ([1.0, 2.0, 9.0], False)])
def test_a_line_is_told_from_a_curve(seconds: list[float], straight: bool) -> None:
    assert (straightness((100, 200, 400), seconds) > 0.99) == straight
