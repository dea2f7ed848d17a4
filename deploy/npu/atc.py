"""ATC, the converter from ONNX to OM, and AOE, the tuner in front of it: command lines, and what their output means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deploy.errors import KitError
from deploy.hosts.host import Completed
from deploy.npu import cann_error, host_error, transcript

SUCCESS = "ATC run success"
AOE_SUCCESS = "Aoe process finished"

_OWN_FLAGS = frozenset({"model", "framework", "output", "input_format", "input_shape", "soc_version", "job_type"})
_ONNX = "5"  # --framework; 0 is Caffe, 1 MindSpore, 3 TensorFlow

_UNSOURCED = "name CANN's set_env.sh in the inventory's `tools.env_scripts`"
_SERIAL = 'set `TE_PARALLEL_COMPILER: "1"` under `tools.env` in the inventory, which compiles one operator at a time'
_OUT_OF_MEMORY = f"the host ran out of memory: {_SERIAL}, or give it more"
_PACKAGES = "pip install 'numpy<2' decorator sympy cffi scipy attrs psutil protobuf absl-py for it"
_UNKNOWN_CHIP = (
    "this CANN does not know the chip: compare the Name in `npu-smi info` with `chip` in the inventory, or install a "
    "CANN that has it"
)
_DRIVER = (
    "put the driver's lib64 (/usr/local/Ascend/driver/lib64, with its common/ and driver/) on LD_LIBRARY_PATH by "
    "`tools.env`, and in a container mount it; on a host without a driver, the toolkit's <arch>-linux/devlib has it"
)
_OPSET = "export with an opset that this CANN reads (5.0.4 and 6.0: 9 to 13, 7.0: 9 to 18), or install a newer CANN"
_VALUE = "correct that value, by its name under `atc` in the inventory if it is one of yours"
_OPERATOR = (
    "set `variant: reference` in the inventory, whose operators ATC supports, or install a newer CANN with its "
    "operator package (opp, kernels, ops) for this chip"
)
_PYTHON = frozenset({"E40000", "E40002", "E40020", "E20001", "EC0010"})  # what ATC's Python lacks; EC0010 was E40020
_COMPILATION = frozenset({"E40021", "E40024", "EC0011"})
_WRAPPING = _PYTHON | _COMPILATION  # what these report was caused by something else

_ADVICE = {
    "E10002": "the kit writes --input_shape as name:n,c,t,v,m, which this ATC does not take: use CANN 5.0.4 or later",
    "E10004": "give that flag a value under `atc` in the inventory, or leave it out",
    "E10005": "set it to true or false under `atc` in the inventory",
    "E10006": "set it to 0 or 1 under `atc` in the inventory",
    "E10007": "the kit converts ONNX (--framework=5): make `tools.atc` the atc of a CANN toolkit that has ONNX",
    "E10010": "set `atc.log` in the inventory to debug, info, warning, error or null",
    "E10011": "every dimension must be above 0: check `batch_sizes` in the inventory",
    "E10016": "export the ONNX again with this kit, whose input is `input1`",
    "E10021": "use a shorter `workspace` for that host in the inventory",
    "E10022": "the output must name a file: check the host's `workspace` in the inventory",
    "E10041": "the ONNX did not arrive whole or is none: export and copy it again with --fresh",
    "E10047": "leave one of them out under `atc` in the inventory",
    "E10049": "export the ONNX again with this kit, whose input has the dimensions that it converts with",
    "E10054": "use CANN 5.0.4 or later, or give the missing flag under `atc` in the inventory",
    "E10055": "leave that flag out under `atc` in the inventory, or install a newer CANN",
    "E10056": "leave one of them out under `atc` in the inventory",
    "E10410": "that file is not on the NPU host: correct its path under `atc` in the inventory",
    "E10501": f"CANN's operators are not found, so {_UNSOURCED}, or install a newer CANN",
    "E11005": "export the ONNX again with this kit, whose one input is `input1`",
    "E13010": _OPSET,
    "E16005": "the ONNX names more than one opset domain: export it again with this kit, which names one",
    "E19000": "that path is not on the NPU host or may not be read: run again with --fresh",
    "E19010": _OPSET,
    "E19021": "that file may not be read on the NPU host: check the owner and mode of its `workspace`",
    "E20002": "that is not the toolkit's: source the toolkit's set_env.sh last (`tools.env_scripts`), not nnrt's or "
    "nnae's alone, which cannot convert",
    "EE1001": "check the devices and the flags under `atc` in the inventory: the runtime does not take one of them",
    "EZ0501": "install a newer CANN with its operator package (opp, kernels, ops) for this chip",
    "EZ3002": _OPERATOR,
    "EZ3003": _OPERATOR,
    "EZ9010": _OPSET,
}
_BY_KIND = cann_error.kinds(
    (r"E16\d{3}", "Invalid_Argument_ONNX", "the ONNX is not whole or none: export and copy it again with --fresh"),
    (
        r"E1[12]\d{3}",
        "Invalid_Argument_(?:Caffe|TensorFlow)",
        "that is of Caffe's and TensorFlow's models, and the kit converts ONNX: leave their flags out under `atc`",
    ),
    (r"E10\d{3}|E13\d{3}|E2[01]\d{3}|E40022", "Invalid_Argument|Config_Error|Not_Supported", _VALUE),
)
# An operator's own check of its shapes and types (TBE's codes), its compilation, a fusion of several.
_OF_OPERATOR = cann_error.kinds((r"E[5-9]\d{4}|E14\d{3}|E20007|E22\d{3}|EB\d{4}", "Compilation_Error", "compile"))

# What is printed without a code -> what to do.
_COMPLAINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"lib(?:ascend_hal|drv\w*|mmpa|dcmi|devmmap|c_sec)\.so[.\d]*: cannot open shared object"), _DRIVER),
    (
        re.compile(r"error while loading shared libraries: \S+: cannot open shared object file"),
        f"the toolkit's libraries are not found, so {_UNSOURCED}",
    ),
    (
        re.compile(r"(?:GLIBCXX|CXXABI)_[\d.]+'? not found"),
        "another C++ library than this CANN's is first on LD_LIBRARY_PATH (conda brings its own): take it out there",
    ),
    (
        re.compile(r"version `?GLIBC_[\d.]+'? not found"),
        "this CANN needs a newer system: use runtime: docker with an image of this CANN, or an older CANN",
    ),
    (
        re.compile(r"unknown command line flag '[^']*'"),
        "this ATC has no such flag: remove it under `atc` in the inventory, or install a newer CANN",
    ),
    (
        re.compile(r"[Ee]xec format error|cannot execute binary file"),
        "this toolkit is for another architecture: install the one of this host's (uname -m)",
    ),
    (
        re.compile(r"No module named '?(?:te|tbe|topi|impl|hccl|opc_tool)\b.*"),
        f"CANN's own Python modules are not found, so {_UNSOURCED}",
    ),
    (
        re.compile(r"No module named '?[\w.]+'?"),
        f"the python3 that is first on PATH on the NPU host lacks it: {_PACKAGES}",
    ),
    (
        re.compile(r"np\.\w+. was removed|module 'numpy' has no attribute.*"),
        "this CANN needs an older numpy: pip install 'numpy<2' for the python3 that is first on PATH there",
    ),
    (
        re.compile(r"\bKilled\b|Cannot allocate memory|std::bad_alloc|MemoryError"),
        _OUT_OF_MEMORY,
    ),
)


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


def parse(output: str, status: int) -> None:
    """Accept an ATC run that says it succeeded and exits 0; else raise KitError with what to do about it."""
    _accept("atc", SUCCESS, output, status)


def parse_help(done: Completed) -> str:
    """What `atc --help` shows of itself; it may exit with 1. Raises KitError where it does not start."""
    lines = transcript.lines(done.output)
    if not any(re.match(r"-?-(model|framework)\b", line) for line in lines):
        raise KitError(_refusal("atc", "--model", done.output, done.status))
    return transcript.quote(next((line for line in lines if "usage" in line.lower()), lines[0]))


def parse_aoe(output: str, status: int) -> None:
    """The same for AOE, which reports ATC's errors."""
    _accept("aoe", AOE_SUCCESS, output, status)


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
    raise KitError(_refusal(tool, success, output, status))


def _refusal(tool: str, success: str, output: str, status: int) -> str:
    """What went wrong, from the best that the tool printed: a code, a known complaint without one, its first error."""
    lines = transcript.lines(output)
    errors = cann_error.errors(lines)
    if all(error.code in _WRAPPING or error.is_inner for error in errors) and (host := host_error.cause(lines)):
        code = f" with {errors[0].code}" if errors else ""
        return f"{tool} failed{code} ({transcript.quote(host[0])}): {host[1]}"
    advised = ((error, advice) for error in errors if (advice := _advice(error)))
    if told := next(advised, next(((error, _last_advice(error)) for error in errors), None)):
        return f"{tool} failed with {told[0].code} ({transcript.quote(told[0].message)}): {told[1]}"
    for pattern, advice in _COMPLAINTS:
        if found := next(filter(None, map(pattern.search, lines)), None):
            return f"{tool} failed ({transcript.quote(found[0])}): {advice}"
    last = transcript.last(output)
    if status in (126, 127):
        return f"{tool} does not start (it last said {last}): {_UNSOURCED}, or its path in `tools.atc`"
    if status == 0:
        return f"{tool} exits 0 without saying {success!r} (it last said {last}): see its log"
    first = cann_error.first_logged(lines)
    said = f"its first error is '{transcript.quote(first)}'" if first else f"it last said {last}"
    if how := transcript.ending(status):
        return f"{tool} {how} (exit status {status}, {said}): see its log"
    advice = f"if the host was short of memory, {_SERIAL}; else see its log" if first and "ompile" in first else ""
    return f"{tool} failed without an error code (exit status {status}, {said}): {advice or 'see its log'}"


def _advice(error: cann_error.CannError) -> str | None:
    """What to do about an error that says what is wrong; None of one inside CANN, and of a code without a kind."""
    text = error.message
    if error.is_inner:
        return None
    if error.code == "E10001" and "host_env_os" in text:
        return f"the environment is not set, so {_UNSOURCED}"
    if error.code == "E10001" and re.search(r"Value \[?-1\]? for parameter \[?(?!-|ge\.)", text):
        return "the ONNX has a dynamic dimension that --input_shape does not fix, so export it again with this kit"
    if error.code in ("E10001", "E10003", "E10014", "EE1001") and re.search(r"soc_?\s?version", text, re.IGNORECASE):
        return _UNKNOWN_CHIP
    if re.match(r"No (?:ONNX )?parser|No operator plugin", text):
        return _OPSET
    if error.code in _PYTHON and not re.search(r"compile Op\b|compilation failed", text, re.IGNORECASE):
        return _python_advice(text + "\n" + error.detail)  # E20001 was of Python in CANN 5
    if error.code in _WRAPPING or error.advice(_OF_OPERATOR):
        return _compilation_advice(error)
    if error.code == "EZ3003" and re.search(r"optype \[?(Conv2D|MatMul\w*|BatchNorm\w*|Relu|Add|Transpose\w*)\b", text):
        return (
            "every chip has this operator, so ATC was told another chip than its operator package is for: compare "
            "`npu-smi info` with `chip` in the inventory, or install this chip's operator package (kernels, ops)"
        )
    return _ADVICE.get(error.code) or error.advice() or error.advice(_BY_KIND)


def _last_advice(error: cann_error.CannError) -> str:
    text = error.message
    if not error.is_inner:
        return "look the code up in the ATC manual, and see its log"
    if "opp version" in text:
        return f"the operators are of another CANN than its compiler: install both of one release, and {_UNSOURCED}"
    if re.search(r"init runtime platform info failed|SocVersion", text):
        return _UNKNOWN_CHIP
    return "a fault inside CANN, in these words: see its log, export again with --fresh, or try another CANN"


def _python_advice(text: str) -> str:
    if re.search(r"No module named '?(?:distutils|imp)\b|FrameLocalsProxy", text):
        return (
            "this CANN is for an older Python: put one that it supports first on PATH (3.7 to 3.11), with " + _PACKAGES
        )
    if unwhole := host_error.unwhole_python(text):
        return f"the python3 that is first on PATH on the NPU host {unwhole}"
    if re.search(r"np\.|numpy", text, re.IGNORECASE):
        return "this CANN needs an older numpy: pip install 'numpy<2' for the python3 that is first on PATH there"
    if found := re.search(r"No module named '?([\w.]+)|Failed to import (te\b[\w.]*|tbe\b[\w.]*)", text):
        module = found[1] or found[2].rstrip(".")
        if module.split(".")[0] in ("te", "tbe", "topi", "impl", "auto_tune", "schedule_search"):
            return (
                f"{module} is CANN's own, so {_UNSOURCED}, and let the python3 that is first on PATH be one that this "
                "CANN supports"
            )
        return f"the python3 that is first on PATH on the NPU host has no {module}: {_PACKAGES}"
    return f"correct the python3 that is first on PATH on the NPU host: {_PACKAGES}"


def _compilation_advice(error: cann_error.CannError) -> str:
    """An operator did not compile: its name is in the error's own words, the reason behind them."""
    text = error.message + "\n" + error.detail
    if re.search(r"No module named|Failed to import|FrameLocalsProxy", text):
        return _python_advice(text)
    if re.search(r"np\.\w+. was removed|module 'numpy' has no attribute|numpy\.dtype size changed", text):
        return _python_advice("numpy")
    if re.search(r"Killed|[Oo]ut of memory|Cannot allocate|MemoryError|signal 9|exit(?:ed)? code:? -9", text):
        return _OUT_OF_MEMORY
    if found := re.search(r"fatal error: '([^']+)' file not found", text):
        return f"its compiler finds no {found[1]}: install g++ on the NPU host"
    if "dir path is invalid" in text:
        return "name a folder by its whole path as TMPDIR under `tools.env` in the inventory, where it compiles"
    return (
        f"if the host was short of memory, {_SERIAL}; if its python3 has numpy 2, pip install 'numpy<2'; else it is a "
        "fault of this CANN: install another, or set another `variant` in the inventory"
    )
