"""An ONNX graph as the device's kernels see it: the units that may be kept in float32, each by a node's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# They give another view of a tensor, or make none of the network's; ATC runs no kernel for them.
VIEWS = frozenset([
    "Cast", "Constant", "ConstantOfShape", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze",
    "Unsqueeze",
])  # fmt: skip
CONVOLUTIONS = ("Conv", "ConvTranspose")  # ATC folds a batch-norm behind one into its weights


@dataclass(frozen=True)
class Unit:
    """A node, with the batch-norm that is folded into it."""

    name: str  # of its first node: what a keep_dtype file says
    nodes: Sequence[Any]  # NodeProto
    kept: bool = True  # whether its precision is a choice: a view has none

    @property
    def kind(self) -> str:
        return "+".join(node.op_type for node in self.nodes)

    @property
    def outputs(self) -> Sequence[str]:
        return list(self.nodes[-1].output)


def name_nodes(model: Any) -> None:
    """Name the nodes that have no name, as ATC's parser does, which counts those alone."""
    for index, node in enumerate([node for node in model.graph.node if not node.name]):
        node.name = f"{node.op_type}_{index}"


def units(model: Any) -> list[Unit]:
    """The units of a graph whose nodes have names, makers before users."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    uses: dict[str, int] = {}
    for name in [*(name for node in graph.node for name in node.input), *(value.name for value in graph.output)]:
        uses[name] = uses.get(name, 0) + 1
    folded: dict[str, Any] = {}  # name of a convolution -> its batch-norm
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if maker is not None and maker.op_type in CONVOLUTIONS and uses[node.input[0]] == 1:
            folded[maker.name] = node
    inside = {node.name for node in folded.values()}
    return [
        Unit(node.name, [node, *([folded[node.name]] if node.name in folded else [])], node.op_type not in VIEWS)
        for node in graph.node
        if node.name not in inside
    ]


def blocks_of(every: Sequence[Unit], ends: Mapping[str, str]) -> dict[str, str | None]:
    """The block of each unit, by name; `ends` maps a block's name to the tensor that it ends with, in their order.

    A unit is of the first block whose end it leads to; None behind the last.
    """
    makers = {name: unit for unit in every for node in unit.nodes for name in node.output}
    found: dict[str, str | None] = {}
    for block, end in ends.items():
        waiting = [end]
        while waiting:
            unit = makers.get(waiting.pop())
            if unit is not None and unit.name not in found:
                found[unit.name] = block
                waiting += [name for node in unit.nodes for name in node.input]
    return {unit.name: found.get(unit.name) for unit in every}
