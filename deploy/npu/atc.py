"""ATC, the converter from ONNX to OM, and AOE, the tuner in front of it: command lines, and what their output means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deploy.errors import KitError
from deploy.hosts.host import Completed
from deploy.npu import cann_error, causes, transcript

SUCCESS = {"atc": "ATC run success", "aoe": "Aoe process finished"}

_OWN_FLAGS = frozenset({"model", "framework", "output", "input_format", "input_shape", "soc_version", "job_type"})
_ONNX = "5"  # --framework; 0 is Caffe, 1 MindSpore, 3 TensorFlow

_PYTHON = frozenset({"E40000", "E40002", "E40020", "E20001", "EC0010"})  # what ATC's Python lacks; EC0010 was E40020
_PYTHON3 = "the python3 that is first on PATH"
_COMPILATION = frozenset({"E40021", "E40024", "EC0011"})
_WRAPPING = _PYTHON | _COMPILATION  # what these report was caused by something else

# An operator's own check of its shapes and types (TBE's codes), its compilation, a fusion of several.
_OF_OPERATOR = re.compile(r"(?:E[5-9]\d{4}|E14\d{3}|E20007|E22\d{3}|EB\d{4}) |\w+ Compilation_Error")


def lacks_flag(message: str, flag: str) -> bool:
    """Whether a conversion failed because this ATC has no such flag."""
    return f"unknown command line flag '{flag}'" in message


def argv(
    tool: str,
    onnx: str,
    output: str,
    batch_size: int,
    flags: Mapping[str, str],
    inputs: Mapping[str, Sequence[int]],
    *,
    soc_version: str | None = None,
    job_type: int | None = None,
) -> list[str]:
    """The command that converts `onnx` into `<output>.om` (the tools append the suffix), for one batch size.

    `inputs` maps each input's name to the shape of a row; `flags` are the inventory's, passed through sorted. ATC is
    told the `soc_version`; AOE, which takes ATC's flags, asks the device, and is told a `job_type` (1: subgraphs,
    2: operators). Raises KitError where a flag is the kit's own or none.
    """
    shapes = (f"{name}:{','.join(map(str, (batch_size, *shape)))}" for name, shape in inputs.items())
    return [
        tool,
        f"--model={onnx}",
        f"--framework={_ONNX}",
        f"--output={output}",
        "--input_format=ND",
        f"--input_shape={';'.join(shapes)}",
        *([f"--soc_version={soc_version}"] if soc_version else []),
        *([f"--job_type={job_type}"] if job_type else []),
        *_passed_through(flags),
    ]


def parse(tool: str, output: str, status: int) -> None:
    """Accept a run of `atc`, or of `aoe`, which reports ATC's errors, that says it succeeded and exits 0; else raise
    KitError with what to do about it."""
    if status != 0 or SUCCESS[tool] not in output:
        raise KitError(_refusal(tool, SUCCESS[tool], output, status))


def parse_help(done: Completed) -> str:
    """What `atc --help` shows of itself; it may exit with 1. Raises KitError where it does not start."""
    lines = transcript.lines(done.output)
    if not any(re.match(r"-?-(model|framework)\b", line) for line in lines):
        raise KitError(_refusal("atc", "--model", done.output, done.status))
    return transcript.quote(next((line for line in lines if "usage" in line.lower()), lines[0]))


def _passed_through(flags: Mapping[str, str]) -> list[str]:
    for flag in flags:
        if flag in _OWN_FLAGS:
            raise KitError(f"`atc.{flag}` in the inventory is set by the kit itself: remove it there")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", flag):
            raise KitError(f"`atc.{flag}` in the inventory is no ATC flag: write its name without dashes")
    return [f"--{flag}={value}" for flag, value in sorted(flags.items())]


def _refusal(tool: str, success: str, output: str, status: int) -> str:
    """What went wrong, from the best that the tool printed: a code, a known complaint without one, its first error."""
    lines = transcript.lines(output)
    errors = cann_error.errors(lines)
    if all(error.code in _WRAPPING or error.is_inner for error in errors) and (host := causes.find("host", lines)):
        code = f" with {errors[0].code}" if errors else ""
        return f"{tool} failed{code} ({transcript.quote(host[0].strip(': '))}): {host[1]}"
    advised = ((error, advice) for error in errors if (advice := _advice(error)))
    if told := next(advised, next(((error, _last_advice(error)) for error in errors), None)):
        return f"{tool} failed with {told[0].code} ({transcript.quote(told[0].message)}): {told[1]}"
    if unwhole := causes.find("python", lines):
        return f"{tool} failed: {_PYTHON3} on the NPU host {unwhole[1]}"
    if known := causes.find("atc", lines):
        return f"{tool} failed ({transcript.quote(known[0])}): {known[1]}"
    last = transcript.last(output)
    if status in (126, 127):
        return f"{tool} does not start (it last said {last}): {causes.phrase('unsourced')}, or its path in `tools.atc`"
    if status == 0:
        return f"{tool} exits 0 without saying {success!r} (it last said {last}): see its log"
    first = cann_error.first_logged(lines)
    said = f"its first error is '{transcript.quote(first)}'" if first else f"it last said {last}"
    if how := transcript.ending(status):
        return f"{tool} {how} (exit status {status}, {said}): see its log"
    short = f"if the host was short of memory, {causes.phrase('serial')}; else " if first and "ompile" in first else ""
    return f"{tool} failed without an error code (exit status {status}, {said}): {short}see its log"


def _advice(error: cann_error.CannError) -> str | None:
    """What to do about an error that says what is wrong; None of one inside CANN, and of a code without a kind."""
    text = error.message
    if error.is_inner:
        return None
    if error.code == "E10001" and "host_env_os" in text:
        return f"the environment is not set, so {causes.phrase('unsourced')}"
    if error.code == "E10001" and re.search(r"Value \[?-1\]? for parameter \[?(?!-|ge\.)", text):
        return "the ONNX has a dynamic dimension that --input_shape does not fix, so export it again with this kit"
    if error.code in ("E10001", "E10003", "E10014", "EE1001") and re.search(r"soc_?\s?version", text, re.IGNORECASE):
        return causes.phrase("chip")
    if re.match(r"No (?:ONNX )?parser|No operator plugin", text):
        return causes.phrase("opset")
    if error.code in _PYTHON and not re.search(r"compile Op\b|compilation failed", text, re.IGNORECASE):
        return _python_advice(text + "\n" + error.detail)  # E20001 was of Python in CANN 5
    if error.code in _WRAPPING or _OF_OPERATOR.match(error.kind):
        return _compilation_advice(error)
    if error.code == "EZ3003" and re.search(r"optype \[?(Conv2D|MatMul\w*|BatchNorm\w*|Relu|Add|Transpose\w*)\b", text):
        return (
            "every chip has this operator, so ATC was told another chip than its operator package is for: compare "
            "`npu-smi info` with `chip` in the inventory, or install this chip's operator package (kernels, ops)"
        )
    return error.advice("atc codes", "host codes", "atc kinds")


def _last_advice(error: cann_error.CannError) -> str:
    if error.is_inner:
        return _known("atc inner", error.message)
    return "look the code up in the ATC manual, and see its log"


def _known(table: str, text: str) -> str:
    """By a table whose last pattern is in any text."""
    known = causes.find(table, [text])
    assert known
    return known[1]


def _python_advice(text: str) -> str:
    packages, first = causes.phrase("packages"), _PYTHON3
    if "undefined symbol" in text:
        return _known("atc", text)
    if re.search(r"No module named '?(?:distutils|imp)\b|FrameLocalsProxy", text):
        return (
            f"this CANN is for an older Python: put one that it supports first on PATH (3.7 to 3.11), with {packages}"
        )
    if unwhole := causes.find("python", [text]):
        return f"{first} on the NPU host {unwhole[1]}"
    if re.search(r"np\.|numpy", text, re.IGNORECASE):
        return causes.phrase("numpy")
    if found := re.search(r"No module named '?([\w.]+)|Failed to import (te\b[\w.]*|tbe\b[\w.]*)", text):
        module = found[1] or found[2].rstrip(".")
        if module.split(".")[0] in ("te", "tbe", "topi", "impl", "auto_tune", "schedule_search"):
            sourced = causes.phrase("unsourced")
            return f"{module} is CANN's own, so {sourced}, and let {first} be one that this CANN supports"
        return f"{first} on the NPU host has no {module}: {packages}"
    return f"correct {first} on the NPU host: {packages}"


def _compilation_advice(error: cann_error.CannError) -> str:
    """An operator did not compile: its name is in the error's own words, the reason behind them."""
    text = error.message + "\n" + error.detail
    if re.search(r"No module named|Failed to import|FrameLocalsProxy", text):
        return _python_advice(text)
    return _known("atc compiling", text)
