"""The ten blocks of ST-GCN in an exported graph, and how near two runs of them are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import KitError

BLOCKS = 10
_KERNEL = (1, 9)  # of the temporal convolution, of which each block has one; no other kernel is longer than 1


@dataclass(frozen=True)
class Nearness:
    """How near a device's output of one block is to fp32's, over all samples."""

    block: str  # "1" to "10", or "logits"
    relative_error: float  # |device - fp32| / |fp32|, Euclidean, of the worst sample
    cosine_min: float
    max_abs_err: float


def add_block_outputs(model: Any) -> list[str]:
    """Make the output of each block an output of the ONNX `model` too; their names, in the blocks' order.

    A block is found by its 9x1 convolution and ends at the next ReLU, in the reference graph and the fused one alike.

    Raises:
        KitError: there are not ten.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value for value in graph.value_info}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    names = [_end_of_block(node, users) for node in graph.node if _is_temporal(node)]
    if len(names) != BLOCKS or not all(names):
        raise KitError(
            f"the ONNX has {len(names)} blocks with a 9x1 convolution and a ReLU behind it, not {BLOCKS}; "
            "set `variant: reference` or `fused` in the inventory"
        )
    for name in names:
        model.graph.output.append(types.get(name) or onnx.helper.make_tensor_value_info(name, 1, None))
    return [str(name) for name in names]


def _is_temporal(node: Any) -> bool:
    kernel = next((tuple(a.ints) for a in node.attribute if a.name == "kernel_shape"), ())
    return node.op_type == "Conv" and tuple(sorted(kernel)) == _KERNEL


def _end_of_block(node: Any, users: Mapping[str, Sequence[Any]]) -> str | None:
    """The output of the first ReLU behind a node; None where its output branches or ends before."""
    while node.op_type != "Relu":
        following = users.get(node.output[0], [])
        if len(following) != 1:
            return None
        node = following[0]
    return str(node.output[0])


def compare(
    names: Sequence[str], device: Mapping[str, np.ndarray], fp32: Mapping[str, np.ndarray]
) -> Iterator[Nearness]:
    """The nearness of each named output; arrays are (samples, values)."""
    for name in names:
        a, b = device[name].astype(np.float64), fp32[name].astype(np.float64)
        length = np.maximum(np.linalg.norm(b, axis=1), 1e-30)
        error = np.linalg.norm(a - b, axis=1) / length
        cosine = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * length, 1e-30)
        yield Nearness(name, float(error.max()), float(cosine.min()), float(np.abs(a - b).max()))
