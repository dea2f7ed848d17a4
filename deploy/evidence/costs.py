"""What each node of an exported graph computes and moves, and what a chip could make of it at best.

A multiplication and an addition of a convolution or a matrix product are one FLOP each; other arithmetic is small
beside them. What moves is counted in float16: what each of these, each Transpose and each pooling reads (activations
and weights) and writes. The rest of the element-wise work rides on what makes its input, as converters fuse it, but
the second operand of a sum of two activations is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.precision.units import Unit, blocks_of, name_nodes

FLOAT16 = 2
MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
MOVING = MULTIPLYING | {"Transpose", "AveragePool", "GlobalAveragePool", "ReduceMean"}
AFTER = "head"  # the nodes behind the last block


@dataclass(frozen=True)
class Limits:
    """What a chip's maker publishes."""

    flops: float  # per second, in float16
    bandwidth: float  # bytes/s of its memory


# 310P3 as the Atlas 300I Pro carries it: 140 TOPS in int8, half of that in float16; 204.8 GB/s of LPDDR4X. Others are
# not here because their boards differ in clock and memory: a limit that is too high would call every block slow.
PUBLISHED: Mapping[str, Limits] = {"Ascend310P3": Limits(70e12, 204.8e9)}


@dataclass(frozen=True)
class Cost:
    """Of a batch of one sample."""

    flops: float = 0.0
    moved: float = 0.0  # bytes
    weights: float = field(default=0.0, compare=False)  # those bytes of them that are read once a batch

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.moved + other.moved, self.weights + other.weights)

    def of_batch(self, size: int) -> Cost:
        return Cost(self.flops * size, (self.moved - self.weights) * size + self.weights, self.weights)

    def at_least_s(self, limits: Limits) -> tuple[float, float]:
        """The seconds that computing and that moving take at the least; the two may overlap fully."""
        return self.flops / limits.flops, self.moved / limits.bandwidth


@dataclass(frozen=True)
class Node:
    """One node of the graph. A converter names one that has no name `<type>_<n>`, n counting those."""

    name: str
    kind: str  # ONNX's op_type
    outputs: tuple[str, ...]
    cost: Cost
    block: str = ""  # "" where the model tells no blocks


def nodes(model: Any, blocks: Mapping[str, str] | None = None) -> list[Node]:
    """The nodes of an ONNX `model`, without its constants, in its order.

    `blocks` are the names of the model's blocks, in order, each with the tensor that ends it (docs/own-model.md,
    `blocks`): a node is of the first block whose end it leads to.
    """
    shapes, weights = value_shapes(model), {weight.name for weight in model.graph.initializer}
    name_nodes(model)
    of_block = blocks_of([Unit(node.name, [node]) for node in model.graph.node], blocks or {})
    found = list[Node]()
    for node in model.graph.node:
        if set(node.input) <= weights:
            weights |= set(node.output)
            continue
        block = (of_block[node.name] or AFTER) if blocks else ""
        found.append(Node(node.name, node.op_type, tuple(node.output), cost(node, shapes, weights), block))
    return found


def cost(node: Any, shapes: Mapping[str, tuple[int, ...]], weights: set[str]) -> Cost:
    """Of one node at batch size 1."""
    sizes = {name: float(math.prod(shapes[name])) for name in (*node.input, *node.output) if name}
    out = sizes[node.output[0]]
    if node.op_type in MOVING:
        read = sum(sizes[name] for name in node.input if name)
        of_weights = sum(sizes[name] for name in node.input if name in weights)
        return Cost(2 * _products(node, shapes, sizes), FLOAT16 * (read + out), FLOAT16 * of_weights)
    if node.op_type == "Add" and not weights & set(node.input) and len(shapes[node.output[0]]) > 1:
        return Cost(0.0, FLOAT16 * out)
    return Cost()


def _products(node: Any, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, float]) -> float:
    if node.op_type in ("Conv", "ConvTranspose"):  # what each output sums, or what each input is spread over
        values = sizes[node.output[0]] if node.op_type == "Conv" else sizes[node.input[0]]
        return values * float(math.prod(shapes[node.input[1]][1:]))
    return sizes[node.output[0]] * shapes[node.input[0]][-1] if node.op_type in MULTIPLYING else 0.0


def value_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every value's shape at batch size 1, seen in a run: tracing leaves sizes in a graph that only a run knows."""
    import onnx
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        names = [name for name in node.output if name and name not in outputs]
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    feeds: dict[str, Any] = {
        value.name: np.zeros(
            [size.dim_value or 1 for size in value.type.tensor_type.shape.dim],
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in model.graph.input
        if value.name not in weights
    }
    values = session.run(None, feeds)
    shapes = {output.name: np.shape(value) for output, value in zip(session.get_outputs(), values, strict=True)}
    return shapes | {name: value.shape for name, value in feeds.items()} | weights
