"""What can be made to go wrong in mid-run, and the shortened inference."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from .conftest import CLIPS, SIMULATOR, Run, infer_command


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_crash_leaves_the_results_before_it(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    done = run(*infer_command(om, clips, tmp_path), FAULT="crash@3")  # the warm-up, 0 to 3, and no more
    assert done.returncode == -11
    assert results(tmp_path / "r") == ["0_0.bin", "1_0.bin", "2_0.bin", "3_0.bin"]
    assert not (tmp_path / "r_summary.json").exists()


def test_a_hang_lasts_until_it_is_killed(om: Path, clips: Path, tmp_path: Path) -> None:
    shell = ["bash", "-c", f'source "{SIMULATOR}/set_env.sh"; NPU_SIM_FAULT=hang@3 exec "$@"', "bash"]
    with subprocess.Popen([*shell, *infer_command(om, clips, tmp_path)], stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "r/3_0.bin").exists():
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
    assert results(tmp_path / "r")[-1] == "3_0.bin"


def test_a_device_lost_in_mid_run_stays_lost(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    state = {"STATE": str(tmp_path / "state"), "CHIPS": "0:310P3,1:310P3"}
    done = run(*infer_command(om, clips, tmp_path / "out"), FAULT="lost@3:0", **state)
    assert done.returncode == 1
    assert "[ERROR] execute model failed, modelId is 1\n[ERROR] acl execute failed:1\n" in done.stdout
    assert "| 0       1         |" in (table := run("npu-smi", "info", **state).stdout)
    assert "| 0       0         |" not in table
    again = run(*infer_command(om, clips, tmp_path / "out"), **state)
    assert again.returncode == 1
    assert "[ERROR] acl open device 0 failed" in again.stdout
    assert run(*infer_command(om, clips, tmp_path / "out", "--device", "1"), **state).returncode == 0


def test_nan_in_one_batch(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    assert run(*infer_command(om, clips, tmp_path), FAULT="nan@3").returncode == 0
    bad = [i for i in range(CLIPS) if np.isnan(np.fromfile(tmp_path / f"r/{i}_0.bin", np.float32)).all()]
    assert bad == [4, 5, 6, 7]


def test_short_results(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    assert run(*infer_command(om, clips, tmp_path), FAULT="short@4").returncode == 0
    sizes = [(tmp_path / f"r/{i}_0.bin").stat().st_size for i in range(CLIPS)]
    assert sizes == [1600] * 8 + [800] * 3


def test_a_fault_of_the_other_device(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    assert run(*infer_command(om, clips, tmp_path), FAULT="crash@1:1").returncode == 0


def test_npu_smi_shows_who_infers(run: Run, om: Path, clips: Path, tmp_path: Path) -> None:
    knobs = {"DRIVER": "23.0.3", "STATE": str(tmp_path / "state")}
    shell = ["bash", "-c", f'source "{SIMULATOR}/set_env.sh"; exec env NPU_SIM_FAULT=hang@1 "$@"', "bash",
             f"NPU_SIM_STATE={tmp_path}/state"]  # fmt: skip
    with subprocess.Popen([*shell, *infer_command(om, clips, tmp_path)], stdout=subprocess.DEVNULL) as process:
        while not list((tmp_path / "state").glob("running-0-*")):
            assert process.poll() is None
            time.sleep(0.05)
        busy = run("npu-smi", "info", **knobs).stdout
        process.kill()
    assert f"| {process.pid} " in busy
    assert "No running processes found in NPU 0" in run("npu-smi", "info", **knobs).stdout


def test_shortened_inference_says_so_and_still_tells_clips_apart(
    run: Run, om: Path, clips: Path, logits: np.ndarray, tmp_path: Path
) -> None:
    done = run(*infer_command(om, clips, tmp_path), SHORTCUT="2.5")
    assert "[WARN] simulated device: NPU_SIM_SHORTCUT is set, the model is not run" in done.stdout
    found = np.stack([np.fromfile(tmp_path / f"r/{i}_0.bin", np.float32) for i in range(CLIPS)])
    assert len(np.unique(found[:, 0])) == CLIPS
    assert not np.allclose(found, logits)
    summary = json.loads((tmp_path / "r_summary.json").read_text())
    assert summary["NPU_compute_time"]["mean"] == pytest.approx(10, rel=1e-3)  # 4 clips of 2.5 ms
