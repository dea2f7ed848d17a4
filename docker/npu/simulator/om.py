"""The offline model (OM): an ONNX graph made what a device computes, and stored as plain ONNX.

An OM of the simulator is a valid ONNX file with float32 inputs and outputs, a fixed batch (or a list of batch sizes in
its metadata) and `soc_version`, `cann` and `precision_mode` in its metadata, so that any ONNX Runtime runs it. A device
computes in float16 and accumulates in float32; that is played by rounding the weights once and by Cast pairs (float32
-> float16 -> float32) where a device writes a tensor back to memory. The arithmetic between stays float32 and fast. A
node that is kept in float32 (precision.py) takes what it is given as it is, and its result is rounded by the next node
that is not kept: there a value beyond 65504 becomes infinite, and one below 2^-25 zero.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import precision


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators that CANN 6.0 has kernels for; Einsum is not among them.
OPERATORS = _words("""
    Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization BitShift Cast Ceil Celu Clip
    Compress Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Dropout Elu
    Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization LRN LSTM LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool
    Mean Min Mod Mul Multinomial Neg NonZero Not OneHot Or PRelu Pad Pow RandomNormalLike Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScatterElements ScatterND Selu Shape
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
""")
# They name or view what is in memory, or make numbers that are no tensor of the network.
VIEWS = _words("Cast Constant ConstantOfShape Dropout Flatten Identity Reshape Shape Size Squeeze Unsqueeze")
# They move values, and round none that was rounded before.
MOVES = _words("""
    Compress Concat DepthToSpace Expand Gather GatherElements GatherND Pad ReverseSequence Slice SpaceToDepth Split
    Tile Transpose
""")
BLOCK = frozenset(
    ["Add", "BatchNormalization", "Cast", "Dropout", "Identity", "Sum"]
)  # between 9x1 convolution and ReLU


class OmError(Exception):
    """A model that can't be made what was asked for; str() says why."""


def fix_shape(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The model with these input shapes (-1 stays symbolic) and with shapes and types inferred throughout.

    Weights listed as graph inputs (torch 1.2 does) become initializers only. Raises OmError if inference fails.
    """
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    for value in inputs:
        dims = [size if size > 0 else "batch" for size in shapes[value.name]]
        graph.input.append(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dims))
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise OmError(str(error)) from error


def lower(model: onnx.ModelProto, precisions: Sequence[str]) -> None:
    """Round weights and activations of the nodes that are not precision.KEPT through float16, in place.

    `precisions` is one of each node. Inputs and outputs stay float32.
    """
    graph = model.graph
    nodes = _Lowering(graph, precisions).nodes()
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    weights = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)


class _Lowering:
    """A graph's nodes with what rounds their tensors.

    A batch-norm behind a convolution is folded into it, and a ReLU of rounded values gives the rounded ReLU, so neither
    is handed a rounded tensor.
    """

    def __init__(self, graph: onnx.GraphProto, precisions: Sequence[str]) -> None:
        self._graph, self._precisions = graph, precisions
        self._folded = precision.folded(graph)
        self._weights = {weight.name: weight for weight in graph.initializer}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {name for name, weight in self._weights.items() if weight.data_type == TensorProto.FLOAT}
        self._consumers: dict[str, list[int]] = {}
        for index, node in enumerate(graph.node):
            for name in node.input:
                self._consumers.setdefault(name, []).append(index)
        self._outputs = {value.name for value in graph.output}
        self._rounded: set[str] = set()  # tensors of float16's values, or that will be behind the next node
        self._twins: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        for index, node in enumerate(self._graph.node):
            lowered = self._precisions[index] != precision.KEPT and node.op_type not in VIEWS
            if lowered and not self._takes_any(index):
                # A batch-norm's statistics stay float32.
                for place in range(1 if node.op_type == "BatchNormalization" else len(node.input)):
                    node.input[place] = self._half(node.input[place])
            self._nodes.append(node)
            if lowered and self._precisions[index] != precision.CUBE_OUT:
                for place in range(len(node.output)):
                    self._round_output(node, place)
            elif node.op_type in VIEWS and node.input and node.input[0] in self._rounded:
                self._rounded.update(node.output)
        return self._nodes

    def _takes_any(self, index: int) -> bool:
        return index in self._folded or self._graph.node[index].op_type == "Relu"

    def _half(self, name: str) -> str:
        """The name of a tensor's rounded twin, made once; of what is rounded, or no float32, its own."""
        if name in self._rounded or name not in self._floats:
            return name
        twin = f"{name}/half"
        if twin not in self._twins:
            self._twins.add(twin)
            if name in self._weights:
                with np.errstate(over="ignore"):  # beyond 65504 a device has infinity too
                    values = numpy_helper.to_array(self._weights[name]).astype(np.float16).astype(np.float32)
                self._graph.initializer.append(numpy_helper.from_array(values, twin))
            else:
                self._nodes += _casts(name, twin)
        return twin

    def _round_output(self, node: onnx.NodeProto, place: int) -> None:
        name = node.output[place]
        if name not in self._floats:
            return
        self._rounded.add(name)
        users = self._consumers.get(name, [])
        alone = len(users) == 1 and name not in self._outputs
        later = alone and self._takes_any(users[0]) and self._precisions[users[0]] == precision.HALF
        if not later and node.op_type not in MOVES:
            node.output[place] = f"{name}/wide"
            self._nodes += _casts(f"{name}/wide", name)


def spoil_block(model: onnx.ModelProto, number: int) -> None:
    """Let the number-th block (from 1) keep one bit of each value: 0, half or all of its channel's largest.

    A block is found by its temporal convolution, the only kernel of 9x1, and ends at the ReLU that follows. Raises
    OmError if the model has no such block.
    """
    graph = model.graph
    temporal = node = _temporal(graph, number, "BAD_BLOCK")
    consumers = _consumers(graph)
    while node.op_type != "Relu":
        users = consumers.get(node.output[0], [])
        if len(users) != 1 or users[0].op_type not in BLOCK | {"Relu"}:
            raise OmError(f"NPU_SIM_BAD_BLOCK={number}: no ReLU ends the block of {temporal.name}")
        node = users[0]
    name = node.output[0]
    good, step, tiny = f"{name}/good", f"{name}/step", f"{name}/tiny"
    graph.initializer.extend(
        [
            helper.make_tensor(tiny, TensorProto.FLOAT, [], [1e-6]),
            helper.make_tensor(step, TensorProto.FLOAT, [], [0.5]),
        ]
    )
    node.output[0] = good
    bad = [
        helper.make_node("GlobalMaxPool", [good], [f"{good}/largest"]),
        helper.make_node("Mul", [f"{good}/largest", step], [f"{step}/part"]),
        helper.make_node("Max", [f"{step}/part", tiny], [f"{step}/safe"]),
        helper.make_node("Div", [good, f"{step}/safe"], [f"{good}/steps"]),
        helper.make_node("Floor", [f"{good}/steps"], [f"{good}/whole"]),
        helper.make_node("Mul", [f"{good}/whole", f"{step}/safe"], [name]),
    ]
    position = next(index for index, other in enumerate(graph.node, start=1) if good in other.output)
    for offset, extra in enumerate(bad):
        graph.node.insert(position + offset, extra)


SLOWNESS = 16  # times that a slow block computes its temporal convolution


def slow_block(model: onnx.ModelProto, number: int) -> None:
    """Let the number-th block (from 1) compute its temporal convolution again and again, to the same values.

    As a compiler that splits a node calls its kernels: `PartitionedCall_<node>_<type>_<n>`. Raises OmError if the model
    has no such block.
    """
    graph = model.graph
    node = _temporal(graph, number, "SLOW_BLOCK")
    position = next(index for index, other in enumerate(graph.node) if other is node)
    output, weight = node.output[0], next(w for w in graph.initializer if w.name == node.input[1])
    parts, before = list[onnx.NodeProto](), None
    for i in range(SLOWNESS):
        part, own = onnx.NodeProto(), onnx.TensorProto()
        part.CopyFrom(node)
        own.CopyFrom(weight)  # of its own, or a runtime would compute the equal ones once
        own.name, part.name = f"{weight.name}/{i}", f"PartitionedCall_{node.name}_Conv2D_{i}"
        part.input[1], part.output[0] = own.name, f"{output}/{i}"
        graph.initializer.append(own)
        parts.append(part)
        if before is not None:
            name = f"PartitionedCall_{node.name}_Maximum_{i}"
            parts.append(helper.make_node("Max", [before, part.output[0]], [f"{output}/most{i}"], name=name))
        before = parts[-1].output[0]
    parts[-1].output[0] = output
    del graph.node[position]
    for offset, part in enumerate(parts):
        graph.node.insert(position + offset, part)


def _temporal(graph: onnx.GraphProto, number: int, knob: str) -> onnx.NodeProto:
    """A block's 9x1 convolution, or what stands for it: winograd's ConvTranspose, ST-GCN++'s graph convolution."""
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    split = {node.input[0] for node in graph.node if node.op_type == "Split"}
    found = [node for node in convolutions if sorted(_kernel(node)) == [1, 9] or node.op_type == "ConvTranspose"]
    found = found or [node for node in convolutions if node.output[0].removesuffix("/wide") in split]
    if not 0 < number <= len(found):
        raise OmError(f"NPU_SIM_{knob}={number}: the model has {len(found)} blocks with a 9x1 convolution")
    return found[number - 1]


def halve_outputs(model: onnx.ModelProto) -> None:
    """Let the model hand out float16 (`--output_type=FP16`)."""
    for value in model.graph.output:
        wide = f"{value.name}/float32"
        for node in model.graph.node:
            node.input[:] = [wide if name == value.name else name for name in node.input]
            node.output[:] = [wide if name == value.name else name for name in node.output]
        model.graph.node.append(helper.make_node("Cast", [wide], [value.name], to=int(TensorProto.FLOAT16)))
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the OM with its metadata and the mode 0600 that atc gives it."""
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(model.SerializeToString(deterministic=True))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return consumers


def _casts(source: str, target: str) -> list[onnx.NodeProto]:
    half = f"{target}/float16"
    return [
        helper.make_node("Cast", [source], [half], to=int(TensorProto.FLOAT16)),
        helper.make_node("Cast", [half], [target], to=int(TensorProto.FLOAT)),
    ]


def _kernel(node: onnx.NodeProto) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape"), [])
