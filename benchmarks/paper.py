"""What an exported graph computes and moves a sample, layer by layer, and what a 310P could make of it at best.

    python -m benchmarks.paper

writes the table of docs/performance.md anew. A multiplication and an addition of a convolution or a matrix product are
one FLOP each; other arithmetic is small beside them. What moves is counted in float16: what each of these, each
Transpose and each pooling reads (activations and weights) and writes. The rest of the element-wise work rides on what
makes its input, as converters fuse it, but the second operand of a sum of two activations is read.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.figures import with_table
from benchmarks.harness import module
from deploy.inventory import ROOT
from stgcn.cards import INPUT
from stgcn.files import atomic_write
from stgcn.sample import CHECKPOINT_NAME

DOCUMENT = ROOT / "docs" / "performance.md"
# Published for the Ascend 310P3 as the Atlas 300I Pro carries it: 140 TOPS int8, half of that in float16; LPDDR4X
PEAK_FLOPS, BANDWIDTH = 70e12, 204.8e9
MEASURED = 381.10  # samples/s, the guide's figure at batch size 1
FLOAT16 = 2

MULTIPLYING = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
MOVING = {*MULTIPLYING, "Transpose", "AveragePool", "GlobalAveragePool", "ReduceMean"}
BLOCK = re.compile(r"(?:st_gcn_networks|spatial|temporal)\.(\d+)\.")  # in a weight's name
INPUT_LAYER, HEAD = "input", "head"


@dataclass(frozen=True)
class Cost:
    """Of one sample."""

    flops: float = 0.0
    moved: float = 0.0  # bytes

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.moved + other.moved)

    @property
    def at_most(self) -> float:
        """Samples/s, where computing and moving overlap fully."""
        return 1 / max(self.flops / PEAK_FLOPS, self.moved / BANDWIDTH)


def layers(path: Path) -> dict[str, Cost]:
    """A graph's costs at batch size 1: its input's, each block's from `1` on, its head's."""
    model = onnx.load(path)
    shapes, weights = _shapes(model), {weight.name for weight in model.graph.initializer}
    costs, layer = {INPUT_LAYER: Cost()}, INPUT_LAYER
    for node in model.graph.node:
        if set(node.input) <= weights:
            weights |= set(node.output)  # a constant
            continue
        if named := next(filter(None, map(BLOCK.search, node.input)), None):
            layer = str(int(named[1]) + 1)
        elif "Pool" in node.op_type or node.op_type == "ReduceMean":
            layer = HEAD
        costs[layer] = costs.get(layer, Cost()) + _cost(node, shapes, weights)
    return costs


def _cost(node: Any, shapes: Mapping[str, tuple[int, ...]], weights: set[str]) -> Cost:
    sizes = {name: float(np.prod(shapes[name])) for name in (*node.input, *node.output) if name}
    out = sizes[node.output[0]]
    if node.op_type in MOVING:
        return Cost(
            2 * _products(node, shapes, sizes), FLOAT16 * (sum(sizes[name] for name in node.input if name) + out)
        )
    if node.op_type == "Add" and not weights & set(node.input) and len(shapes[node.output[0]]) > 1:
        return Cost(0.0, FLOAT16 * out)
    return Cost()


def _products(node: Any, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, float]) -> float:
    if node.op_type in ("Conv", "ConvTranspose"):  # what each output sums, or what each input is spread over
        values = sizes[node.output[0]] if node.op_type == "Conv" else sizes[node.input[0]]
        return values * float(np.prod(shapes[node.input[1]][1:]))
    return sizes[node.output[0]] * shapes[node.input[0]][-1] if node.op_type in MULTIPLYING else 0.0


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every value, seen in a run: tracing left sizes in the graph that only a run knows."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    clip = next(value for value in session.get_inputs() if value.name == INPUT)
    values = session.run(None, {INPUT: np.zeros((1, *clip.shape[1:]), np.float32)})
    shapes = {output.name: np.shape(value) for output, value in zip(session.get_outputs(), values, strict=True)}
    shapes[INPUT] = (1, *clip.shape[1:])
    return shapes | {weight.name: tuple(weight.dims) for weight in model.graph.initializer}


def table(forms: Mapping[str, Mapping[str, Cost]]) -> str:
    """Markdown: a row a layer, `GFLOP / MB` of each form; then what the published figures allow."""
    names = list(dict.fromkeys(name for costs in forms.values() for name in costs))
    names.sort(key=lambda name: (name == HEAD, name != INPUT_LAYER, name.isdigit() and int(name)))
    totals = {form: sum(costs.values(), Cost()) for form, costs in forms.items()}
    rows = [["layer", *forms], ["---", *("---:" for _ in forms)]]
    rows += [[_label(name), *(_pair(costs.get(name, Cost())) for costs in forms.values())] for name in names]
    rows.append(["**all**", *(f"**{_pair(total)}**" for total in totals.values())])
    rows.append(["computing, ms", *(f"{1e3 * total.flops / PEAK_FLOPS:.2f}" for total in totals.values())])
    rows.append(["moving, ms", *(f"{1e3 * total.moved / BANDWIDTH:.2f}" for total in totals.values())])
    rows.append(["samples/s at most", *(f"{total.at_most:.0f}" for total in totals.values())])
    measured = next(iter(totals.values()))  # the first form's, the guide's
    for what, least in (("peak", measured.flops / PEAK_FLOPS), ("bandwidth", measured.moved / BANDWIDTH)):
        rows.append([f"{MEASURED:.2f} samples/s, of the {what}", f"{MEASURED * least:.0%}", *[""] * (len(totals) - 1)])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _label(name: str) -> str:
    return f"block {name}" if name.isdigit() else name


def _pair(cost: Cost) -> str:
    return f"{cost.flops / 1e9:.2f} / {cost.moved / 1e6:.1f}"


# What the document calls a form: what exports it
FORMS = {
    "guide's rewrite": ("benchmarks.guide.network",),
    "reference": ("stgcn.export", "--variant", "reference"),
    "fused": ("stgcn.export", "--variant", "fused"),
    "winograd": ("stgcn.export", "--variant", "winograd"),
    "fused, one person": ("stgcn.export", "--variant", "fused", "--persons", "nonempty"),
}


def made_table(folder: Path) -> str:
    """The document's table, of graphs that are exported into `folder`."""
    module("stgcn.sample", "--output_dir", folder, "--samples", "4")
    forms = {}
    for form, (program, *flags) in FORMS.items():
        module(program, "--ckpt", folder / CHECKPOINT_NAME, "--onnx", folder / "form.onnx", *flags)
        forms[form] = layers(folder / "form.onnx")
    return table(forms)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = made_table(Path(folder))
    with atomic_write(DOCUMENT) as file:
        file.write(with_table(DOCUMENT.read_text(encoding="utf-8"), made).encode())
    sys.stdout.write(made)


if __name__ == "__main__":
    main()
