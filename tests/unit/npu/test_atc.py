from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import KitError
from deploy.npu import atc

from .mutation import damaged

START = "ATC start working now, please wait for a moment.\n"
SUCCESS = START + "...\nATC run success, welcome to the next use.\n"
FAILED = START + "ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
TRACE = "        TraceBack (most recent call last):\n        build graph failed, graph id:0, ret:-1[FUNC:BuildModel]\n"

MESSAGES = {
    "E10001": "Value [high] for parameter [--op_select_implmode] is invalid. Reason: must be one of high_precision",
    "E10002": "Value [input1;4] for parameter [--input_shape] is invalid. Reason: format",
    "E10004": "Value for parameter [--precision_mode] is empty.",
    "E10007": "[--framework] is required. The value must be [0(Caffe) or 1(MindSpore) or 3(TensorFlow) or 5(Onnx)].",
    "E10010": "Value [loud] for parameter [--log] is not in (debug, info, warning, error, null)",
    "E10011": "The shape of [input1] contains 0 or a negative value",
    "E10016": "Opname [input1] specified in [--input_shape] is not found in the model",
    "E10022": "Path [out/] for parameter [--output] has no file name",
    "E10041": "Failed to load the model from [st_gcn.onnx]",
    "E10054": "The requied parameter [--soc_version] for ATC is empty.",
    "EZ3003": "No supported Ops kernel and engine are found for [Einsum_12], optype [Einsum].",
    "E19010": "No parser is registered for Op [Div_1, optype [ai.onnx::23::Div]].",
    "EC0010": "Failed to import Python module [ModuleNotFoundError: No module named 'decorator'.].",
    "EE1001": "The argument is invalid. Reason: Soc version [Ascend310310P3] is invalid",
}
ADVICE = {
    "E10001": "under `atc` in the inventory",
    "E10002": "CANN 5.0.4 or later",
    "E10004": "give that flag a value",
    "E10007": "make `tools.atc` the atc of a CANN toolkit",
    "E10010": "set `atc.log`",
    "E10011": "check `batch_sizes`",
    "E10016": "whose input is `input1`",
    "E10022": "`workspace`",
    "E10041": "copy it again with --fresh",
    "E10054": "give the missing flag",
    "EZ3003": "`variant: reference`",
    "E19010": "an opset that this CANN reads",
    "EC0010": "pip install",
    "EE1001": "does not know the chip",
}


def plain(code: str, message: str) -> str:
    return f"{FAILED}{code}: {message}\n        Possible Cause: c\n        Solution: s\n{TRACE}"


def with_pid(code: str, message: str) -> str:
    return f"{FAILED}{code}: [PID: 28137] 2025-03-18-09:02:18.501.341 {message}\n        Solution: s\n{TRACE}"


def with_pid_above(code: str, message: str) -> str:
    return f"{FAILED}{code}: [PID: 28137] 2025-03-18-09:02:18.501.341\n        {message}\n        Solution: s\n{TRACE}"


def with_titled(title: str, code: str, message: str) -> str:
    """CANN 8.5 and later."""
    return f"{FAILED}[PID: 28137] 2026-03-18-09:02:18.501.341 {title}({code}): {message}\n        Solution: s\n{TRACE}"


def with_title(code: str, message: str) -> str:
    return with_titled("Some_Title", code, message)


def with_title_alone(code: str, message: str) -> str:
    return f"{FAILED}Some_Title({code}): {message}\r\n{TRACE}"


def with_time_alone(code: str, message: str) -> str:
    return f"{FAILED}\x1b[31m2026-03-18-09:02:18.501.341 ({code}): {message}\x1b[0m\n{TRACE}"


FORMS = (plain, with_pid, with_pid_above, with_title, with_title_alone, with_time_alone)


INPUTS = {"input1": [3, 300, 18, 2]}


def test_the_command_that_converts() -> None:
    flags = {"precision_mode": "force_fp16", "op_select_implmode": "high_precision"}
    assert atc.argv("atc", "m/st_gcn.onnx", "npu/bs8/st_gcn", 8, flags, INPUTS, soc_version="Ascend310P3") == [
        "atc",
        "--model=m/st_gcn.onnx",
        "--framework=5",
        "--output=npu/bs8/st_gcn",
        "--input_format=ND",
        "--input_shape=input1:8,3,300,18,2",
        "--soc_version=Ascend310P3",
        "--op_select_implmode=high_precision",
        "--precision_mode=force_fp16",
    ]


def test_the_command_that_tunes() -> None:
    assert atc.argv("aoe", "x.onnx", "x_aoe", 1, {"precision_mode": "force_fp16"}, INPUTS, job_type=2) == [
        "aoe",
        "--model=x.onnx",
        "--framework=5",
        "--output=x_aoe",
        "--input_format=ND",
        "--input_shape=input1:1,3,300,18,2",
        "--job_type=2",
        "--precision_mode=force_fp16",
    ]


@pytest.mark.parametrize("flag", ["model", "framework", "output", "input_format", "input_shape", "soc_version"])
def test_the_kits_own_flags_are_not_the_inventorys(flag: str) -> None:
    with pytest.raises(KitError, match=rf"`atc\.{flag}`"):
        atc.argv("atc", "x.onnx", "x", 1, {flag: "v"}, INPUTS, soc_version="Ascend310P3")


@pytest.mark.parametrize("flag", ["--log", "", "log=info --model", "1"])
def test_no_flag_is_refused(flag: str) -> None:
    with pytest.raises(KitError, match=f"{flag}.*ATC"):
        atc.argv("atc", "x.onnx", "x", 1, {flag: "v"}, INPUTS, soc_version="Ascend310P3")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", MESSAGES)
def test_every_error_code_becomes_a_sentence(code: str, form: Callable[[str, str], str]) -> None:
    with pytest.raises(KitError) as caught:
        atc.parse("atc", form(code, MESSAGES[code]), 255)
    sentence = str(caught.value)
    assert sentence.startswith(f"atc failed with {code} ({MESSAGES[code].rstrip('.')}): ")
    assert ADVICE[code] in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("output", "status", "says"),
    [
        pytest.param(
            plain("E10001", "Value [linux] for parameter [--host_env_os] is invalid. Reason: x"),
            255,
            r"host_env_os.*the environment is not set, so name CANN's set_env\.sh",
            id="set_env not sourced",
        ),
        pytest.param(
            plain(
                "E10001",
                "Value [-1] for parameter [input1] is invalid. Reason: maybe you should set input_shape",
            ),
            255,
            "a dynamic dimension that --input_shape does not fix",
            id="dynamic",
        ),
        pytest.param(plain("E34567", "Words."), 255, r"E34567 \(Words\): look the code up.*manual", id="unknown"),
        pytest.param(
            f"{FAILED}E19999: Inner Error!\nEZ3003: No supported Ops kernel for [a], optype [Einsum].\n",
            255,
            r"EZ3003 \(No supported.*Einsum",
            id="the cause below its wrapping",
        ),
        pytest.param(plain("E10001", "x"), 0, "E10001", id="an error with status 0"),
        pytest.param(START, 137, "atc was killed, most likely because the host ran out of memory", id="killed"),
        pytest.param(START, -9, "ran out of memory", id="killed here"),
        pytest.param(START, 124, "ran past its deadline", id="deadline"),
        pytest.param(START, 139, "crashed", id="crash"),
        *(
            pytest.param(
                f"{FAILED}{text}\n{TRACE}", 255, r"E19999 \(tensor has no data\): a fault inside CANN", id=name
            )
            for name, text in {
                "inner, plain": "E19999: Inner Error!\nE19999  tensor has no data[FUNC:Parse][FILE:a.cc][LINE:84]",
                "inner, pid": "E19999: Inner Error!\nE19999: [PID: 6] 2026-10-07-20:48:26 tensor has no data[FUNC: P]",
                "inner, title": "E19999: Inner Error!\nE19999[PID: 6] 2026-10-07-20:48 T(E19999):  tensor has no data",
                "inner, bare": "E19999: Inner Error!\n        tensor has no data[FUNC:Parse][FILE:a.cc][LINE:84]",
                "inner, logged": "E19999: Inner Error!\n        Unknown error occurred. Please check the log.\n"
                "[ERROR] GE(9,atc.bin):2026-03-18-14:35:48.620 [p.cc:143]9 tensor has no data\n[ERROR] GE(9,a):1 [b] c",
            }.items()
        ),
        *(
            pytest.param(
                with_title("E40021", f"Failed to compile Op [Conv_3,]. (oppath: [x]) {why}"), 255, says, id=why
            )
            for why, says in {
                "": r"E40021 \(Failed to compile Op \[Conv_3.*TE_PARALLEL_COMPILER",
                "Killed": "Conv_3.*ran out of memory: set `TE_PARALLEL_COMPILER",
                "AttributeError: `np.float_` was removed": r"Conv_3.*pip install 'numpy<2'",
                "fatal error: 'type_traits' file not found": r"Conv_3.*no type_traits: install g\+\+",
                "ModuleNotFoundError: No module named 'sympy'": "Conv_3.*has no sympy",
            }.items()
        ),
        pytest.param(
            plain("E40000", "Failed to import te.platform.log_util."), 255, "te.platform.*set_env", id="E40000"
        ),
        pytest.param(
            plain("E40020", "Failed to import Python module [No module named 'attr'.]"), 255, "no attr", id="old"
        ),
        *(
            pytest.param(with_titled(title, code, said), 255, advice, id=f"{title} {code}")
            for title, code, said, advice in (
                ("Not_Supported_Operator", "E13010", "No operator plugin is registered for Op: a, optype: B", "opset"),
                ("Invalid_Argument_ONNX_Model_Data", "E16002", "No ONNX parser is registered for optype B", "opset"),
                ("Invalid_Argument_ONNX_Model_Data", "E16004", "ONNX model has no graph", "--fresh"),
                ("Invalid_Argument", "E10001", "Value -1 for parameter ge.exec.x is invalid", "correct that value"),
                ("Invalid_Argument", "E40022", "Value true for parameter x is invalid", "correct that value"),
                ("File_Operation_Error_Open", "E13001", "Failed to open file /a. Reason: denied", "owner or its mode"),
                ("File_Operation_Error_Of_2030", "E34567", "Cannot seek in /a", "owner or its mode"),
                ("Package_Error_Incorrect_Driver_Version", "EE1015", "halX does not exist", "upgrade the driver"),
                ("Compilation_Error", "E20001", "Operator A compilation failed. Optype is B", "TE_PARALLEL_COMPILER"),
                ("Environment_Error_Incorrect_Python_Version", "E40002", "Unsupported Python version: 2.7", "python3"),
            )
        ),
        pytest.param(plain("E90003", "Compile operator failed, cause: x"), 255, "another `variant`", id="TBE's own"),
        pytest.param(
            f"{FAILED}E19999: Internal Error\nE19999 The opp version differs\n", 255, "of one release", id="opp"
        ),
        pytest.param(
            f"No module named '_struct'\n{FAILED}E40000: Failed to import te.platform.\n",
            255,
            "is not whole",
            id="Python",
        ),
        pytest.param(
            f"{FAILED}E40024: Failed to call x. Reason[cannot pickle 'FrameLocalsProxy']",
            255,
            "older Python",
            id="new Python",
        ),
        pytest.param(
            f"Subprocess[pid 3] dead, exit code: -9\n{FAILED}E40021: Failed to compile Op [a]",
            255,
            "out of memory",
            id="-9",
        ),
        pytest.param("version `GLIBCXX_3.4.30' not found", 1, "first on LD_LIBRARY_PATH", id="C++ library"),
        pytest.param(plain("EE1001", "The argument is invalid.Reason: rtSetDevice 9"), 255, "flags", id="not the chip"),
        pytest.param(
            with_title("E10001", "Value Ascend910_1 for parameter --soc_version is invalid. Reason: x"),
            255,
            "does not know the chip",
            id="chip",
        ),
        pytest.param(
            plain("EZ3003", "No supported Ops kernel and engine are found for [c], optype [Conv2D]."),
            255,
            "another chip",
            id="a Conv2D without a kernel",
        ),
        pytest.param(
            plain("E16005", "The model has [2] [--domain_version] fields"), 255, "one opset domain", id="domains"
        ),
        pytest.param(
            plain("E20002", "Value [/x/nnrt/] for environment variable"), 255, "toolkit's set_env.sh", id="nnrt"
        ),
        pytest.param(
            f"{START}[EVENT] x\nFailed to compile Op [Concat_110]. (oppath: [y])\n[EVENT] z\n",
            255,
            r"first error is 'Failed to compile Op \[Concat_110\].*TE_PARALLEL_COMPILER",
            id="compilation without a code",
        ),
        pytest.param(
            f"{START}[ERROR] AMCT(2,atc.bin):2023-04-14-14:43:17[a.cpp:133]input is not equal\n[ERROR] b\n{FAILED}",
            255,
            "its first error is 'input is not equal'",
            id="the first logged error",
        ),
        pytest.param(f"{START}ERROR: unknown command line flag 'keep_dtype'", 1, "no such flag: remove it", id="flag"),
        pytest.param(FAILED, 255, "failed without an error code .exit status 255", id="no code"),
        pytest.param(
            "bash: atc: command not found", 127, r"atc does not start.*set_env\.sh.*`tools\.atc`", id="not found"
        ),
        pytest.param(
            "atc.bin: error while loading shared libraries: libascend_hal.so: cannot open shared object file",
            127,
            "libascend_hal.*the driver's lib64",
            id="driver's library",
        ),
        pytest.param(
            "atc.bin: error while loading shared libraries: libge_runner.so: cannot open shared object file",
            127,
            r"libge_runner.*set_env\.sh",
            id="toolkit's library",
        ),
        pytest.param(SUCCESS, 1, "failed without an error code .exit status 1", id="success but status"),
        pytest.param(START, 0, "exits 0 without saying 'ATC run success'", id="status but no success"),
        pytest.param("", 0, "it last said nothing", id="silent"),
    ],
)
def test_other_endings(output: str, status: int, says: str) -> None:
    with pytest.raises(KitError, match=says):
        atc.parse("atc", output, status)


def test_success() -> None:
    atc.parse("atc", SUCCESS, 0)
    atc.parse("atc", f"{SUCCESS}W11001: High-priority service of op [x] is not supported.\n", 0)
    atc.parse("aoe", "Start Tuning\nAoe process finished\n", 0)


def test_a_tuner_that_fails() -> None:
    with pytest.raises(KitError, match="aoe.*EC0010"):
        atc.parse("aoe", with_pid("EC0010", MESSAGES["EC0010"]), 255)
    with pytest.raises(KitError, match="aoe .*'Aoe process finished'"):
        atc.parse("aoe", "Start Tuning\n", 0)


@given(damaged([SUCCESS, *(form(c, m) for c, m in MESSAGES.items() for form in FORMS)]), st.integers(-64, 255))
def test_only_a_kit_error_is_raised_on_any_text(output: str, status: int) -> None:
    with suppress(KitError):
        atc.parse("atc", output, status)
        assert status == 0
        assert atc.SUCCESS["atc"] in output


def test_every_input_has_its_shape() -> None:
    argv = atc.argv("atc", "x.onnx", "x", 4, {}, {"a": [3, 2], "mask": [7]}, soc_version="Ascend310P3")
    assert "--input_shape=a:4,3,2;mask:4,7" in argv
