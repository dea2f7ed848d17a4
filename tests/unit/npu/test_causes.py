"""What the host lacks is told from what the tool says of it, also where the tool wraps it in a code of its own."""

from __future__ import annotations

import pytest

from deploy.errors import KitError
from deploy.npu import ais_bench, atc

FAILED = "ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
CODED = "EC0010: [PID: 1] 2025-07-08-10:25:28.680.962 Failed to import Python module [{}.].\n"
DENIED = "PermissionError: [Errno 13] Permission denied: '/home/ascend/atc_data'"


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        (f"{DENIED}\n{FAILED}{CODED.format(DENIED)}", "another HOME"),
        ("OSError: [Errno 28] No space left on device\n" + FAILED + "E40021: Failed to compile Op [conv].\n", "df -h"),
        (
            FAILED
            + "E19999: Inner Error!\nE19999: [PID: 4] 2025-01-01-01:01:01.000.000 [Write][Data]Write data to file"
            " st_gcn.om failed, errmsg No space left on device[FUNC:WriteData][FILE:file_saver.cc][LINE:80]\n",
            "(No space left on device): free some room",
        ),
        (
            "ImportError: /tmp/x.so: failed to map segment from shared object: Operation not permitted\n" + FAILED,
            "TMPDIR",
        ),
        ("OSError: [Errno 30] Read-only file system: '/home/u/atc_data'\n" + FAILED, "writable"),
        ("/usr/local/Ascend/bin/atc: fork: retry: Resource temporarily unavailable\n", "ulimit -u"),
        ("RuntimeError: can't start new thread\n" + FAILED + CODED.format("RuntimeError"), "ulimit -u"),
        (FAILED + CODED.format("ModuleNotFoundError: No module named 'distutils'"), "older Python"),
        (FAILED + CODED.format("ImportError: /x/acl.so: undefined symbol: aclprofSetConfig"), "stub folders last"),
        (FAILED + CODED.format("ImportError: libgomp.so.1: cannot allocate memory in static TLS block"), "LD_PRELOAD"),
        (FAILED + CODED.format("UnicodeDecodeError: 'ascii' codec can't decode byte 0xe5"), "C.UTF-8"),
        ("Fatal Python error: init_fs_encoding\nModuleNotFoundError: No module named 'encodings'\n", "PYTHONHOME"),
        ("[libprotobuf FATAL x.cc:87] This program was compiled against 3.13\nAborted\n", "another protobuf"),
        ("/opt/atc.bin: symbol lookup error: libge_compiler.so: undefined symbol: _ZN2ge\n", "another CANN"),
        (
            FAILED + "E40021: [PID: 7] 2025-05-01-10:00:00.000.000 Failed to compile Op [Conv2D_1]. (oppath: [Compile"
            " conv2d.py failed with errormsg/stack: No such file or directory: 'bisheng'\n",
            "compiler (bisheng) is not on PATH",
        ),
        (FAILED + "E20001: [PID: 2] 2025-06-16-13:02:36.801.136 Failed to compile Op [/Slice].\n", "short of memory"),
    ],
)
def test_of_atc(said: str, cure: str) -> None:
    with pytest.raises(KitError) as caught:
        atc.parse("atc", said, 255)
    assert cure in str(caught.value)


def test_a_code_that_names_its_own_cause_is_not_overruled() -> None:
    said = f"{DENIED}\n{FAILED}E10016: Opname [input] specified in [--input_shape] is not found in the model.\n"
    with pytest.raises(KitError, match="E10016"):
        atc.parse("atc", said, 255)


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("OSError: 129600 requested and 0 written\n", "df -h"),
        ("OSError: [Errno 24] Too many open files: 'clips/1021.bin'\n", "ulimit -n"),
        (DENIED + "\n", "owner or mode"),
        ("ImportError: x/libgomp-d22c30c5.so.1.0.0: cannot allocate memory in static TLS block\n", "LD_PRELOAD"),
        ("UnboundLocalError: local variable 'aclruntime_version' referenced before assignment\n", "setuptools<81"),
        ("UnicodeEncodeError: 'ascii' codec can't encode characters\n", "C.UTF-8"),
        (
            "[PID: 26] 2026-07-21-05:48:21.854.442 Invalid_Argument(EE1001): The argument is invalid.Reason: "
            "rtGetDevMsg execution failed, the context is a null pointer.\n        Solution: 1.Check the input.\n"
            "        TraceBack (most recent call last):\n        ctx is NULL![FUNC:x][FILE:y.cc][LINE:6]\n"
            "        [drv api] halDeviceOpen failed. device_id=1, drvRetCode=7.[FUNC:DeviceOpen][FILE:npu_driver.cc]\n"
            "[ERROR] acl open device 1 failed\n",
            "cannot be opened; EE1001: [drv api] halDeviceOpen failed. device_id=1, drvRetCode=7: check",
        ),
        (
            "GetDeviceCount:Call drvGetDevNum, drvRetCode=87\nEL0005: [PID: 7] 2026-01-01-10:00:00.000.000 The "
            "resources are busy.\n[ERROR] acl init failed\n",
            "EL0005: The resources are busy): check that the driver fits this CANN",
        ),
        ("[ERROR] check failed, /x/st_gcn_bs1.om is not exist\n", "no OM at /x/st_gcn_bs1.om"),
        (
            "Usage: ais_bench [OPTIONS]\n╭─ Error ──────╮\n│ No such option: --batchsize   │\n╰───────╯\n",
            "--batchsize: use",
        ),
        (
            "[ERROR] RUNTIME(278,python3):2025-08-26-03:01:17.589.192 [error_message_manage.cc:53]278 FuncErrorReason:"
            "rtGetDeviceCount execute failed, reason=[driver error:internal error]\n[ERROR] acl init failed\n",
            "acl init failed; driver error:internal error",
        ),
    ],
)
def test_of_ais_bench(said: str, cure: str) -> None:
    assert cure in str(ais_bench.failure(said, 1))
