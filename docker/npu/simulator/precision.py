"""Which nodes of an ONNX graph atc lowers to float16: --precision_mode(_v2), --keep_dtype, --modify_mixlist.

Facts: the ATC manual's pages of these four, and GE's keep_dtype reader, which trims each line and takes a name or
`OpType::<Ascend IR type>`.
"""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

CUBE = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])  # the matrix operators
# Stand-ins for `precision_reduce` true and false in CANN's ops-info; what neither names follows the operator before it.
WHITE = CUBE
BLACK = frozenset(["Exp", "Log", "LogSoftmax", "Pow", "ReduceMean", "ReduceSum", "Softmax", "Softplus"])
# What Ascend IR calls an operator, where ONNX calls it otherwise.
IR_TYPES = {
    "AveragePool": ("AvgPool", "AvgPoolV2"),
    "BatchNormalization": ("BatchNorm", "BNInference"),
    "Concat": ("ConcatD", "ConcatV2"),
    "Conv": ("Conv2D",),
    "ConvTranspose": ("Conv2DTranspose",),
    "Div": ("RealDiv",),
    "Gemm": ("GEMM", "MatMulV2"),
    "GlobalAveragePool": ("GlobalAveragePool", "ReduceMean"),
    "LogSoftmax": ("LogSoftmaxV2",),
    "MatMul": ("BatchMatMul", "BatchMatMulV2", "MatMul", "MatMulV2"),
    "MaxPool": ("MaxPool", "MaxPoolV3"),
    "Softmax": ("SoftmaxV2",),
    "Split": ("SplitD", "SplitV"),
}
HALF, CUBE_OUT, KEPT = "float16", "float16 in, float32 out", "float32"

MODES = ("force_fp32", "must_keep_origin_dtype", "allow_fp32_to_fp16", "allow_mix_precision", "force_fp16")
NEW_MODES = ("allow_mix_precision_fp16", "cube_fp16in_fp32out")
MODES_V2 = ("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16")
NEW_SINCE = (7, 0)  # the CANN that brought NEW_MODES and --precision_mode_v2
WARNED_SINCE = (
    8,
    5,
)  # the CANN from which an operator that keep_dtype lists and the graph lacks is a warning in the log
_WIDE = ("force_fp32", "must_keep_origin_dtype", "origin")
_MIXED = ("allow_mix_precision", "allow_mix_precision_fp16", "mixed_float16")
_LISTS = ("black-list", "white-list", "gray-list")
_TYPE = "OpType::"


class PrecisionError(Exception):
    """A file or a pair of flags that atc refuses."""

    def __init__(self, code: str, **fields: str) -> None:
        self.code, self.fields = code, fields
        super().__init__(str(fields))


def check(flags: Mapping[str, str], release: tuple[int, ...]) -> None:
    """PrecisionError for a mode that this CANN lacks, or flags that exclude each other; no file is read."""
    allowed = {"precision_mode": MODES + (NEW_MODES if release >= NEW_SINCE else ()), "precision_mode_v2": MODES_V2}
    for name, modes in allowed.items():
        if flags.get(name, modes[0]) not in modes:
            reason = f"it must be one of {', '.join(modes)}."
            raise PrecisionError("E10001", value=flags[name], parameter=f"--{name}", reason=reason)
    if "precision_mode" in flags and "precision_mode_v2" in flags:
        raise PrecisionError("E10056", first="--precision_mode", second="--precision_mode_v2")
    if "modify_mixlist" in flags and mode_of(flags) not in _MIXED:
        reason = (
            "modify_mixlist is assigned, please ensure that precision_mode is assigned to 'allow_mix_precision'"
            if release < NEW_SINCE
            else "Modify_mixlist is set. Please ensure that precision_mode is set to any of "
            "{allow_mix_precision, allow_mix_precision_fp16} or precision_mode_v2 to mixed_float16."
        )
        raise PrecisionError("E10001", value=flags["modify_mixlist"], parameter="--modify_mixlist", reason=reason)


def mode_of(flags: Mapping[str, str]) -> str:
    return flags.get("precision_mode_v2") or flags.get("precision_mode") or "force_fp16"


def name_nodes(graph: "onnx.GraphProto") -> None:
    """Give a name to the nodes without one, as the parser does, which counts those alone."""
    for index, node in enumerate([node for node in graph.node if not node.name]):
        node.name = f"{node.op_type}_{index}"


def precisions(
    graph: "onnx.GraphProto",
    flags: Mapping[str, str],
    release: tuple[int, ...],
    moved: Collection[str],
    narrow_cube: bool = False,
) -> list[str]:
    """HALF, CUBE_OUT or KEPT for each node of `graph`; `moved` are the operators that have no kernel of their own.

    With `narrow_cube` the chip's matrix unit takes float16 alone: no flag keeps its operators whole.

    Raises PrecisionError for a list that can't be read, or names what the graph lacks.
    """
    mode = mode_of(flags)
    kept = _kept(graph, flags["keep_dtype"], release) if "keep_dtype" in flags else frozenset()
    if mode in _WIDE:
        found = [KEPT] * len(graph.node)
    elif mode in _MIXED:
        found = _mixed(graph, *_lists(flags.get("modify_mixlist")), moved)
    elif mode == "allow_fp32_to_fp16":
        found = [HALF if node.op_type in CUBE else KEPT for node in graph.node]
    elif mode == "cube_fp16in_fp32out":
        found = [CUBE_OUT if node.op_type in CUBE else KEPT for node in graph.node]
    else:
        found = [HALF] * len(graph.node)
    inside = folded(graph)  # a batch-norm is part of the convolution before it, so to keep either is to keep both
    kept = kept | {inside[index] for index in kept & inside.keys()}
    for index, node in enumerate(graph.node):
        if index in kept:
            found[index] = KEPT
        if narrow_cube and node.op_type in CUBE and found[index] == KEPT:
            found[index] = CUBE_OUT
    return [found[inside.get(index, index)] for index in range(len(found))]


def _kept(graph: "onnx.GraphProto", path: str, release: tuple[int, ...]) -> frozenset[int]:
    """The nodes that a keep_dtype file lists, by name or by type, one a line."""
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        reason = "file not found" if release < NEW_SINCE else "File defined by keep_dtype is not found."
        raise PrecisionError("E10001", value=path, parameter="--keep_dtype", reason=reason) from None
    if not lines:
        raise PrecisionError("E10003", value=path, parameter="keep_dtype", reason="config file lists no operator")
    found: set[int] = set()
    unknown: list[str] = []
    for line in lines:
        kind = line.removeprefix(_TYPE) if line.startswith(_TYPE) else None
        listed = {
            index
            for index, node in enumerate(graph.node)
            if (kind in ir_types(node) if kind is not None else node.name == line)
        }
        found |= listed
        if not listed:
            unknown.append(line)
            if release >= WARNED_SINCE and kind is not None and not re.fullmatch("[A-Z][a-zA-Z0-9]*", kind):
                reason = f"The operator type [{kind}] in the config file is invalid. It must be in PascalCase."
                raise PrecisionError("E10003", value=path, parameter="keep_dtype", reason=reason)
    if unknown and release < WARNED_SINCE:
        said = " ".join(
            f"op type:{line.removeprefix(_TYPE)}" if line.startswith(_TYPE) else f"op name:{line}"
            for line in unknown[:10]
        )
        count = f"{len(unknown)} operator{'s' if len(unknown) > 1 else ''}"
        reason = f"config file contains {count} not in the graph, {said}"
        raise PrecisionError("E10003", value=path, parameter="keep_dtype", reason=reason)
    return frozenset(found)


def ir_types(node: "onnx.NodeProto") -> tuple[str, ...]:
    """The Ascend IR types that an ONNX node may become."""
    return IR_TYPES.get(node.op_type, (node.op_type,))


def _lists(path: str | None) -> tuple[frozenset[str], frozenset[str]]:
    """The white and the black list of Ascend IR types, as a --modify_mixlist file changes them."""
    white, black = ({ir for kind in kinds for ir in IR_TYPES.get(kind, (kind,))} for kinds in (WHITE, BLACK))
    if path is None:
        return frozenset(white), frozenset(black)

    def refuse(reason: str) -> PrecisionError:
        return PrecisionError("E10001", value=str(path), parameter="--modify_mixlist", reason=reason)

    try:
        content = json.loads(Path(path).read_text("utf-8"))
        changes = {
            (name, verb): [str(kind) for kind in content.get(name, {}).get(verb, [])]
            for name in _LISTS
            for verb in ("to-remove", "to-add")
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise refuse(f"it is no list of operators ({error})") from None
    if not any(changes.values()):
        raise refuse("it lists no operator")
    gray: set[str] = set()
    lists = dict(zip(_LISTS, (black, white, gray), strict=True))
    for (name, verb), kinds in changes.items():
        for kind in kinds:
            if verb == "to-remove" and name != "gray-list" and kind not in lists[name]:
                raise refuse(f"{kind} is not on the {name}")
            for other in lists.values():
                other.discard(kind)
            if verb == "to-add":
                lists[name].add(kind)
    return frozenset(white), frozenset(black)


def _mixed(
    graph: "onnx.GraphProto", white: Collection[str], black: Collection[str], moved: Collection[str]
) -> list[str]:
    """Mixed precision: white operators are lowered, black ones kept, the others as the operator before them."""
    made: dict[str, str] = {}  # tensor -> the precision of the operator that made it
    found: list[str] = []
    for node in graph.node:
        types = ir_types(node)
        before = next((made[name] for name in node.input if name in made), KEPT)
        if node.op_type in moved:
            precision = before
        elif any(kind in black for kind in types):
            precision = KEPT
        else:
            precision = HALF if any(kind in white for kind in types) else before
        found.append(precision)
        made.update(dict.fromkeys(node.output, precision))
    return found


def folded(graph: "onnx.GraphProto") -> dict[int, int]:
    """Batch-norms that are folded into the convolution before them: their index -> the convolution's."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    uses: dict[str, int] = {}
    for name in [name for node in graph.node for name in node.input] + [value.name for value in graph.output]:
        uses[name] = uses.get(name, 0) + 1
    found = {}
    for index, node in enumerate(graph.node):
        maker = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if maker is not None and uses[node.input[0]] == 1 and graph.node[maker].op_type in ("Conv", "ConvTranspose"):
            found[index] = maker
    return found
