"""ATC, the converter from ONNX to OM, and AOE, the tuner in front of it: command lines, and what their output means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.errors import KitError
from deploy.npu import transcript

SUCCESS = "ATC run success"
AOE_SUCCESS = "Aoe process finished"

_OWN_FLAGS = frozenset({"model", "framework", "output", "input_format", "input_shape", "soc_version", "job_type"})
_ONNX = "5"  # --framework; 0 is Caffe, 1 MindSpore, 3 TensorFlow

# `E10001: Value [x] for parameter [y] is invalid.`, with `[PID: n] <time>` between since CANN 7.
_ERROR = re.compile(r"^(?:\[ERROR\] *)?(E[0-9]{5}|E[A-Z][0-9]{4})\s*:\s*(?:\[PID:\s*[0-9]+\]\s*\S*)?\s*(.*)$")
_UNSOURCED = "name CANN's set_env.sh in the inventory's `tools.env_scripts`"

_ADVICE = {
    "E10001": "correct that value, by its name under `atc` in the inventory if it is one of yours",
    "E10002": "the kit writes --input_shape as name:n,c,t,v,m, which this ATC does not take: use CANN 5.0.4 or later",
    "E10004": "give that flag a value under `atc` in the inventory, or leave it out",
    "E10007": "the kit converts ONNX (--framework=5): make `tools.atc` the atc of a CANN toolkit that has ONNX",
    "E10010": "set `atc.log` in the inventory to debug, info, warning, error or null",
    "E10011": "every dimension must be above 0: check `batch_sizes` in the inventory",
    "E10016": "export the ONNX again with this kit, whose input is `input1`",
    "E10022": "the output must name a file: check the host's `workspace` in the inventory",
    "E10041": "the ONNX did not arrive whole or is none: export and copy it again with --fresh",
    "E10054": "use CANN 5.0.4 or later, or give the missing flag under `atc` in the inventory",
    "EZ3003": "set `variant: reference` in the inventory, whose operators ATC supports, or install a newer CANN with "
    "its operator package (opp, kernels) for this chip",
    "E19010": "export with an opset that this CANN reads (CANN 5.0.4 and 6.0: 9 to 13, CANN 7.0: 9 to 18), or install "
    "a newer CANN",
    "EC0010": "install what it lacks for the python3 that is first on PATH on the NPU host (pip install 'numpy<2' "
    "decorator sympy cffi scipy attrs psutil protobuf absl-py)",
    "EE1001": "this CANN does not know the chip: compare the Name in `npu-smi info`, or install a CANN that has it",
}


@dataclass(frozen=True)
class _Error:
    code: str
    message: str


def argv(
    atc: str,
    onnx: str,
    output: str,
    batch_size: int,
    soc_version: str,
    flags: Mapping[str, str],
    input_name: str = "input1",
    sample_shape: tuple[int, ...] = (3, 300, 18, 2),
) -> list[str]:
    """The command that converts `onnx` into `<output>.om` (ATC appends the suffix), for one batch size.

    `flags` are the inventory's, passed through sorted. Raises KitError where one of them is the kit's own or no flag.
    """
    return [
        atc,
        *_conversion(onnx, output, batch_size, input_name, sample_shape),
        f"--soc_version={soc_version}",
        *_passed_through(flags),
    ]


def aoe_argv(
    aoe: str,
    onnx: str,
    output: str,
    batch_size: int,
    job_type: int,
    flags: Mapping[str, str],
    input_name: str = "input1",
    sample_shape: tuple[int, ...] = (3, 300, 18, 2),
) -> list[str]:
    """The command that tunes `onnx` on the device (job type 1: subgraphs, 2: operators) into `<output>.om`.

    AOE takes ATC's flags, but no --soc_version: it asks the device. Raises KitError as `argv` does.
    """
    return [
        aoe,
        *_conversion(onnx, output, batch_size, input_name, sample_shape),
        f"--job_type={job_type}",
        *_passed_through(flags),
    ]


def parse(output: str, status: int) -> None:
    """Accept an ATC run that says it succeeded and exits 0; else raise KitError with what to do about it."""
    _accept("atc", SUCCESS, output, status)


def parse_aoe(output: str, status: int) -> None:
    """The same for AOE, which reports ATC's errors."""
    _accept("aoe", AOE_SUCCESS, output, status)


def _conversion(onnx: str, output: str, batch_size: int, input_name: str, sample_shape: tuple[int, ...]) -> list[str]:
    shape = ",".join(map(str, (batch_size, *sample_shape)))
    return [
        f"--model={onnx}",
        f"--framework={_ONNX}",
        f"--output={output}",
        "--input_format=ND",
        f"--input_shape={input_name}:{shape}",
    ]


def _passed_through(flags: Mapping[str, str]) -> list[str]:
    for flag in flags:
        if flag in _OWN_FLAGS:
            raise KitError(f"`atc.{flag}` in the inventory is set by the kit itself: remove it there")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", flag):
            raise KitError(f"`atc.{flag}` in the inventory is no ATC flag: write its name without dashes")
    return [f"--{flag}={value}" for flag, value in sorted(flags.items())]


def _accept(tool: str, success: str, output: str, status: int) -> None:
    if status == 0 and success in output:
        return
    if error := _first_error(output):
        raise KitError(f"{tool} failed with {error.code} ({transcript.quote(error.message)}): {_advice(error)}")
    last = transcript.last(output)
    if status == 127 or "error while loading shared libraries" in output:
        raise KitError(f"{tool} does not start (it last said {last}): {_UNSOURCED}, or its path in `tools.atc`")
    if status == 0:
        raise KitError(f"{tool} exits 0 without saying {success!r} (it last said {last}): see its log")
    how = transcript.ending(status) or "failed without an error code"
    raise KitError(f"{tool} {how} (exit status {status}, it last said {last}): see its log")


def _first_error(output: str) -> _Error | None:
    """The first error with advice, else the first: ATC prints the cause first, but wrapping errors may precede it."""
    lines = transcript.lines(output)
    errors = [
        _Error(found[1], found[2] or below)
        for line, below in zip(lines, [*lines[1:], ""], strict=False)
        if (found := _ERROR.match(line))
    ]
    return next((error for error in errors if error.code in _ADVICE), next(iter(errors), None))


def _advice(error: _Error) -> str:
    if error.code == "E10001" and "host_env_os" in error.message:
        return f"the environment is not set, so {_UNSOURCED}"
    if error.code == "E10001" and "Value [-1]" in error.message:
        return "the ONNX has a dynamic dimension that --input_shape does not fix, so export it again with this kit"
    return _ADVICE.get(error.code, "look the code up in the ATC manual, and see its log")
