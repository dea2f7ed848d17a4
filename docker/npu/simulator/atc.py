"""atc of a simulated host: ONNX to an offline model (om.py), with the real tool's flags, messages and exit statuses."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import precision
import scenario
from scenario import Scenario

if TYPE_CHECKING:
    import onnx


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What the real tool's --help lists; those of the second half change what is computed and are not played.
FLAGS = _words("""
    model framework output input_format input_shape soc_version precision_mode op_select_implmode
    optypelist_for_implmode dynamic_batch_size output_type log mode aicore_num auto_tune_mode buffer_optimize
    check_report core_type debug_dir device_id disable_reuse_memory display_model_info
    enable_scope_fusion_passes enable_single_stream enable_small_channel fusion_switch_file host_env_cpu
    host_env_os jit_compile mdl_bank_path op_bank_path op_compiler_cache_dir op_compiler_cache_mode
    op_debug_level op_debug_config save_original_model status_check external_weight deterministic keep_dtype
    modify_mixlist precision_mode_v2
""")
NOT_PLAYED = _words("""
    cal_conf compress_weight_conf compression_optimize_conf customize_dtypes dump_mode dynamic_dims
    dynamic_image_size enable_compress_weight input_fp16_nodes input_hint_shape input_shape_range insert_op_conf
    is_input_adjust_hw_layout is_output_adjust_hw_layout json om op_name_map op_precision_mode out_nodes singleop
    sparsity target virtual_type weight
""")
IMPLEMENTATION_MODES = ("high_precision", "high_performance", "high_precision_for_all", "high_performance_for_all")
MODEL_BYTES = (1 << 31) - 1
SOC = r"Ascend(310|310P[1-7]|310B[1-4]|910|910A|910B|910(Pro|Premium)[AB]|910B[1-4](-1)?)"
NEW_SOCS = {(8, 0): r"Ascend910_93[0-9]{2}", (8, 5): r"Ascend950(PR|DT)_95[0-9]{2}"}  # and since which CANN
SHAPE_FORM = '"input_name1:n1,c1,h1,w1;input_name2:n2,c2,h2,w2"'


@dataclass(frozen=True)
class Message:
    """An error code's message, the advice under it, and what to fill in when NPU_SIM_ATC_ERROR asks for it."""

    text: str
    advice: str
    example: Mapping[str, str]


MESSAGES = {
    "E10001": Message(
        "Value [{value}] for parameter [{parameter}] is invalid. Reason: {reason}",
        "Give the parameter a value that it takes.",
        {
            "value": "half",
            "parameter": "--precision_mode",
            "reason": f"it must be one of {', '.join(precision.MODES)}.",
        },
    ),
    "E10002": Message(
        "Value [{value}] for parameter [--input_shape] is invalid. Reason: {reason}. The value must be formatted as "
        + SHAPE_FORM
        + ".",
        "Write every input's name and its integer dimensions.",
        {"value": "input1", "reason": "it has no colon"},
    ),
    "E10003": Message(
        "Value [{value}] for parameter [--{parameter}] is invalid. Reason: {reason}",
        "Name operators of the model.",
        {
            "value": "keep.cfg",
            "parameter": "keep_dtype",
            "reason": "config file contains 1 operator not in the graph, op name:Conv_0",
        },
    ),
    "E10004": Message("Value for [--{parameter}] is empty.", "Set the parameter.", {"parameter": "output"}),
    "E10007": Message(
        "[--framework] is required. The value must be [0(Caffe) or 1(MindSpore) or 3(TensorFlow) or 5(Onnx)].",
        "Set the parameter.",
        {},
    ),
    "E10010": Message(
        "Value [{value}] for parameter [--log] is invalid.",
        "Choose among debug, info, warning, error and null.",
        {"value": "loud"},
    ),
    "E10011": Message(
        "Value [{value}] for parameter [--input_shape] is invalid. Shape values must be positive integers. The error "
        "value in the shape is [{size}].",
        "A dimension is positive, or -1 together with --dynamic_batch_size.",
        {"value": "input1:0,3,300,18,2", "size": "0"},
    ),
    "E10016": Message(
        "Opname [{name}] specified in [--input_shape] is not found in the model. Confirm whether this node name "
        "exists, or node is not split with the specified delimiter ';'.",
        "Name an input of the model.",
        {"name": "input"},
    ),
    "E10022": Message(
        "Path [{path}] for parameter [--output] does not include the file name.",
        "End the path with a file name.",
        {"path": "./"},
    ),
    "E10031": Message(
        "--dynamic_batch_size is included, but none of the nodes specified in --input_shape has a batch size equaling "
        "-1.",
        "Set the first dimension in --input_shape to -1.",
        {},
    ),
    "E10041": Message(
        "Failed to load the model from [{path}].",
        "Give a complete ONNX file that this user may read.",
        {"path": "model.onnx"},
    ),
    "E10054": Message(
        "The requied parameter [--{parameter}] for ATC is empty. Another possible reason is that the value of some "
        'parameter is not enclosed by quotation marks ("").',
        "Set the parameter.",
        {"parameter": "soc_version"},
    ),
    "E10056": Message(
        "Cannot configure both parameters [{first}] and [{second}] simultaneously.",
        "Set one of the two.",
        {"first": "--precision_mode", "second": "--precision_mode_v2"},
    ),
    "E19010": Message(
        "No parser is registered for Op [{name}, optype [{domain}::{opset}::{kind}]].",
        "Export the model with an opset that this CANN knows.",
        {"name": "Conv_0", "domain": "ai.onnx", "opset": "23", "kind": "Conv"},
    ),
    "E16005": Message(
        "The model has [{count}] [--domain_version] fields, but only one is allowed.",
        "Keep one opset domain in the model.",
        {"count": "2"},
    ),
    "E19999": Message("{reason}", "Look into the log.", {"reason": "Infer shape failed."}),
    "E20002": Message(
        "Value [{path}] for environment variable [ASCEND_OPP_PATH] is invalid when load buildin op store.",
        "Reset the environment variable by referring to the installation guide.",
        {"path": "/usr/local/Ascend/nnrt/latest/opp/"},
    ),
    "E40021": Message(
        "Failed to compile Op [{name}]. (oppath: [Compile opp/built-in/op_impl/ai_core/tbe/impl/dynamic/cast.py failed "
        "with errormsg/stack: {reason}], optype: [Cast])",
        "See the host log for details.",
        {"name": "trans_Cast_0", "reason": "compile error"},
    ),
    "EC0010": Message(
        "Failed to import Python module [{reason}].",
        "Install the module for the python3 that is first on PATH.",
        {"reason": "ModuleNotFoundError: No module named 'decorator'"},
    ),
    "EE1001": Message(
        "The argument is invalid.Reason: Soc version [{name}] is invalid",
        "Take the chip's name from npu-smi.",
        {"name": "Ascend310310P3"},
    ),
    "EZ3003": Message(
        "No supported Ops kernel and engine are found for [{name}], optype [{kind}].",
        "Export the model without this operator.",
        {"name": "Einsum_12", "kind": "Einsum"},
    ),
}


TITLES = {
    "E10002": "Invalid_Argument_Tensor_Input_Shape",
    "E10011": "Invalid_Argument_Tensor_Input_Shape",
    "E10016": "Invalid_Argument_Operator_Name",
    "E10031": "Invalid_Argument_Tensor_Input_Shape",
    "E10041": "Invalid_Argument_Model",
    "E16005": "Invalid_Argument_Model",
    "E19010": "Not_Supported_Operator",
    "E20002": "Environment_Error_Invalid_Environment_Variable",
    "E40021": "Compilation_Error",
    "EC0010": "Environment_Error_Import_Python_Module_Failed",
    "EZ3003": "Unsupported_Operator",
}


class AtcError(Exception):
    """What ends a conversion: a code of MESSAGES and what its message names."""

    def __init__(self, code: str, **fields: str) -> None:
        self.code, self.message = code, MESSAGES[code]
        super().__init__(self.message.text.format(**fields))
        # CANN 8.5 puts no brackets around what a message names, but where an operator is named.
        text = self.message.text
        plain = text if code in ("EZ3003", "E40021") else re.sub(r"\[(\{\w+\}|--[^\]]*)\]", r"\1", text)
        self.bare = plain.format(**fields)

    def report(self, cann: str, now: datetime) -> str:
        """The error as printed by this CANN: from 8.0 on with process and time, from 8.5 on before a title."""
        release = _release(cann)
        stamp = f"[PID: {os.getpid()}] {now:%Y-%m-%d-%H:%M:%S}.{now.microsecond // 1000:03}.000 "
        if self.code == "E19999":  # the cause is below its heading
            forms = {(8, 5): f"{stamp}Inner_Error(E19999): ", (8, 0): f": {stamp}", (0,): " "}
            mark = next(form for since, form in forms.items() if release >= since)
            head = f"E19999: Inner Error!\nE19999{mark} {self}[FUNC:Simulate][FILE:om.cc][LINE:1]"
        elif release >= (8, 5):
            head = f"{stamp}{TITLES.get(self.code, 'Invalid_Argument')}({self.code}): {self.bare}"
        else:
            head = f"{self.code}: {stamp if release >= (8, 0) else ''}{self}"
        lines = [
            head,
            "Possible Cause: N/A",
            f"Solution: {self.message.advice}",
            "TraceBack (most recent call last):",
            "the simulated atc keeps no trace",
        ]
        return "\n        ".join(lines)


class FlagError(Exception):
    """A flag that atc doesn't have, or that the simulator doesn't play; str() is the line for stderr."""


def parse_flags(arguments: Sequence[str]) -> dict[str, str]:
    """`--name=value`, `--name value` and `-name` as gflags reads them, dashes in names as good as underscores."""
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        found = re.fullmatch(r"--?([\w-]+)(?:=(.*))?", rest.pop(0), re.DOTALL)
        if found is None:
            continue  # gflags leaves words that are no flags alone
        name, value = found[1].replace("-", "_"), found[2]
        if name not in FLAGS | NOT_PLAYED:
            raise FlagError(f"ERROR: unknown command line flag '{name}'")
        if value is None and not rest:
            raise FlagError(f"ERROR: flag '--{name}' is missing its argument")
        flags[name] = rest.pop(0) if value is None else value
    return flags


def parse_shape(text: str) -> dict[str, list[int]]:
    """`input1:8,3,300,18,2;...` as dimensions by input name; E10002 for another form, E10011 for a size below 1."""
    shapes: dict[str, list[int]] = {}
    for item in filter(None, text.strip().strip(";").split(";")):
        name, colon, sizes = item.rpartition(":")
        if not colon or not name:
            raise AtcError("E10002", value=item, reason="it has no colon")
        if not re.fullmatch(r"-?[0-9]{1,18}(,-?[0-9]{1,18})*", sizes):
            raise AtcError("E10002", value=item, reason="its dimensions are no integers")
        shapes[name] = [int(size) for size in sizes.split(",")]
    return shapes


def check_flags(flags: Mapping[str, str], cann: str) -> None:
    """AtcError for the first value that atc refuses before it opens the model."""
    for name in ("model", "output", "soc_version"):
        if name not in flags:
            raise AtcError("E10054", parameter=name)
        if not flags[name]:
            raise AtcError("E10004", parameter=name)
    if flags.get("framework") != "5":
        raise AtcError("E10007")
    if flags["output"].endswith("/") or Path(flags["output"]).is_dir():
        raise AtcError("E10022", path=flags["output"])
    if not knows(flags["soc_version"], cann):
        raise AtcError("EE1001", name=flags["soc_version"])
    if flags.get("log", "null") not in ("debug", "info", "warning", "error", "null"):
        raise AtcError("E10010", value=flags["log"])
    choices = {
        "op_select_implmode": IMPLEMENTATION_MODES,
        "input_format": ("NCHW", "NHWC", "ND", "NCDHW", "NDHWC"),
        "output_type": ("FP32", "FP16"),
        "mode": ("0",),
    }
    for name, allowed in choices.items():
        if flags.get(name, allowed[0]) not in allowed:
            reason = f"it must be one of {', '.join(allowed)}."
            raise AtcError("E10001", value=flags[name], parameter=f"--{name}", reason=reason)
    with _refused():
        precision.check(flags, _release(cann))


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except precision.PrecisionError as error:
        raise AtcError(error.code, **error.fields) from None


def input_shapes(model: "onnx.ModelProto", given: Mapping[str, Sequence[int]], gears: str) -> dict[str, list[int]]:
    """The shape of each input: as given, else as in the model; -1 only first and only with --dynamic_batch_size."""
    weights = {weight.name for weight in model.graph.initializer}
    known = {
        value.name: [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in weights
    }
    for name in given:
        if name not in known:
            raise AtcError("E10016", name=name)
    shapes = {name: list(given.get(name, shape)) for name, shape in known.items()}
    for name, shape in shapes.items():
        text = f"{name}:{','.join(map(str, shape))}"
        if name not in given and min(shape) < 1:
            reason = "maybe you should set input_shape to specify its shape"
            raise AtcError("E10001", value="-1", parameter=name, reason=reason)
        if len(shape) != len(known[name]):
            reason = f"the model's input has {len(known[name])} dimensions."
            raise AtcError("E10001", value=text, parameter="--input_shape", reason=reason)
        if wrong := [size for size in shape[1 if gears else 0 :] if size < 1]:
            raise AtcError("E10011", value=text, size=str(wrong[0]))
    if gears and all(shape[0] != -1 for shape in shapes.values()):
        raise AtcError("E10031")
    if gears and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)+", gears):
        reason = "it must be two or more positive integers, separated by commas."
        raise AtcError("E10001", value=gears, parameter="--dynamic_batch_size", reason=reason)
    return shapes


def check_operators(model: "onnx.ModelProto", newest: int) -> None:
    """E19010 for an opset that this CANN's parsers don't know, EZ3003 for an operator without a kernel."""
    from om import OPERATORS

    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    for node in model.graph.node:
        domain = node.domain or "ai.onnx"
        opset = opsets.get(domain, 0)
        if domain != "ai.onnx" or opset > newest:
            raise AtcError("E19010", name=node.name, domain=domain, opset=str(opset), kind=node.op_type)
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            raise AtcError("EZ3003", name=node.name, kind=node.op_type)


def read_model(path: str) -> "onnx.ModelProto":
    """The checked ONNX model; E10041 if it can't be read."""
    import onnx

    try:
        if not Path(path).is_file() or Path(path).stat().st_size > MODEL_BYTES:
            raise ValueError("a pipe or a device may never end, and protobuf takes no more")
        model = onnx.load(path)
        onnx.checker.check_model(model)
        if not model.graph.node:
            raise ValueError("no nodes")
    except Exception as error:  # whatever protobuf and the checker make of a file that is no model
        raise AtcError("E10041", path=path) from error
    return model


def convert(flags: Mapping[str, str], played: Scenario, cann: str) -> None:
    """Write the offline model `<output>.om`; AtcError for whatever the real tool would refuse."""
    check_flags(flags, cann)
    given = parse_shape(flags.get("input_shape", ""))
    wanted = played.atc_error
    if wanted and wanted.batch_size in (None, *(shape[0] for shape in given.values())):
        raise AtcError(wanted.code, **MESSAGES[wanted.code].example)
    model = read_model(flags["model"])
    import om

    check_operators(model, newest=18 if _release(cann) >= (7, 0) else 13)
    gears = flags.get("dynamic_batch_size", "")
    shapes = input_shapes(model, given, gears)
    try:
        model = om.fix_shape(model, shapes)
        precision.name_nodes(model.graph)
        if played.bad_block is not None:
            om.spoil_block(model, played.bad_block)
        with _refused():
            precisions = precision.precisions(model.graph, flags, _release(cann), om.VIEWS, played.narrow_cube)
        om.lower(model, precisions)
        if played.slow_block is not None:
            om.slow_block(model, played.slow_block)
    except om.OmError as error:
        raise AtcError("E19999", reason=str(error)) from error
    if flags.get("output_type") == "FP16":
        om.halve_outputs(model)
    output = Path(f"{flags['output']}.om")
    metadata = {"soc_version": flags["soc_version"], "cann": cann, "precision_mode": precision.mode_of(flags)}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        om.save(model, output, metadata | ({"dynamic_batch_size": gears} if gears else {}))
    except OSError as error:
        raise AtcError("E10001", value=flags["output"], parameter="--output", reason=str(error)) from error


def cann_version() -> str:
    """The version in $ASCEND_TOOLKIT_HOME; E10001 on host_env_os, as the real tool says it, if there is none."""
    home = os.environ.get("ASCEND_TOOLKIT_HOME")
    if not home:
        reason = "Couldn't find opp path, source CANN's set_env.sh."
        raise AtcError("E10001", value="linux", parameter="--host_env_os", reason=reason)
    places = (Path(home, f"{os.uname().machine}-linux"), Path(home))  # since 8.5, and before
    folder = next(place for place in places if (place / "ascend_toolkit_install.info").is_file())
    lines = (folder / "ascend_toolkit_install.info").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("version="))


def _release(cann: str) -> tuple[int, ...]:
    """(8, 5) of `8.5.0`."""
    return tuple(int(part) for part in cann.split(".")[:2]) if cann else (0,)


def knows(soc_version: str, cann: str) -> bool:
    """Whether this CANN can convert for a SoC."""
    new = [form for since, form in NEW_SOCS.items() if _release(cann) >= since]
    return any(re.fullmatch(form, soc_version) for form in (SOC, *new))


def _printable(text: str) -> str:
    """`text` without what would command a terminal."""
    return "".join(character for character in text if character.isprintable() or character == "\n")


def run(arguments: Sequence[str], name: str = "ATC") -> int:
    """Convert, print what the real tool prints, and return its exit status: 0, 255, or 1 for a flag it doesn't have."""
    print(f"{name} start working now, please wait for a moment.", flush=True)
    cann = ""
    try:
        flags = parse_flags(arguments)
        if unplayed := sorted(flags.keys() & NOT_PLAYED):
            raise FlagError(f"ERROR: the simulated atc does not play --{unplayed[0]}")
        played = scenario.load()
        if played.atc_error and played.atc_error.code not in MESSAGES:
            raise scenario.ScenarioError(f"NPU_SIM_ATC_ERROR: no such code; there are {', '.join(MESSAGES)}")
        cann = cann_version()
        lacking = {
            "precision_mode_v2": _release(cann) < precision.NEW_SINCE,
            "keep_dtype": played.keep_dtype == "none",
        }
        if unknown := [name for name in flags if lacking.get(name)]:
            raise FlagError(f"ERROR: unknown command line flag '{unknown[0]}'")
        if played.keep_dtype == "ignored":
            flags.pop("keep_dtype", None)
        convert(flags, played, cann)
    except (FlagError, scenario.ScenarioError) as error:
        print(_printable(str(error)), file=sys.stderr)
        return 1
    except AtcError as error:
        print(f"{name} run failed, Please check the detail log, Try '{name.lower()} --help' for more information")
        print(_printable(error.report(cann, datetime.now())))
        return 255
    print(f"{name} run success, welcome to the next use.")
    return 0


def main() -> int:
    if {"-h", "--h", "-help", "--help"} & set(sys.argv[1:]):
        print("usage: atc <args>\n" + "\n".join(f"  --{name}" for name in sorted(FLAGS)))
        return 0
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
