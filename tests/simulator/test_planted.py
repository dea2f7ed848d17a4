"""Faults that only float16 has, planted in ST-GCN, in mmaction2's networks and in one's own: each is named, the outputs
are restored, no node is superfluous, and the conversions stay within the bound."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import om
import precision
from deploy.precision.arithmetic import Network
from deploy.precision.ranking import rank
from deploy.precision.search import smallest
from deploy.precision.units import name_nodes
from stgcn import export, onnx_model
from stgcn.blocks import add_block_outputs
from stgcn.cards import card_of
from stgcn.networks import network

TOLERANCE = 0.02  # of the outputs, relative
FRAMES = 16
MODELS = {
    "st_gcn.kinetics": (3, FRAMES, 18, 2),
    "mmaction.stgcn-2d": (2, FRAMES, 17, 3),
    "mmaction.stgcnpp-2d": (2, FRAMES, 17, 3),
}
# What each network calls the parts of a block.
PARTS = {
    "st_gcn.kinetics": {
        "data_bn": "/data_bn/BatchNormalization", "gcn": "/st_gcn_networks.{}/gcn/conv/Conv",
        "gcn_bn": "/st_gcn_networks.{}/tcn/tcn.0/BatchNormalization", "tcn": "/st_gcn_networks.{}/tcn/tcn.2/Conv",
        "tcn_bn": "/st_gcn_networks.{}/tcn/tcn.3/BatchNormalization",
        "residual": "/st_gcn_networks.{}/residual/residual.0/Conv",
        "residual_bn": "/st_gcn_networks.{}/residual/residual.1/BatchNormalization", "fc": "/fcn/Conv",
        "adjacency": "/st_gcn_networks.{}/gcn/MatMul",
    },
    "mmaction.stgcn-2d": {
        "data_bn": "/backbone/data_bn/BatchNormalization", "gcn": "/backbone/gcn.{}/gcn/conv/Conv",
        "gcn_bn": "/backbone/gcn.{}/gcn/bn/BatchNormalization", "tcn": "/backbone/gcn.{}/tcn/conv/Conv",
        "tcn_bn": "/backbone/gcn.{}/tcn/bn/BatchNormalization", "residual": "/backbone/gcn.{}/residual/conv/Conv",
        "residual_bn": "/backbone/gcn.{}/residual/bn/BatchNormalization", "fc": "/cls_head/fc/Gemm",
        "adjacency": "/backbone/gcn.{}/gcn/MatMul",
    },
    "mmaction.stgcnpp-2d": {
        "gcn_bn": "/backbone/gcn.{}/gcn/bn/BatchNormalization", "adjacency": "/backbone/gcn.{}/gcn/MatMul",
        "tcn": "/backbone/gcn.{}/tcn/branches.0/branches.0.0/Conv",
        "tcn_bn": "/backbone/gcn.{}/tcn/branches.0/branches.0.1/BatchNormalization",
    },
}  # fmt: skip
K, M, PP = MODELS


@cache
def exported(name: str) -> onnx.ModelProto:
    """The network on short clips, with random weights."""
    import torch

    torch.manual_seed(0)
    module = network(card_of(name)).eval()
    for each in module.modules():
        if hasattr(each, "frames"):
            each.frames = FRAMES
    model = onnx.load_model_from_string(export._traced(module, MODELS[name], 11))
    onnx_model.tidy(model)
    return model


class Planted:
    """A network with faults: each scales what one node makes, and takes it back where it is used."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, copy.deepcopy(exported(name))
        self._nodes = {node.name: node for node in self.model.graph.node}
        self._weights = {weight.name: weight for weight in self.model.graph.initializer}

    def node(self, part: str, block: int = 0) -> str:
        return PARTS[self.name][part].format(block)

    def _scale(self, part: str, block: int, scales: dict[int, float]) -> str:
        return self._scale_node(self.node(part, block), scales)

    def _scale_node(self, name: str, scales: dict[int, float]) -> str:
        """Give a node weights of its own, scaled; another may share what it had."""
        node = self._nodes[name]
        for place, scale in scales.items():
            if place < len(node.input):
                values = numpy_helper.to_array(self._weights[node.input[place]]).astype(np.float64) * scale
                node.input[place] = f"{name}/{place}"
                weight = numpy_helper.from_array(values.astype(np.float32), node.input[place])
                self.model.graph.initializer.append(weight)
                self._weights[weight.name] = weight
        return name

    def folded(self, block: int, scale: float) -> list[str]:
        """A convolution, taken back by the batch-norm that is folded into it."""
        self._scale("tcn_bn", block, {1: 1 / scale, 3: scale})
        return [self._scale("tcn", block, {1: scale, 2: scale})]

    def graph(self, block: int, scale: float) -> list[str]:
        """A convolution before the adjacency, taken back by the batch-norm behind it."""
        taken = self._scale("gcn_bn", block, {1: 1 / scale, 3: scale})
        return [self._scale("gcn", block, {1: scale, 2: scale}), self.node("adjacency", block), taken]

    def activation(self, block: int, scale: float) -> list[str]:
        """A batch-norm, taken back by the convolution behind its ReLU."""
        return [self._scale("gcn_bn", block, {1: scale, 2: scale}), self._scale("tcn", block, {1: 1 / scale})]

    def data(self, _: int, scale: float) -> list[str]:
        """The batch-norm of the data, taken back by the first convolution."""
        return [self._scale("data_bn", 0, {1: scale, 2: scale}), self._scale("gcn", 0, {1: 1 / scale})]

    def residual(self, block: int, scale: float) -> list[str]:
        """The convolution of a residual branch, taken back by its batch-norm."""
        self._scale("residual_bn", block, {1: 1 / scale, 3: scale})
        return [self._scale("residual", block, {1: scale, 2: scale})]

    def adjacency(self, block: int, scale: float) -> list[str]:
        """The matrices of the three partitions, taken back by the batch-norm behind their sum."""
        taken = self._scale("gcn_bn", block, {1: 1 / scale, 3: scale})
        first = self.node("adjacency", block)
        products = [self._scale_node(f"{first}{end}", {1: scale}) for end in ("", "_1", "_2")]
        sums = [f"{first.rpartition('/')[0]}/Add{end}" for end in ("", "_1")]
        return [*products, *sums, taken]

    def last(self, _: int, scale: float) -> list[str]:
        """The classifier, taken back by a factor behind it."""
        return [self._scale("fc", 0, {1: scale, 2: scale}), restore(self.model, scale)]


def restore(model: onnx.ModelProto, scale: float) -> str:
    """Have the first output divided by `scale`; the name of the node that does it."""
    graph = model.graph
    end = graph.output[0].name
    next(node for node in graph.node if end in node.output).output[0] = "scaled_end"
    graph.initializer.append(numpy_helper.from_array(np.array(1 / scale, np.float32), "factor"))
    graph.node.append(helper.make_node("Mul", ["scaled_end", "factor"], [end], name="restored"))
    return "restored"


Fault = tuple[Callable[[Planted, int, float], list[str]], int, float]
P = Planted
FAULTS: list[tuple[str, list[Fault]]] = [
    (K, [(P.folded, 3, 1e7)]),
    (K, [(P.folded, 0, 1e-8)]),
    (K, [(P.graph, 2, 1e7)]),
    (K, [(P.graph, 7, 1e-9)]),
    (K, [(P.activation, 5, 1e6)]),
    (K, [(P.activation, 8, 1e-9)]),
    (K, [(P.data, 0, 1e7)]),
    (K, [(P.data, 0, 1e-9)]),
    (K, [(P.residual, 4, 1e8)]),
    (K, [(P.residual, 7, 1e-9)]),
    (K, [(P.folded, 1, 1e7), (P.residual, 4, 1e-9)]),
    (K, [(P.folded, 2, 1e7), (P.folded, 5, 1e-9), (P.activation, 9, 1e7)]),
    (M, [(P.folded, 6, 1e7)]),
    (M, [(P.folded, 9, 1e-9)]),
    (M, [(P.graph, 4, 1e-9)]),
    (M, [(P.activation, 3, 1e7)]),
    (M, [(P.data, 0, 1e7)]),
    (M, [(P.residual, 7, 1e8)]),
    (M, [(P.residual, 4, 1e-9), (P.folded, 0, 1e7)]),
    (M, [(P.activation, 1, 1e-9), (P.graph, 6, 1e7)]),
    (K, [(P.adjacency, 2, 1e7)]),
    (M, [(P.adjacency, 8, 1e7)]),  # one partition that vanishes may not be missed
    (K, [(P.last, 0, 1e7)]),
    (M, [(P.last, 0, 1e-9)]),
    (PP, [(P.folded, 4, 1e7)]),
    (PP, [(P.adjacency, 6, 1e7)]),
]
QUICK = (0,)


Rows = Sequence[Sequence[np.ndarray]]  # of each, the arrays of the inputs, of batch 1


def outputs(model: onnx.ModelProto, rows: Rows) -> np.ndarray:
    """All that a model gives, row by row."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    ran = (session.run(None, dict(zip(names, row, strict=True))) for row in rows)
    return np.stack([np.concatenate([values.reshape(-1) for values in each]) for each in ran])


class Device:
    """The simulated host: atc with a keep_dtype file, then ONNX Runtime; one OM for each set."""

    def __init__(self, model: onnx.ModelProto, rows: Rows, path: Any) -> None:
        self.model, self.rows, self.path = model, rows, path
        self.exact = outputs(model, rows)
        self.oms: dict[frozenset[str], bool] = {}

    def __call__(self, kept: Sequence[str]) -> bool:
        key = frozenset(kept)
        if key not in self.oms:
            shapes = {
                value.name: array.shape for value, array in zip(self.model.graph.input, self.rows[0], strict=True)
            }
            model = om.fix_shape(copy.deepcopy(self.model), shapes)
            self.path.write_text("\n".join(kept))
            flags = {"keep_dtype": str(self.path)} if kept else {}
            om.lower(model, precision.precisions(model.graph, flags, (6, 0), om.VIEWS))
            error = np.linalg.norm(outputs(model, self.rows) - self.exact) / np.linalg.norm(self.exact)
            self.oms[key] = bool(error <= TOLERANCE)
        return self.oms[key]


def check(planted: onnx.ModelProto, plain: onnx.ModelProto, culprits: set[str], rows: Rows, path: Any) -> None:
    """Each culprit is named, the outputs are restored, nothing superfluous is kept, within the bound."""
    exact = outputs(plain, rows)
    np.testing.assert_allclose(outputs(planted, rows), exact, atol=1e-4 * np.abs(exact).max())
    device = Device(planted, rows, path)
    assert not device(())
    network = Network(copy.deepcopy(planted))
    assert device([unit.name for unit in network.choices])
    ranked = rank(network, rows[:1])
    kept = smallest(ranked.names, device, len(ranked.suspects))
    conversions = len(device.oms) - 1  # float16 throughout is npu-convert's
    assert culprits <= set(kept)
    assert device(kept)
    assert not any(device([other for other in kept if other != node]) for node in kept)
    assert len(device.oms) == 1 + conversions or len(kept) == 1  # it was known before
    assert conversions <= len(kept) * (math.log2(len(planted.graph.node)) + 3)


@pytest.mark.parametrize(
    ("name", "faults"),
    [pytest.param(*case, marks=() if i in QUICK else pytest.mark.full) for i, case in enumerate(FAULTS)],
    ids=[f"{name}-{'+'.join(f'{f.__name__}{b}x{s:g}' for f, b, s in faults)}" for name, faults in FAULTS],
)
def test_each_fault_is_named_and_nothing_else_is_kept(name: str, faults: list[Fault], tmp_path: Any) -> None:
    planted = Planted(name)
    culprits = {node for plant, block, scale in faults for node in plant(planted, block, scale)}
    rows = [[np.random.default_rng(i).normal(size=(1, *MODELS[name])).astype(np.float32)] for i in range(3)]
    check(planted.model, exported(name), culprits, rows, tmp_path / "keep.cfg")


@pytest.mark.parametrize("name", [K, pytest.param(M, marks=pytest.mark.full), pytest.param(PP, marks=pytest.mark.full)])
def test_each_networks_ten_blocks_are_known(name: str) -> None:
    model = copy.deepcopy(exported(name))
    scope = "/st_gcn_networks.{}/Relu_output_0" if name == K else "/backbone/gcn.{}/Relu_output_0"
    assert add_block_outputs(model) == [scope.format(i) for i in range(10)]
    om.slow_block(model, 3)
    parts = [node.name for node in model.graph.node if node.name.startswith("PartitionedCall_")]
    assert len(parts) == 2 * om.SLOWNESS - 1
    assert all(name.startswith(f"PartitionedCall_{scope.format(2).partition('Relu')[0]}") for name in parts)


@pytest.mark.parametrize("scale", [1e-9, 1e7])
def test_a_fault_in_a_model_of_ones_own_is_named(scale: float, tmp_path: Path) -> None:
    """examples/own_model: two inputs, one of them integer, two outputs, nodes without names."""
    random = np.random.default_rng(0)
    np.savez(tmp_path / "twin.npz", position=random.normal(size=(24, 2)), spread=random.normal(size=(24, 6)))
    argv = ["--ckpt", "twin.npz", "--onnx", "twin.onnx", "--card", "card.json", "--variant", "reference"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "examples/own_model")}
    command = [sys.executable, "-m", "twin.export", *argv, "--persons", "both"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    plain = onnx.load(tmp_path / "twin.onnx")
    name_nodes(plain)
    planted = copy.deepcopy(plain)
    weights = next(weight for weight in planted.graph.initializer if weight.name == "position_weights")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(scale), weights.name))
    culprits = {"MatMul_3", restore(planted, scale)}
    rows = [[random.normal(size=(1, 4, 6)).astype(np.float32), np.full((1, 1), 3, np.int32)] for _ in range(3)]
    check(planted, plain, culprits, rows, tmp_path / "keep.cfg")
