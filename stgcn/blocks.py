"""The ten blocks of an exported ST-GCN or ST-GCN++ as outputs of their own (docs/own-model.md):

python -m stgcn.blocks --onnx st_gcn.onnx --output st_gcn_blocks.onnx --result blocks.json
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

from stgcn import onnx_model
from stgcn.cards import card_of, program
from stgcn.errors import InputError, run_main
from stgcn.files import write_whole

BLOCKS = 10
_POOLINGS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
_KERNEL = (1, 9)  # of the temporal convolution, of which each block has one; no other kernel is longer than 1
_ENDS = ("Relu", "Max")  # the `winograd` graph's ReLU is Max


def add_block_outputs(model: Any) -> List[str]:
    """Make the output of each block an output of the ONNX `model` too; their names, in the blocks' order.

    A block is found by its 9x1 convolution, or the ConvTranspose that ends what `winograd` makes of it, and ends at the
    next ReLU, in the graphs of every variant.
    ST-GCN++ has no such convolution: there it ends where the next block's graph convolution, or the pooling, begins.

    Raises:
        InputError: there are not ten.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value for value in graph.value_info}
    users: Dict[str, List[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    names = [_end_of_block(node, users) for node in graph.node if _is_temporal(node)]
    between = _between_graph_convolutions(graph.node)
    names = between if len(names) != BLOCKS == len(between) else names
    if len(names) != BLOCKS or not all(names):
        raise InputError(
            f"the ONNX has {len(names)} blocks with a 9x1 convolution and a ReLU behind it, not {BLOCKS}: "
            "export the checkpoint by the kit"
        )
    for name in names:
        model.graph.output.append(types.get(name) or onnx.helper.make_tensor_value_info(name, 1, None))
    return [str(name) for name in names]


def _is_temporal(node: Any) -> bool:
    kernel = next((tuple(a.ints) for a in node.attribute if a.name == "kernel_shape"), ())
    return node.op_type == "ConvTranspose" or (node.op_type == "Conv" and tuple(sorted(kernel)) == _KERNEL)


def _between_graph_convolutions(nodes: Sequence[Any]) -> List[Optional[str]]:
    """The inputs of the convolutions that are split into partitions, but for the first, and of the pooling."""
    makers = {name: node for node in nodes for name in node.output}
    ends = [makers[node.input[0]].input[0] for node in nodes if node.op_type == "Split" and node.input[0] in makers]
    pooled = [node.input[0] for node in nodes if node.op_type in _POOLINGS]
    return [*ends[1:], *pooled[:1]]


def _end_of_block(node: Any, users: Mapping[str, Sequence[Any]]) -> Optional[str]:
    """The output of the first ReLU behind a node; None where its output branches or ends before."""
    while node.op_type not in _ENDS:
        following = users.get(node.output[0], [])
        if len(following) != 1:
            return None
        node = following[0]
    return str(node.output[0])


def main(argv: Optional[List[str]] = None) -> None:
    """Write a graph whose blocks' outputs are outputs too."""
    parser = program("blocks", main.__doc__)
    parser.add_argument("--onnx", required=True, help="the exported model")
    parser.add_argument("--output", required=True, help="ONNX file to write")
    parser.add_argument("--result", required=True, help="JSON file to write: the blocks and the names of their outputs")
    options = parser.parse_args(argv)
    card_of(options.model)
    model = onnx_model.load(options.onnx)
    blocks = [{"name": str(i), "output": output} for i, output in enumerate(add_block_outputs(model), start=1)]
    write_whole(options.output, model.SerializeToString(deterministic=True))
    write_whole(options.result, json.dumps({"format": 1, "blocks": blocks}).encode())


if __name__ == "__main__":
    run_main(main)
