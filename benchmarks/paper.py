"""What an exported graph computes and moves a sample, layer by layer, and what a 310P could make of it at best.

    python -m benchmarks.paper

writes the table of docs/performance.md anew, of the costs that deploy/evidence/costs.py counts, with which
`fab npu-profile` judges what a device took.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from benchmarks.figures import with_table
from benchmarks.harness import module
from deploy.evidence.costs import PUBLISHED, Cost, cost, value_shapes
from deploy.inventory import ROOT
from stgcn.files import atomic_write
from stgcn.sample import CHECKPOINT_NAME

DOCUMENT = ROOT / "docs" / "performance.md"
LIMITS = PUBLISHED["Ascend310P3"]
MEASURED = 381.10  # samples/s, the guide's figure at batch size 1
BLOCK = re.compile(r"(?:st_gcn_networks|spatial|temporal)\.(\d+)\.")  # in a weight's name
INPUT_LAYER, HEAD = "input", "head"


def layers(path: Path) -> dict[str, Cost]:
    """A graph's costs at batch size 1: its input's, each block's from `1` on, its head's."""
    model = onnx.load(path)
    shapes, weights = value_shapes(model), {weight.name for weight in model.graph.initializer}
    costs, layer = {INPUT_LAYER: Cost()}, INPUT_LAYER
    for node in model.graph.node:
        if set(node.input) <= weights:
            weights |= set(node.output)  # a constant
            continue
        if named := next(filter(None, map(BLOCK.search, node.input)), None):
            layer = str(int(named[1]) + 1)
        elif "Pool" in node.op_type or node.op_type == "ReduceMean":
            layer = HEAD
        costs[layer] = costs.get(layer, Cost()) + cost(node, shapes, weights)
    return costs


def table(forms: Mapping[str, Mapping[str, Cost]]) -> str:
    """Markdown: a row a layer, `GFLOP / MB` of each form; then what the published figures allow."""
    names = list(dict.fromkeys(name for costs in forms.values() for name in costs))
    names.sort(key=lambda name: (name == HEAD, name != INPUT_LAYER, name.isdigit() and int(name)))
    totals = {form: sum(costs.values(), Cost()) for form, costs in forms.items()}
    least = {form: each.at_least_s(LIMITS) for form, each in totals.items()}
    rows = [["layer", *forms], ["---", *("---:" for _ in forms)]]
    rows += [[_label(name), *(_pair(costs.get(name, Cost())) for costs in forms.values())] for name in names]
    rows.append(["**all**", *(f"**{_pair(each)}**" for each in totals.values())])
    rows.append(["computing, ms", *(f"{1e3 * computing:.2f}" for computing, _ in least.values())])
    rows.append(["moving, ms", *(f"{1e3 * moving:.2f}" for _, moving in least.values())])
    rows.append(["samples/s at most", *(f"{1 / max(both):.0f}" for both in least.values())])
    of_guide = next(iter(least.values()))  # the first form's
    for what, seconds in zip(("peak", "bandwidth"), of_guide, strict=True):
        rows.append(
            [f"{MEASURED:.2f} samples/s, of the {what}", f"{MEASURED * seconds:.0%}", *[""] * (len(totals) - 1)]
        )
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _label(name: str) -> str:
    return f"block {name}" if name.isdigit() else name


def _pair(each: Cost) -> str:
    return f"{each.flops / 1e9:.2f} / {each.moved / 1e6:.1f}"


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
