from __future__ import annotations

import shlex
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import KitError
from deploy.npu import ais_bench

from .mutation import damaged

OPENED = """\
[INFO] acl init success
[INFO] open device 0 success
[INFO] load model st_gcn_bs64.om success
[INFO] create model description success
"""
CLOSED = """\
[INFO] unload model success, model Id is 1
[INFO] end to destroy context
[INFO] end to reset device is 0
[INFO] end to finalize acl
"""
RULE = "[INFO] ------------------------------------------------------\n"
TITLE = "[INFO] -----------------Performance Summary------------------\n"
BAR = "Inference array Processing:   0%|          | 0/1 [00:00<?, ?it/s]\rInference array Processing: 100%|####| 1/1\n"
MEAN = "432.0568511962891"
COMPUTE = (
    f"[INFO] NPU_compute_time (ms): min = 431.9490051269531, max = 432.24200439453125, mean = {MEAN}, "
    "median = 432.0480041503906, percentile(99%) = 432.2307962036133\n"
)
H2D = "[INFO] H2D_latency (ms): min = 0.5, max = 0.75, mean = 0.625, median = 0.625, percentile(99%) = 0.7475\n"
D2H = "[INFO] D2H_latency (ms): min = 0.0, max = 0.25, mean = 0.125, median = 0.125, percentile(99%) = 0.2475\n"
FIGURE = "148.1286544184991"  # 1000 * 64 / MEAN


def summary(throughput: str, compute: str = COMPUTE, before: str = "", after: str = "") -> str:
    return f"{OPENED}{BAR}{TITLE}{before}{compute}{after}[INFO] {throughput}\n{RULE}{CLOSED}"


OLDEST = summary(f"throughput (1000*batchsize/NPU_compute_time): {FIGURE}", before=H2D, after=D2H)
GUIDE = summary(f"throughput 1000*batchsize(64)/NPU_compute_time.mean({MEAN}): {FIGURE}")
SINCE_2023 = summary(f"throughput 1000*batchsize.mean(64)/NPU_compute_time.mean({MEAN}): {FIGURE}")
COMPUTE_LATENCY = ais_bench.Latency(
    431.9490051269531, 432.24200439453125, 432.0568511962891, 432.0480041503906, 432.2307962036133
)


def test_argument_lists() -> None:
    assert ais_bench.infer_argv("python3", "a.om", ["in", "mask"], "out", "bs8", 1, 8, "2022-12") == shlex.split(
        "python3 -m ais_bench --model a.om --device 1 --batchsize 8 "
        "--input in,mask --output out --output_dirname bs8 --outfmt BIN"
    )
    benchmark = shlex.split("python3 -m ais_bench --model a.om --device 0 --batchsize 8 --loop 100")
    assert ais_bench.benchmark_argv("python3", "a.om", 0, 8, loop=100, warmup=1, era="2022-12") == benchmark
    assert ais_bench.benchmark_argv("python3", "a.om", 0, 8, loop=100, warmup=5, era="2022-12") == [
        *benchmark,
        "--warmup_count",
        "5",
    ]
    assert ais_bench.benchmark_argv("python3", "a_b.om", 0, 8, 100, 5, "2026", ("out_b", "bs8")) == shlex.split(
        "python3 -m ais_bench --model a_b.om --device 0 --batchsize 8 --loop 100 "
        "--warmup-count 5 --output out_b --output-dirname bs8"
    )
    with pytest.raises(KitError, match="cannot profile"):
        ais_bench.profile_argv("python3", "a.om", 0, 8, 100, "out", "2026")
    assert ais_bench.help_argv("python3") == shlex.split("python3 -m ais_bench --help")
    threads = ais_bench.benchmark_argv("python3", "a.om", 0, 8, 100, 1, "2024", threads=(4, ["x", "y"]))
    assert threads == [*benchmark[:-2], *shlex.split("--input x,y --pipeline 1 --threads 4")]


class TestEra:
    oldest = "usage: __main__.py [-h] --model MODEL [--input INPUT] [--loop LOOP] [--batchsize BATCHSIZE]\n"

    @pytest.mark.parametrize(
        ("more", "era"),
        [
            ("", "2022-06"),
            ("  --warmup_count N\n", "2022-12"),
            ("  --warmup_count N\n  --divide_input B\n  --threads N\n", "2023-06"),
            ("  --warmup-count N, --warmup_count N\n  --threads N\n", "2024"),
            ("│    --output-dirna…   <str>   Actual output │\n│    --warmup-count   <str> │\n", "2026"),
        ],
    )
    def test_by_the_flags_it_offers(self, more: str, era: str) -> None:
        assert ais_bench.parse_help(self.oldest + more, 0) == era

    @pytest.mark.parametrize(
        ("text", "status", "says"),
        [
            ("/usr/bin/python3: No module named ais_bench\n", 1, "has no module ais_bench: install the wheels"),
            ("usage: ais_bench [--models M [M ...]] [--datasets D [D ...]]\n", 0, "PyPI package ais_bench_benchmark"),
            ("", 0, "ended without its figures"),
        ],
    )
    def test_what_is_no_ais_bench(self, text: str, status: int, says: str) -> None:
        with pytest.raises(KitError, match=says):
            ais_bench.parse_help(text, status)


class TestStdout:
    @pytest.mark.parametrize("text", [OLDEST, GUIDE, SINCE_2023], ids=["oldest", "guide", "since 2023"])
    def test_every_eras_line(self, text: str) -> None:
        performance = ais_bench.parse_stdout(text, 64)
        assert performance.batch_size == 64
        assert performance.throughput == 148.1286544184991
        assert performance.compute == COMPUTE_LATENCY

    def test_the_table_of_2026(self) -> None:
        shown = ais_bench.parse_stdout(
            "[INFO] -----------------Performance Summary------------------\n"
            "│ Metric                │    min │    max │   mean │   median │    P99 │\n"
            "│ H2D_latency (ms)      │ 0.5700 │ 0.6000 │ 0.5850 │   0.5850 │ 0.5997 │\n"
            "│ NPU_compute_time (ms) │ 3.5000 │ 3.9130 │ 3.6457 │   3.5849 │ 3.9041 │\n"
            "[INFO] Throughput 1000*batchsize.mean(8)/NPU_compute_time.mean(3.645705027670288): 2194.362939206915\n",
            8,
        )
        assert (shown.throughput, shown.compute) == (
            2194.362939206915,
            ais_bench.Latency(3.5, 3.913, 3.6457, 3.5849, 3.9041),
        )
        assert shown.h2d == ais_bench.Latency(0.57, 0.6, 0.585, 0.585, 0.5997)
        assert shown.d2h is None

    def test_transfers_where_they_are_shown(self) -> None:
        shown = ais_bench.parse_stdout(OLDEST, 64)
        assert (shown.h2d, shown.d2h) == (
            ais_bench.Latency(0.5, 0.75, 0.625, 0.625, 0.7475),
            ais_bench.Latency(0.0, 0.25, 0.125, 0.125, 0.2475),
        )
        hidden = ais_bench.parse_stdout(GUIDE, 64)
        assert (hidden.h2d, hidden.d2h) == (None, None)

    @pytest.mark.parametrize(
        "text",
        [
            GUIDE.replace("[INFO] ", "\x1b[32m[INFO]\x1b[0m "),
            GUIDE.replace("\n", "\r\n"),
            GUIDE.replace(BAR, f"{BAR}\rloop inference exec: (100/100)"),  # C's line end comes late
            "[WARNING] aclruntime version:0.0.1 is lower\n" + GUIDE,
            SINCE_2023.replace("mean(64)", "mean(64.0)"),
            SINCE_2023 + "[INFO] summary throughput:148.1286544184991\n",
            GUIDE.replace(MEAN, "432.06").replace(FIGURE, "148.13"),
            GUIDE.replace(MEAN, "432").replace(FIGURE, "148"),
        ],
        ids=["colours", "crlf", "loop counter", "warning", "mean as float", "device list", "two places", "no places"],
    )
    def test_noise_and_rounding_are_tolerated(self, text: str) -> None:
        assert ais_bench.parse_stdout(text, 64).throughput == pytest.approx(148.13, rel=0.001)

    @pytest.mark.parametrize(
        ("text", "batch_size", "says"),
        [
            (GUIDE, 32, "a batch size of 64, not with the 32 of the OM"),
            (OLDEST, 32, r"throughput of 148\.12.*batches of 32 in 432\.05.* ms make 74\.0643 samples/s"),
            (GUIDE.replace(FIGURE, "148.2"), 64, "make 148.129 samples/s"),
            (GUIDE.replace(f"mean({MEAN})", "mean(216.0)"), 64, "a mean of 216.0 ms, but NPU_compute_time has 432"),
            (GUIDE.replace(FIGURE, "nan"), 64, "'nan' where a number above 0"),
            (GUIDE.replace(MEAN, "0.0").replace(FIGURE, "0"), 64, "where a number above 0"),
            (GUIDE.replace("median = 432.0480041503906", "median = none"), 64, "'none' where a number"),
            (SINCE_2023 + SINCE_2023, 64, "more than one run: benchmark one device at a time"),
            (GUIDE.replace(COMPUTE, ""), 64, "ended without its figures"),
            (OPENED, 64, "ended without its figures .*it last said '.INFO. create model description success'"),
            ("[INFO] summary throughput:148.1\n", 64, "ended without its figures"),
            ("", 64, "it last said nothing"),
        ],
    )
    def test_figures_that_do_not_hold_are_refused(self, text: str, batch_size: int, says: str) -> None:
        with pytest.raises(KitError, match=says):
            ais_bench.parse_stdout(text, batch_size)

    def test_the_oms_own_batch_size(self) -> None:
        line = "[INFO] get filesperbatch files0 size:129600 tensor0size:8294400 filesperbatch:64 runcount:310\n"
        assert ais_bench.parse_batches(OPENED + line) == (64, 310)
        assert ais_bench.parse_batches(GUIDE) is None


TRACEBACK = (
    'Traceback (most recent call last):\n  File "__main__.py", line 9, in <module>\n    main(args)\nRuntimeError\n'
)


class TestFailure:
    @pytest.mark.parametrize(
        ("output", "says"),
        [
            ("[ERROR] not find valid [*.npy *.NPY *.bin *.BIN] files:[]", r"not its parent"),
            (
                "[ERROR] in/ of input args not find valid file,valid file format:[*.npy *.NPY *.bin *.BIN]",
                "not its parent",
            ),
            (
                "[ERROR] arg0 tensorsize: 196608 filesize: 602112 not match",
                "input takes 196608 bytes, which is no multiple of a clip's 602112",
            ),
            ("[ERROR] ndata size:1036800 not match 1036801", "1036800 bytes where the OM takes 1036801.*transfer"),
            (
                "[ERROR] path :in/3.bin is a soft link, not supported, please import file(or directory) directly",
                "refuses in/3.bin because it is a symbolic link",
            ),
            (
                "[ERROR] path :in is a symbolic link, considering security, not supported",
                "refuses in because it is a symb",
            ),
            ("[ERROR] current user isn't path:in/3.bin's owner or ownergroup", "refuses in/3.bin because another user"),
            (
                "[ERROR] The file out is group writable, or is others writable, as export file(or directory)",
                "refuses out because others than its owner may write it.*0750",
            ),
            (
                "[ERROR] Current user doesn't have read permission to the file a.om, as import file(or directory)",
                "may not access a.om: make its owner",
            ),
            ("[ERROR] path: in don't have right permission", "may not access in: "),
            (
                "[ERROR] path:/w/my data/in contains illegal char, legal chars include A-Z a-z 0-9 _ - / .",
                "refuses the path /w/my data/in: choose a `workspace`",
            ),
            ("dcmi module initialize failed. ret is -8005", r"cannot be reached \(-8005\): source"),
            ("dcmi model initialized failed, because the device is used. ret is -8020", r"cannot be reached \(-8020\)"),
            ("[ERROR] acl open device 3 failed", "device 3 cannot be opened"),
            ("[ERROR] load model from file failed, model file is a.om", "cannot load a.om: convert again"),
            (
                "[ERROR] save out files error array shape:(1, 400) filesinfo:[['a']]",
                r"output \(1, 400\) cannot be split",
            ),
            ("[ERROR] execute model failed, modelId is 1", r"failed in mid-run \(execute model failed\)"),
            ("ModuleNotFoundError: No module named 'aclruntime'", "no module aclruntime: install the wheels"),
            ("/usr/bin/python3: No module named ais_bench", "no module ais_bench: install the wheels"),
            ("ModuleNotFoundError: No module named 'tqdm'", "no module tqdm: pip install it"),
            (
                "ImportError: libascendcl.so: cannot open shared object file: No such file or directory",
                r"finds no libascendcl\.so: name CANN's set_env\.sh",
            ),
            (
                "python3: No module named ais_bench.__main__; 'ais_bench' is a package and cannot be directly executed",
                "unrelated PyPI package ais_bench_benchmark",
            ),
            ('  File "/x/site-packages/ais_bench/benchmark/cli/main.py", line 3', "unrelated PyPI package"),
            ("__main__.py: error: unrecognized arguments: --warmup_count 5", "does not know --warmup_count 5"),
            (
                "[INFO] import ais_bench.infer.backends.backend error: No module named 'attrs'\n"
                "[ERROR] Load model from file failed, model file is a.om\nRuntimeError: [1][ACL: invalid parameter]",
                "cannot load a.om; 1: invalid parameter: convert again",
            ),
            (
                "E19999: Inner Error!\nE19999  index:0 > stream_list.size(): 0, check invalid[FUNC:SetStream]\n"
                "[ERROR] load model from file failed, model file is a.om",
                r"cannot load a.om; E19999: index:0 > stream_list.size\(\): 0, check invalid: convert again",
            ),
            ("ImportError: /x/aclruntime.so: undefined symbol: aclNew", "of another CANN .*lacks aclNew"),
            (
                "ImportError: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.29' not found (required by /x/aclruntime.so)",
                "newer C.. library .*GLIBCXX_3.4.29",
            ),
            (
                "ImportError: libascend_hal.so: cannot open shared object file: No such",
                "libascend_hal.so, .*driver's lib64",
            ),
            ("ImportError: numpy.core.multiarray failed to import", "pip install 'numpy<2'"),
            (
                "[INFO] exception_cb streamId:3 taskId:10 deviceId: 0 opName:conv1/Conv inputCnt:3 outputCnt:1\n"
                "EZ9999: Inner Error!\n[ERROR] execute model failed, modelId is 1",
                "the operator conv1/Conv failed on the device",
            ),
            ("[ERROR] acl init failed\nRuntimeError: [507899][ACL: driver error]", "507899: driver error.*HwHiAiUser"),
            ("[ERROR] Invalid args. ./1.bin of --input is invalid", "'Invalid args. ./1.bin of --input is invalid'"),
            ("ModuleNotFoundError: No module named '_ctypes'", "is not whole .no _ctypes"),
            (
                "[INFO] TDT(5,python): reason[/lib64/libaicpu_scheduler.so: cannot open shared object file]\n"
                "[ACL ERROR] E39999: Inner Error!\nE39999[PID: 5] 2026-07-06-10:33:04 (E39999):  No TsdCloseEx symbol\n"
                "[ERROR] load model from file failed, model file is a.om, errorCode is 207008",
                "cannot load a.om; E39999: No TsdCloseEx symbol: convert",
            ),
            (
                "AttributeError: 'aclruntime.session_options' object has no attribute 'log_level'",
                "are not of one release .*log_level",
            ),
            ("deviceId(7) is bigger than deviceCount(1)", "sees 1 devices and none numbered 7"),
            ("EH0010: Failed to allocate 1024 bytes host memory for ACL", "short of memory: stop"),
            ("EL0004: Failed to allocate memory.\n[ERROR] execute model failed", "too little memory free .'EL0004"),
        ],
    )
    def test_known_failures(self, output: str, says: str) -> None:
        with pytest.raises(KitError, match=says):
            raise ais_bench.failure(f"{OPENED}{output}\n{TRACEBACK}", 1)

    @pytest.mark.parametrize(
        ("output", "status", "says"),
        [
            (
                f"[ERROR] filepath:x not valid\n{TRACEBACK}",
                1,
                r"failed \(exit status 1, it last said 'filepath:x not valid'",
            ),
            (
                "usage: x\n__main__.py: error: argument --loop: 0 is invalid\n",
                2,
                "said 'argument --loop: 0 is invalid'",
            ),
            (
                "[INFO] import x error: No module named 'attrs'\n[ERROR] first\n[ERROR] second\n",
                1,
                "said 'first'",
            ),
            (
                "╭─ Error ────╮\n│ Invalid value for '--model': x.om    │\n╰────────────╯",
                2,
                "Invalid value for '--model': x.om'",
            ),
            ("EE1001: The argument is invalid.\n[ERROR] aclmdl\n", 1, "said 'EE1001: The argument is invalid'"),
            ("Traceback\nValueError: cannot reshape {0}\n", 1, "said 'ValueError: cannot reshape {0}'"),
            (OPENED, 137, "was killed, most likely because the host ran out of memory"),
            (OPENED, -11, "crashed"),
            (OPENED, 124, "ran past its deadline"),
            ("", 1, "it last said nothing"),
        ],
    )
    def test_others_are_quoted(self, output: str, status: int, says: str) -> None:
        assert says.replace("\\", "") in str(ais_bench.failure(output, status))


@given(damaged([OLDEST, GUIDE, SINCE_2023, TRACEBACK, TestEra.oldest]), st.integers(-64, 255))
def test_only_a_kit_error_is_raised_on_any_text(text: str, status: int) -> None:
    with suppress(KitError):
        assert ais_bench.parse_stdout(text, 64).throughput > 0
    with suppress(KitError):
        assert ais_bench.parse_help(text, status)
    assert "\n" not in str(ais_bench.failure(text, status))
    ais_bench.parse_batches(text)


@pytest.mark.parametrize("om", ["/ws/st_gcn_bs1.om", "/npu host/success story/st_gcn_bs1.om"])
@pytest.mark.parametrize("load", ["load model {} success", "Load model {} success", "aclmdlLoadFromFile {}"])
def test_the_session_names_its_om_and_device(om: str, load: str) -> None:
    text = f"[INFO] open device 3 success\n[INFO] {load.format(om)}\n[INFO] create model description success\n"
    assert ais_bench.parse_session(text) == ais_bench.Session(om, 3)


class TestTimes:
    printed = ais_bench.Performance(8, 100.0, ais_bench.Latency(78.0, 82.0, 80.0, 80.0, 82.0))
    copies = {"min": 1.0, "max": 2.0, "mean": 1.5, "median": 1.5, "percentile(99%)": 2.0, "count": 3}  # noqa: RUF012

    def test_a_summarys_times(self) -> None:
        summary = {"filesinfo": {"0": {}}, "H2D_latency": self.copies, "npu_compute_time_list": [78.0, 80.0, 82.0]}
        times = ais_bench.times_of(summary)
        assert "filesinfo" not in times
        found = ais_bench.with_times(self.printed, times)
        assert found.compute_list == (78.0, 80.0, 82.0)
        assert found.h2d == ais_bench.Latency(1.0, 2.0, 1.5, 1.5, 2.0, count=3)
        assert found.d2h is None

    def test_of_todays_tool_with_starts_and_ends(self) -> None:
        copies = {name: value for name, value in self.copies.items() if name != "percentile(99%)"} | {"P99": 2.0}
        times = {"D2H_latency": copies, "npu_compute_time_list": [[0.0, 78.0], [80.0, 160.0], [160.0, 242.0]]}
        found = ais_bench.with_times(self.printed, times)
        assert found.compute_list == (78.0, 80.0, 82.0)
        assert found.d2h is not None

    @pytest.mark.parametrize("summary", [None, [], {}, {"H2D_latency": {"mean": 1.0, "count": 3}}, {"H2D_latency": 1}])
    def test_what_is_not_told_stays_unknown(self, summary: object) -> None:
        assert ais_bench.with_times(self.printed, ais_bench.times_of(summary)) == self.printed
        assert ais_bench.device_seconds(summary) is None

    def test_threads_that_overlap(self) -> None:
        said = "[INFO] NPU_compute_time (ms): mean = {0}\n"
        said += "[INFO] throughput 1000*batchsize.mean(8)/NPU_compute_time.mean({0}): {1}\n"
        times = {"npu_compute_time_list": [[20.0, 40.0], [0.0, 20.0], [10.0, 30.0], [50.0, 70.0]]}
        found = ais_bench.performance(said.format(15.0, 8000 / 15), 8, times, threads=2)
        assert (found.throughput, found.compute.mean, found.compute.p99) == (pytest.approx(8000 / 15), 20.0, 20.0)
        for wrong in ({}, {"npu_compute_time_list": [15.0, 15.0]}, {"npu_compute_time_list": [[0.0, 20.0]] * 4}):
            with pytest.raises(KitError):
                ais_bench.performance(said.format(15.0, 8000 / 15), 8, wrong, threads=2)

    def test_another_runs_summary_is_refused(self) -> None:
        with pytest.raises(KitError, match="another run"):
            ais_bench.with_times(self.printed, {"npu_compute_time_list": [40.0, 41.0]})

    def test_the_devices_share_of_a_run(self) -> None:
        summary = {"H2D_latency": self.copies, "D2H_latency": self.copies, "npu_compute_time_list": [78.0, 80.0, 82.0]}
        assert ais_bench.device_seconds(summary) == pytest.approx((240 + 2 * 4.5) / 1000)

    @pytest.mark.parametrize(
        ("bar", "seconds"),
        [
            ("Inference array Processing: 100%|##########| 10/10 [00:02<00:00,  4.55it/s]\n", 10 / 4.55),
            ("x:  50%|#####     | 5/10 [00:09<00:09,  1.80s/it]\rx: 100%|##| 10/10 [00:12<00:00,  1.20s/it]\n", 12.0),
            ("Inference array Processing: 100%|####| 1/1\n", None),
            ("Inference array Processing: 100%|####| 1/1 [00:00<00:00, 0.00it/s]\n", None),
        ],
    )
    def test_how_long_the_loop_took(self, bar: str, seconds: float | None) -> None:
        assert ais_bench.loop_seconds(bar) == (None if seconds is None else pytest.approx(seconds))
