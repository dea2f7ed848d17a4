"""How ATC is told which units stay in float32: node by node (--keep_dtype), or by operator type (--modify_mixlist).

Facts: the ATC manual's pages of the two flags.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploy.pipeline.build import KEEP, MIXLIST
from deploy.precision.units import Unit

# The flag of the mode -> what lowers every node, and what lowers those that the lists of types allow.
MODES = {"precision_mode": ("force_fp16", "allow_mix_precision"), "precision_mode_v2": ("fp16", "mixed_float16")}
# ONNX types that become one type of Ascend IR, so that no list tells them apart.
_SAME = {"Gemm": "MatMul", "GlobalAveragePool": "ReduceMean"}
# The types of Ascend IR that an ONNX type may become, where they are called otherwise.
_IR_TYPES = {
    "AveragePool": ("AvgPool", "AvgPoolV2"),
    "BatchNormalization": ("BatchNorm", "BNInference"),
    "Concat": ("ConcatD", "ConcatV2"),
    "Conv": ("Conv2D",),
    "ConvTranspose": ("Conv2DTranspose",),
    "Div": ("RealDiv",),
    "LogSoftmax": ("LogSoftmaxV2",),
    "MatMul": ("BatchMatMul", "BatchMatMulV2", "GEMM", "MatMul", "MatMulV2"),
    "MaxPool": ("MaxPool", "MaxPoolV3"),
    "ReduceMean": ("GlobalAveragePool", "ReduceMean", "ReduceMeanD"),
    "Softmax": ("SoftmaxV2",),
    "Split": ("SplitD", "SplitV"),
}


@dataclass(frozen=True)
class Way:
    """A flag of ATC that keeps units in float32, and what its file may name."""

    flag: str
    members: Mapping[str, Sequence[str]]  # what the file may name -> the units that stay in float32 with it

    def naming(self, units: Iterable[str]) -> list[str]:
        """What names these units, in their order."""
        names = {unit: name for name, members in self.members.items() for unit in members}
        return list(dict.fromkeys(names[unit] for unit in units))

    def units(self, kept: Collection[str]) -> set[str]:
        """The units that stay in float32 where the file names `kept`."""
        return {unit for name in kept for unit in self.members[name]}

    def flags(self, flags: Mapping[str, str], path: str) -> dict[str, str]:
        """ATC's flags with the file at `path`; a list of types needs a mode of its own."""
        if self.flag == KEEP:
            return {**flags, KEEP: path}
        mode = "precision_mode_v2" if "precision_mode_v2" in flags else "precision_mode"
        others = {flag: value for flag, value in flags.items() if flag != mode}
        return {mode: MODES[mode][1], **others, MIXLIST: path}

    def text(self, kept: Collection[str]) -> str:
        """The file. Lists of types say of every type of the graph what becomes of it, whatever CANN's own lists are."""
        named = [name for name in self.members if name in kept]
        if self.flag == KEEP:
            return "".join(f"{name}\n" for name in named)
        lists = {"black-list": named, "white-list": [name for name in self.members if name not in kept]}
        content = {
            each: {"to-add": [kind for name in names for kind in _IR_TYPES.get(name, (name,))]}
            for each, names in lists.items()
            if names
        }
        return json.dumps(content, indent=1) + "\n"


def by_name(units: Sequence[Unit]) -> Way:
    return Way(KEEP, {unit.name: [unit.name] for unit in units})


def by_type(units: Sequence[Unit]) -> Way:
    """A batch-norm that is folded into a convolution is of the convolution's type."""
    members: dict[str, list[str]] = {}
    for unit in units:
        kind = unit.nodes[0].op_type
        members.setdefault(_SAME.get(kind, kind), []).append(unit.name)
    return Way(MIXLIST, members)
