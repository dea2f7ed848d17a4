"""The simulated host as its users start it: a command after `source set_env.sh`, and models and clips to give it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from .networks import CLIP, stgcn_like

SIMULATOR = Path(__file__).resolve().parents[2] / "docker/npu/simulator"
sys.path.insert(0, str(SIMULATOR))  # as set_env.sh does, for the modules tested without a program around them

CLIPS = 11
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run() -> Run:
    """run("npu-smi", "info", CHIPS="6:310P3") runs a program of the host with NPU_SIM_CHIPS set; text comes back."""

    def run(*command: str, cwd: Path | None = None, **knobs: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("NPU_SIM_", "ASCEND_"))}
        environment |= {f"NPU_SIM_{name}": value for name, value in knobs.items()}
        shell = ["bash", "-c", f'set -eu; source "{SIMULATOR}/set_env.sh"; exec "$@"', "bash"]
        done = subprocess.run([*shell, *command], env=environment, cwd=cwd, capture_output=True, check=False)
        out, err = done.stdout.decode(), done.stderr.decode()  # text mode would turn \r into \n
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "stgcn.onnx"
    onnx.save(stgcn_like(), path)
    return path


def atc_command(model: Path, output: Path, shape: str = "input1:4,3,300,18,2", *more: str) -> list[str]:
    return ["atc", f"--model={model}", "--framework=5", f"--output={output}", "--input_format=ND",
            f"--input_shape={shape}", "--soc_version=Ascend310P3", *more]  # fmt: skip


@pytest.fixture(scope="session")
def om(run: Run, onnx_file: Path) -> Path:
    """The OM of batch size 4."""
    done = run(*atc_command(onnx_file, onnx_file.with_name("bs4")))
    assert done.returncode == 0, done.stdout + done.stderr
    return onnx_file.with_name("bs4.om")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 0.bin to 10.bin."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(1)
    for index in range(CLIPS):
        random.standard_normal(CLIP).astype(np.float32).tofile(folder / f"{index}.bin")
    return folder


@pytest.fixture(scope="session")
def logits(om: Path, clips: Path) -> np.ndarray:
    """(11, 400): what plain ONNX Runtime makes of the OM, the last batch padded with zeros."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(om), providers=["CPUExecutionProvider"])
    data = np.zeros((12, *CLIP), np.float32)
    for index in range(CLIPS):
        data[index] = np.fromfile(clips / f"{index}.bin", np.float32).reshape(CLIP)
    return np.concatenate([session.run(None, {"input1": data[i : i + 4]})[0] for i in (0, 4, 8)])[:CLIPS]


def infer_command(om: Path, clips: Path, output: Path, *more: str) -> list[str]:
    return ["python3", "-m", "ais_bench", "--model", str(om), "--input", str(clips), "--output", str(output),
            "--output_dirname", "r", *more]  # fmt: skip
