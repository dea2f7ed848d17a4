"""`fab npu-precision`, block by block: blocks are found by their shape in the graph, and judged in order."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.stages.locate import located, nearness
from stgcn.blocks import add_block_outputs
from stgcn.errors import InputError


def network(count: int = 10, layout: str = "tv") -> onnx.ModelProto:
    """`count` blocks of a 9x1 convolution, an Add and a ReLU, each behind a 1x1 one with a ReLU of its own."""
    kernel, pads = ([9, 1], [4, 0, 4, 0]) if layout == "tv" else ([1, 9], [0, 4, 0, 4])
    nodes, weights, x = [], [], "input1"
    for i in range(count):
        weights += [
            helper.make_tensor(f"w{i}", TensorProto.FLOAT, [2, 2, *kernel], np.full(36, 0.1).tolist()),
            helper.make_tensor(f"p{i}", TensorProto.FLOAT, [2, 2, 1, 1], [1.0, 0.5, 0.5, 1.0]),
        ]
        nodes += [
            helper.make_node("Conv", [x, f"p{i}"], [f"a{i}"], kernel_shape=[1, 1]),
            helper.make_node("Relu", [f"a{i}"], [f"b{i}"]),
            helper.make_node("Conv", [f"b{i}", f"w{i}"], [f"c{i}"], kernel_shape=kernel, pads=pads),
            helper.make_node("Add", [f"c{i}", x], [f"d{i}"]),
            helper.make_node("Relu", [f"d{i}"], [f"out{i}"]),
        ]
        x = f"out{i}"
    nodes.append(helper.make_node("ReduceMean", [x], ["output1"], axes=[2, 3], keepdims=0))
    shape = ["batch", 2, 12, 12]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("input1", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


@pytest.mark.parametrize("layout", ["tv", "vt"])
def test_the_ten_blocks_become_outputs(layout: str) -> None:
    model = network(layout=layout)
    assert add_block_outputs(model) == [f"out{i}" for i in range(10)]
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.output] == ["output1", *(f"out{i}" for i in range(10))]


def test_a_graph_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="9 blocks"):
        add_block_outputs(network(9))


def test_nearness_is_that_of_the_worst_sample() -> None:
    fp32 = {"1": np.array([[3.0, 4.0], [0.0, 1.0]])}
    device = {"1": np.array([[3.0, 4.5], [0.0, 1.0]])}
    (near,) = nearness(["1"], device, fp32)
    assert (near["relative_error"], near["max_abs_err"]) == (pytest.approx(0.1), 0.5)
    assert near["cosine_min"] == pytest.approx((9 + 18) / (5 * np.hypot(3, 4.5)))


def errors(first_bad: int | None, bad: float = 0.5) -> list[dict[str, Any]]:
    names = [*(str(i) for i in range(1, 11)), "logits"]
    sizes = [bad if first_bad is not None and i >= first_bad else 0.001 for i in range(1, 12)]
    return [
        {"block": name, "relative_error": size, "cosine_min": 1.0, "max_abs_err": size}
        for name, size in zip(names, sizes, strict=True)
    ]


@pytest.mark.parametrize(
    ("ours", "other", "first", "conclusion"),
    [
        (errors(None), errors(None), None, "no block is past the tolerance of 0.02"),
        (errors(7), errors(None), "7", "block 7 is the first .* 0.5 would have passed; with wide none is"),
        (errors(7), errors(7), "7", "block 7 .* does not change it, so it is not a matter of fp16"),
        (errors(7), errors(9), "7", "block 7 .* moves it to 9"),
        (errors(11), errors(None), "logits", "what follows the last block is the first"),
        (errors(7), "atc refuses", "7", "wide was refused: atc refuses"),
        (errors(3, float("nan")), errors(None), "3", "block 3 is the first .* it is not finite; with wide none is"),
    ],
)
def test_the_first_block_past_the_tolerance_is_named(ours: Any, other: Any, first: Any, conclusion: str) -> None:
    found = located({"half": ours, "wide": other}, ["half", "wide"], [0, 1], 4)
    assert found["modes"]["half"]["first_past"] == first
    json.dumps(found, allow_nan=False)
    assert re.search(conclusion, found["conclusion"])
