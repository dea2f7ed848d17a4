"""Small ONNX networks with the shape of ST-GCN, for the simulator's tests."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLIP = (3, 300, 18, 2)
CLASSES = 400
PARTITIONS = 3


class Graph:
    """Nodes and weights under construction; `add` returns the name of the node's output."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, array: NDArray[Any]) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return self.weight((self.random.standard_normal(shape) * scale).astype(np.float32))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.weight(np.array(shape, np.int64)))

    def batch_norm(self, x: str, channels: int) -> str:
        scale = (1 + 0.1 * self.random.standard_normal(channels)).astype(np.float32)
        variance = (0.5 + self.random.random(channels)).astype(np.float32)
        return self.add(
            "BatchNormalization", x, self.weight(scale), self.normal(channels), self.normal(channels),
            self.weight(variance),
        )  # fmt: skip


def stgcn_like(channels: tuple[int, ...] = (4, 4, 8), strides: tuple[int, ...] | None = None, *,
               opset: int = 11, seed: int = 0, extra: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:  # fmt: skip
    """Blocks as in ST-GCN, without its first batch-norm: input1 (batch,3,300,18,2) -> output1 (batch,400)."""
    graph = Graph(seed)
    frames, joints, persons = CLIP[1:]
    x = graph.add("Transpose", "input1", perm=[0, 4, 1, 2, 3])
    x = graph.reshape(x, -1, CLIP[0], frames, joints)
    before = CLIP[0]
    for index, after in enumerate(channels):
        stride = strides[index] if strides else 1
        adjacency = (graph.random.random((joints, PARTITIONS * joints)) * (2 / joints)).astype(np.float32)
        y = graph.add("MatMul", x, graph.weight(adjacency))
        y = graph.reshape(y, 0, 0, -1, joints)
        y = graph.add("Conv", y, graph.normal(after, before, PARTITIONS, 1), graph.normal(after),
                      kernel_shape=[PARTITIONS, 1], strides=[PARTITIONS, 1])  # fmt: skip
        y = graph.add("Relu", graph.batch_norm(y, after))
        y = graph.add("Conv", y, graph.normal(after, after, 9, 1), graph.normal(after),
                      kernel_shape=[9, 1], pads=[4, 0, 4, 0], strides=[stride, 1])  # fmt: skip
        y = graph.batch_norm(y, after)
        if index:
            if after != before or stride != 1:
                x = graph.batch_norm(
                    graph.add("Conv", x, graph.normal(after, before, 1, 1), kernel_shape=[1, 1], strides=[stride, 1]),
                    after,
                )
            y = graph.add("Add", y, x)
        x = graph.add("Relu", y)
        before = after
    x = graph.add("GlobalAveragePool", x)
    x = graph.add("ReduceMean", graph.reshape(x, -1, persons, before), axes=[1], keepdims=0)
    graph.nodes.append(helper.make_node("Gemm", [x, graph.normal(before, CLASSES), graph.normal(CLASSES)], ["output1"],
                                        name="fcn"))  # fmt: skip
    model = helper.make_model(
        helper.make_graph(
            [*graph.nodes, *extra],
            "stgcn-like",
            [helper.make_tensor_value_info("input1", TensorProto.FLOAT, ["batch", *CLIP])],
            [helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", CLASSES])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=6,
    )
    onnx.checker.check_model(model)
    return model
