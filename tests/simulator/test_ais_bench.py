"""ais_bench over the stand-in for aclruntime: what it prints and leaves in each era, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import CLIPS, Run, atc_command, infer_command
from .networks import CLIP

ERAS = ("2022-06", "2022-12", "2023-06", "2024")


def result(path: Path) -> np.ndarray:
    return np.fromfile(path, np.float32)


@pytest.mark.parametrize("era", ERAS[1:])
def test_every_clip_has_its_logits(
    run: Run, om: Path, clips: Path, logits: np.ndarray, tmp_path: Path, era: str
) -> None:
    done = run(*infer_command(om, clips, tmp_path / "out"), ERA=era)
    assert done.returncode == 0, done.stdout + done.stderr
    found = sorted(path.name for path in (tmp_path / "out/r").iterdir())
    assert found == sorted(f"{index}_0.bin" for index in range(CLIPS))
    for index in range(CLIPS):
        assert np.array_equal(result(tmp_path / f"out/r/{index}_0.bin"), logits[index])
    summary = json.loads((tmp_path / "out/r_summary.json").read_text())
    assert list(summary) == ["filesinfo", "args", "NPU_compute_time", "H2D_latency", "D2H_latency", "throughput",
                             "npu_compute_time_list", "pid"]  # fmt: skip
    assert summary["filesinfo"]["10"] == {
        "infiles": [f"{clips}/10.bin"], "outfiles": [f"{tmp_path}/out/r/10_0.bin"]
    }  # fmt: skip
    assert list(summary["NPU_compute_time"]) == ["min", "max", "mean", "median", "percentile(99%)", "count"]
    assert summary["NPU_compute_time"]["count"] == len(summary["npu_compute_time_list"]) == 3


def test_the_oldest_era_drops_the_partial_batch_and_names_by_position(
    run: Run, om: Path, clips: Path, logits: np.ndarray, tmp_path: Path
) -> None:
    assert run(*infer_command(om, clips, tmp_path), ERA="2022-06").returncode == 0
    summary = json.loads((tmp_path / "r/sumary.json").read_text())
    assert len(summary["filesinfo"]) == 8
    order = [int(Path(entry["infiles"][0]).stem) for entry in summary["filesinfo"].values()]
    assert order == [0, 1, 10, 2, 3, 4, 5, 6]
    for entry, index in zip(summary["filesinfo"].values(), order, strict=True):
        assert np.array_equal(result(Path(entry["outfiles"][0])), logits[index])
    assert entry["outfiles"] == [f"{tmp_path}/r/sample_id_7_output_0.bin"]


@pytest.mark.parametrize(
    ("era", "throughput", "end"),
    [
        ("2022-06", "throughput (1000*batchsize/NPU_compute_time): N", "end to reset device is 0"),
        ("2022-12", "throughput 1000*batchsize(4)/NPU_compute_time.mean(N): N", "end to reset device is 0"),
        ("2023-06", "throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(N): N", "end to reset device is 0"),
        ("2024", "throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(N): N", "end to reset device 0"),
    ],
)
def test_standard_output(run: Run, om: Path, clips: Path, tmp_path: Path, era: str, throughput: str, end: str) -> None:
    done = run(*infer_command(om, clips, tmp_path / "out"), ERA=era)
    oldest = era == "2022-06"
    runs = 2 if oldest else 3
    figures = "min = N, max = N, mean = N, median = N, percentile(99%) = N"
    expected = [
        "acl init success",
        "open device 0 success",
        f"load model {om} success",
        "create model description success",
        "try get model batchsize:4",
        f"output path:{tmp_path}/out/r",
        f"get filesperbatch files0 size:129600 tensor0size:518400 filesperbatch:4 runcount:{runs}",
        *([] if oldest else ["warm up 1 done"]),
        "-----------------Performance Summary------------------",
        *([f"H2D_latency (ms): {figures}"] if oldest else []),
        f"NPU_compute_time (ms): {figures}",
        *([f"D2H_latency (ms): {figures}"] if oldest else []),
        throughput,
        "------------------------------------------------------",
        "unload model success, model Id is 1",
        *(["end to destroy context"] if era < "2024" else []),
        end,
        "end to finalize acl",
    ]
    lines = [re.sub(r"\d+\.\d+(e-\d+)?", "N", line) for line in done.stdout.split("\n") if line.startswith("[")]
    assert lines == [f"[INFO] {line}" for line in expected]
    assert f"\rInference array Processing: 100%|██████████| {runs}/{runs} " in done.stdout


def test_pure_inference_counts_its_loops_and_not_its_warm_ups(run: Run, om: Path, tmp_path: Path) -> None:
    command = ["python3", "-m", "ais_bench", "--model", str(om), "--batchsize", "4", "--loop", "5",
               "--warmup_count", "2", "--output", str(tmp_path), "--output_dirname", "pure"]  # fmt: skip
    done = run(*command)
    assert "[INFO] warm up 2 done" in done.stdout
    assert done.stdout.count("loop inference exec: (") == 5
    assert "\rloop inference exec: (5/5)\n" in done.stdout
    summary = json.loads((tmp_path / "pure_summary.json").read_text())
    assert summary["NPU_compute_time"]["count"] == 5
    assert summary["throughput"] == pytest.approx(4000 / np.mean(summary["npu_compute_time_list"]))
    assert result(tmp_path / "pure/pure_infer_data_0.bin").shape == (1600,)


def test_batchsize_feeds_the_formula_only(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    done = run(*infer_command(om, clips, tmp_path, "--batchsize", "64"))
    summary = json.loads((tmp_path / "r_summary.json").read_text())
    assert summary["throughput"] == pytest.approx(64000 / summary["NPU_compute_time"]["mean"])
    assert "throughput 1000*batchsize(64)/" in done.stdout
    assert len(list((tmp_path / "r").iterdir())) == CLIPS


def test_all_summary_shows_the_copies(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    lines = run(*infer_command(om, clips, tmp_path, "--display_all_summary", "yes")).stdout.splitlines()
    kinds = [line.split()[1] for line in lines if "(ms)" in line]
    assert kinds == ["H2D_latency", "NPU_compute_time", "D2H_latency"]


@pytest.mark.parametrize(("form", "read"), [("NPY", np.load), ("TXT", np.loadtxt)])
def test_output_formats(
    run: Run, om: Path, clips: Path, logits: np.ndarray, tmp_path: Path, form: str, read: Callable[[Path], np.ndarray]
) -> None:
    run(*infer_command(om, clips, tmp_path, "--outfmt", form))
    values = read(tmp_path / f"r/7_0.{form.lower()}")
    np.testing.assert_allclose(values.reshape(400), logits[7], atol=1e-6)


@pytest.mark.parametrize(("era", "rows"), [("2022-12", 2), ("2023-06", 1)])
def test_text_appends_until_2023(run: Run, om: Path, clips: Path, tmp_path: Path, era: str, rows: int) -> None:
    for _ in range(2):
        run(*infer_command(om, clips, tmp_path, "--outfmt", "TXT"), ERA=era)
    assert len((tmp_path / "r/0_0.txt").read_text().splitlines()) == rows


@pytest.mark.parametrize("mode", ["files", "tensor", "full"])
def test_run_modes_agree(run: Run, om: Path, clips: Path, logits: np.ndarray, tmp_path: Path, mode: str) -> None:
    done = run(*infer_command(om, clips, tmp_path, "--run_mode", mode))
    assert done.returncode == 0
    assert np.array_equal(result(tmp_path / "r/10_0.bin"), logits[10])


def test_npy_inputs_are_sorted_naturally_and_named_up_to_the_first_dot(
    run: Run, om: Path, clips: Path, logits: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for index in (10, 9, 2, 1):
        clip = np.fromfile(clips / f"{index}.bin", np.float32).reshape(1, *CLIP)
        np.save(tmp_path / f"in/clip{index}.x.npy", clip)
    (tmp_path / "in/notes.txt").write_text("not read")
    run(*infer_command(om, tmp_path / "in", tmp_path / "out"))
    summary = json.loads((tmp_path / "out/r_summary.json").read_text())
    names = [Path(entry["outfiles"][0]).name for entry in summary["filesinfo"].values()]
    assert names == ["clip1_0.bin", "clip2_0.bin", "clip9_0.bin", "clip10_0.bin"]
    assert np.array_equal(result(tmp_path / "out/r/clip9_0.bin"), logits[9])


def test_stale_results_stay(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/99_0.bin").write_bytes(b"old")
    run(*infer_command(om, clips, tmp_path))
    assert (tmp_path / "r/99_0.bin").read_bytes() == b"old"


def test_a_trailing_slash_puts_the_summary_inside(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    command = infer_command(om, clips, tmp_path)
    command[command.index("r")] = "r/"
    run(*command)
    assert (tmp_path / "r/_summary.json").exists()


def test_dynamic_batch(run: Run, onnx_file: Path, clips: Path, logits: np.ndarray, tmp_path: Path) -> None:
    shape = "input1:-1,3,300,18,2"
    made = run(*atc_command(onnx_file, tmp_path / "gears", shape, "--dynamic_batch_size=1,4,8"))
    assert made.returncode == 0
    om = tmp_path / "gears.om"
    for size in ("4", "8"):
        done = run(*infer_command(om, clips, tmp_path / size, "--dymBatch", size))
        assert f"try get model batchsize:{size}" in done.stdout
        assert np.array_equal(result(tmp_path / size / "r/10_0.bin"), logits[10])
    refused = run(*infer_command(om, clips, tmp_path / "2", "--dymBatch", "2"))
    assert refused.returncode == 1
    assert "[ERROR] the dymBatch parameter is not correct" in refused.stdout


@pytest.mark.parametrize(
    ("files", "era", "message"),
    [
        ({}, "2022-12", "[ERROR] not find valid [*.npy *.NPY *.bin *.BIN] files:[]"),
        ({"a.txt": 8}, "2023-06", "of input args not find valid file,valid file format:[*.npy *.NPY *.bin *.BIN]"),
        ({"0.bin": 1000}, "2022-12", "[ERROR] arg0 tensorsize: 518400 filesize: 1000 not match"),
        ({"0.bin": 0}, "2022-12", "[ERROR] arg0 tensorsize: 518400 filesize: 0 not match"),
        ({"0.bin": 129600, "1.bin": 129604}, "2022-12", "[ERROR] ndata size:518404 not match 518400"),
        ({"0.bin": 518400, "1.bin": 8}, "2022-12", "[ERROR] Check i:0 name:input1 in size:8 needsize:518400 not match"),
        ({"0.bin": 129600}, "2022-06", "[ERROR] create_infileslist_from_fileslist return infileslist size: 0"),
    ],
)
def test_inputs_that_do_not_fit(
    run: Run, om: Path, tmp_path: Path, files: dict[str, int], era: str, message: str
) -> None:
    (tmp_path / "in").mkdir()
    for name, size in files.items():
        (tmp_path / "in" / name).write_bytes(bytes(size))
    done = run(*infer_command(om, tmp_path / "in", tmp_path / "out"), ERA=era)
    assert done.returncode == 1
    assert message in done.stdout


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--output_batchsize_axis", "2"], 1, "save out files error array shape:(4, 400)"),
        (["--dump", "1", "--profiler", "1"], 1, "--profiler cannot be true at the same time as parameter --dump"),
        (["--dymShape", "input1:1,3,300,18,2"], 1, "[ERROR] check dynamic shape failed"),
        (["--device", "1"], 1, "deviceId(1) is bigger than deviceCount(1)"),
        (["--device", "0,0"], 2, "argument --device/-d: invalid"),
        (["--device", "256"], 2, "argument --device/-d: device:256 is invalid."),
        (["--loop", "0"], 2, "argument --loop/-l: 0 is an invalid positive int value"),
        (["--debug", "maybe"], 2, "Boolean value expected true, 1, false, 0 with case insensitive."),
        (["--outfmt", "JPG"], 2, "invalid choice"),
        (["--warmup-count", "1"], 2, "unrecognized arguments: --warmup-count"),
        (["--divide_input", "1"], 2, "unrecognized arguments: --divide_input"),
    ],
)
def test_refusals(run: Run, om: Path, clips: Path, tmp_path: Path, flags: list[str], status: int, message: str) -> None:
    done = run(*infer_command(om, clips, tmp_path, *flags))
    assert done.returncode == status
    assert message in done.stdout + done.stderr


def test_a_dirname_needs_an_output(run: Run, om: Path) -> None:
    done = run("python3", "-m", "ais_bench", "--model", str(om), "--output_dirname", "r")
    assert done.returncode == 1
    assert "parameter --output_dirname cann't be used alone" in done.stdout


def test_files_that_are_no_om(run: Run, clips: Path, onnx_file: Path, tmp_path: Path) -> None:
    (tmp_path / "x.om").write_bytes(b"no model")
    for path in (tmp_path / "x.om", onnx_file):
        done = run(*infer_command(path, clips, tmp_path))
        assert done.returncode == 1
        assert f"[ERROR] load model from file failed, model file is {path}" in done.stdout


def test_an_om_of_another_chip(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    done = run(*infer_command(om, clips, tmp_path), CHIPS="0:910B3")
    assert done.returncode == 1
    assert "load model from file failed" in done.stdout


@pytest.mark.parametrize("era", ["2023-06", "2024"])
@pytest.mark.parametrize("divide", [False, True])
def test_a_list_of_devices(run: Run, om: Path, clips: Path, tmp_path: Path, era: str, divide: bool) -> None:
    more = ["--device", "0,1", *(["--divide_input", "1"] if divide else [])]
    done = run(*infer_command(om, clips, tmp_path / "out", *more), ERA=era, CHIPS="0:310P3,1:310P3")
    assert done.returncode == 0, done.stdout
    folders = ["device0", "device1"] if era == "2023-06" else ["device0_0", "device1_1"]
    counts = [len(list((tmp_path / "out/r" / folder).iterdir())) for folder in folders]
    assert counts == ([6, 5] if divide else [CLIPS, CLIPS])
    parts = [float(value) for value in re.findall(r"device_\d throughput:([\d.]+)", done.stdout)]
    total = float(re.findall(r"\[INFO\] summary throughput:([\d.]+)", done.stdout)[0])
    assert total == pytest.approx(sum(parts))
    assert len(parts) == 2


def test_one_device_of_a_list_fails(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    done = run(*infer_command(om, clips, tmp_path, "--device", "0,7"), ERA="2024")
    assert done.returncode == 1
    assert "subprocess run failed error_callback:" in done.stdout


class Test2024:
    """Paths are looked at before anything is run."""

    @pytest.fixture
    def copies(self, om: Path, clips: Path, tmp_path: Path) -> tuple[Path, Path]:
        (tmp_path / "m.om").write_bytes(om.read_bytes())
        (tmp_path / "m.om").chmod(0o600)
        (tmp_path / "in").mkdir(mode=0o750)
        for clip in clips.iterdir():
            (tmp_path / "in" / clip.name).write_bytes(clip.read_bytes())
        return tmp_path / "m.om", tmp_path / "in"

    def refused(self, run: Run, om: Path, clips: Path, output: Path, status: int, message: str) -> None:
        done = run(*infer_command(om, clips, output), ERA="2024")
        assert done.returncode == status
        assert message in done.stdout

    def test_dashed_flags(self, run: Run, copies: tuple[Path, Path], tmp_path: Path) -> None:
        command = ["python3", "-m", "ais_bench", "-m", str(copies[0]), "-i", str(copies[1]), "-o", f"{tmp_path}/out",
                   "--output-dirname", "r", "--warmup-count", "0", "--display-all-summary", "1"]  # fmt: skip
        done = run(*command, ERA="2024")
        assert done.returncode == 0
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750

    def test_links(self, run: Run, copies: tuple[Path, Path], tmp_path: Path) -> None:
        om, clips = copies
        (tmp_path / "link.om").symlink_to(om)
        self.refused(run, tmp_path / "link.om", clips, tmp_path / "out", 2, "is a soft link, not supported")
        (clips / "11.bin").symlink_to(clips / "0.bin")
        self.refused(run, om, clips, tmp_path / "out", 1, "is a soft link, not supported")

    def test_files_that_others_may_write(self, run: Run, copies: tuple[Path, Path], tmp_path: Path) -> None:
        om, clips = copies
        (clips / "3.bin").chmod(0o664)
        self.refused(run, om, clips, tmp_path / "out", 1, "3.bin is group writable, or is others writable")
        om.chmod(0o666)
        self.refused(run, om, clips, tmp_path / "out", 2, "m.om is group writable, or is others writable")

    def test_a_wide_output_folder(self, run: Run, copies: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out").chmod(0o755)
        self.refused(run, *copies, tmp_path / "out", 2, "permission should not be over 0o750")

    def test_spaces(self, run: Run, copies: tuple[Path, Path], tmp_path: Path) -> None:
        self.refused(run, *copies, tmp_path / "my out", 2, "contains illegal char")
