"""Faults that only float16 has, planted in ST-GCN and in mmaction2's network: each is named, the outputs are restored,
no node is superfluous, and the conversions stay within the bound."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import om
import precision
from deploy.precision.arithmetic import Network
from deploy.precision.ranking import rank
from deploy.precision.search import smallest
from stgcn import export, onnx_model
from stgcn.cards import card_of
from stgcn.networks import network

TOLERANCE = 0.02  # of the outputs, relative
FRAMES = 16
MODELS = {"st_gcn.kinetics": (3, FRAMES, 18, 2), "mmaction.stgcn-2d": (2, FRAMES, 17, 3)}
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
}  # fmt: skip
K, M = MODELS


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
        node = self._nodes[self.node(part, block)]
        for place, scale in scales.items():
            if place < len(node.input):
                weight = self._weights[node.input[place]]
                values = (numpy_helper.to_array(weight).astype(np.float64) * scale).astype(np.float32)
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        return node.name

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

    def last(self, _: int, scale: float) -> list[str]:
        """What the last block adds up, taken back by the classifier."""
        self._scale("tcn_bn", 9, {1: scale, 2: scale})
        before = f"{self.node('tcn', 9)}"
        return [before, self._scale("fc", 0, {1: 1 / scale})]


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
]
QUICK = (0,)


def outputs(model: onnx.ModelProto, rows: Sequence[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input1": row})[0] for row in rows])


class Device:
    """The simulated host: atc with a keep_dtype file, then ONNX Runtime; one OM for each set."""

    def __init__(self, model: onnx.ModelProto, rows: Sequence[np.ndarray], path: Any) -> None:
        self.model, self.rows, self.path = model, rows, path
        self.exact = outputs(model, rows)
        self.oms: dict[frozenset[str], bool] = {}

    def __call__(self, kept: Sequence[str]) -> bool:
        key = frozenset(kept)
        if key not in self.oms:
            model = om.fix_shape(copy.deepcopy(self.model), {"input1": self.rows[0].shape})
            self.path.write_text("\n".join(kept))
            flags = {"keep_dtype": str(self.path)} if kept else {}
            om.lower(model, precision.precisions(model.graph, flags, (6, 0), om.VIEWS))
            error = np.linalg.norm(outputs(model, self.rows) - self.exact) / np.linalg.norm(self.exact)
            self.oms[key] = bool(error <= TOLERANCE)
        return self.oms[key]


@pytest.mark.parametrize(
    ("name", "faults"),
    [pytest.param(*case, marks=() if i in QUICK else pytest.mark.full) for i, case in enumerate(FAULTS)],
    ids=[f"{name}-{'+'.join(f'{f.__name__}{b}x{s:g}' for f, b, s in faults)}" for name, faults in FAULTS],
)
def test_each_fault_is_named_and_nothing_else_is_kept(name: str, faults: list[Fault], tmp_path: Any) -> None:
    planted = Planted(name)
    culprits = {node for plant, block, scale in faults for node in plant(planted, block, scale)}
    rows = [np.random.default_rng(i).normal(size=(1, *MODELS[name])).astype(np.float32) for i in range(3)]
    plain = outputs(exported(name), rows)
    np.testing.assert_allclose(outputs(planted.model, rows), plain, atol=1e-4 * np.abs(plain).max())
    device = Device(planted.model, rows, tmp_path / "keep.cfg")
    assert not device(())
    network = Network(copy.deepcopy(planted.model))
    assert device([unit.name for unit in network.choices])
    ranked = rank(network, [[rows[0]]])
    kept = smallest(ranked.names, device, len(ranked.suspects))
    conversions = len(device.oms) - 1  # float16 throughout is npu-convert's
    assert culprits <= set(kept)
    assert device(kept)
    assert not any(device([other for other in kept if other != node]) for node in kept)
    assert len(device.oms) == 1 + conversions or len(kept) == 1  # it was known before
    assert conversions <= len(kept) * (math.log2(len(planted.model.graph.node)) + 3)
