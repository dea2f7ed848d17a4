"""Where the time goes, on the simulated host: its op_summary is real, of ONNX Runtime's own profile of the OM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import HostUnfit, KitError
from deploy.npu.profiler import choose
from deploy.pipeline.manifest import Manifest, Step, write_json
from deploy.stages import profile
from stgcn.cards import KINETICS
from tests.pipeline.npu_job import CLASSES, NpuJob, simulator_script

BLOCKS = 10
WIDTH = 8  # channels


def blocks_network() -> onnx.ModelProto:
    """Ten blocks as `stgcn.blocks` finds them, each a 9x1 convolution and a ReLU, on few channels; named nodes."""
    random, nodes, weights = np.random.default_rng(0), [], []

    def add(kind: str, *inputs: str, **how: Any) -> str:
        name = f"/{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [f"{name}_output"], name=name, **how))
        return f"{name}_output"

    def weight(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    x = add("Transpose", "input1", perm=[0, 4, 1, 2, 3])
    x, width = add("Reshape", x, weight("shape", np.array([-1, 3, 300, 18]))), 3
    for i in range(BLOCKS):
        kernel = weight(f"w{i}", (0.1 * random.standard_normal((WIDTH, width, 9, 1))).astype(np.float32))
        width = WIDTH
        x = add("Relu", add("Conv", x, kernel, kernel_shape=[9, 1], pads=[4, 0, 4, 0]))
    x = add("Reshape", add("ReduceMean", x, axes=[2], keepdims=0), weight("flat", np.array([-1, 36 * WIDTH])))
    x = add("MatMul", x, weight("fcn", random.standard_normal((36 * WIDTH, CLASSES)).astype(np.float32)))
    nodes[-1].output[0] = "output1"
    inputs = [helper.make_tensor_value_info("input1", TensorProto.FLOAT, ["batch", *KINETICS.shape("both")])]
    outputs = [helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", CLASSES])]
    graph = helper.make_graph(nodes, "blocks", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


@pytest.fixture
def job(tmp_path: Path) -> NpuJob:
    job = NpuJob(tmp_path, samples=3, batch_sizes=[2])
    folder = job.workspace / "gpu"
    paths = [folder / "st_gcn.onnx", folder / "model.json"]

    def action() -> dict[str, Any]:
        onnx.save(blocks_network(), paths[0])
        write_json(paths[1], KINETICS.as_json("both"))
        return {}

    step = Step("export", "gpu", {"seed": "blocks", "persons": "both"}, paths, action)
    Manifest(job.workspace).run_step(step)
    return job


def profiled(job: NpuJob, **switches: Any) -> dict[str, Any]:
    with job.connections() as connections:
        profile.run(connections, **switches)
    return dict(json.loads(job.path(2, "profile.json").read_text()))


@pytest.mark.parametrize(
    "played",
    [
        {"CANN": "6.0.RC1", "ERA": "2022-12"},
        pytest.param({"CANN": "8.0.0", "ERA": "2024", "DRIVER": "24.1.0"}, marks=pytest.mark.full),
        pytest.param({"CANN": "9.0.1", "ERA": "2025", "DRIVER": "26.0.0"}, marks=pytest.mark.full),
    ],
)
def test_a_slow_block_is_found_by_name_in_the_table_of_each_release(job: NpuJob, played: dict[str, str]) -> None:
    job.play(**played, SLOW_BLOCK="7")
    job.convert()
    found = profiled(job)
    slowest = max(found["blocks"], key=lambda block: block["us"])
    assert slowest["block"] == "7"
    assert len(found["blocks"]) == BLOCKS + 1
    assert found["attributed"] >= 0.95
    assert found["compiler"]["kinds"].keys() == {"Cast"}
    assert {"nodes", "us"} <= found["operators"][0].keys()
    assert ["/Conv_2", "/Relu_3"] in [row["nodes"] for row in found["operators"]]
    assert job.entry("profile/bs2")["facts"]["idle"]
    assert job.left_on("npu-a") == []
    kept = job.path(2, "profile.json").stat().st_mtime_ns
    profiled(job)
    assert job.path(2, "profile.json").stat().st_mtime_ns == kept  # CACHED


@pytest.mark.full
def test_two_profiles_side_by_side(job: NpuJob, capsys: pytest.CaptureFixture[str]) -> None:
    job.convert()
    profiled(job)
    before = job.workspace / "earlier"
    (before / "npu").mkdir(parents=True)
    job.path(2, "").rename(before / "npu/bs2")
    (before / "manifest.json").write_bytes((job.workspace / "manifest.json").read_bytes())
    job.play(SLOW_BLOCK="3")
    job.convert(fresh=True)
    capsys.readouterr()
    profiled(job, against=str(before))
    printed = capsys.readouterr().out
    table = printed[printed.index("by block") :]
    assert table.splitlines()[4].split("│")[1].strip() == "3"


def test_a_table_that_was_made_elsewhere(job: NpuJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "PROF_000001_2026/mindstudio_profiler_output"
    folder.mkdir(parents=True)
    rows = ["Op Name,OP Type,Task Duration(us)", "/Conv_2/Relu_3,Conv2D,60", "trans_TransData_0,TransData,35", "x,X,5"]
    for stamp in ("20260101", "20260102"):  # of two exports one counts
        (folder / f"op_summary_slice_0_{stamp}.csv").write_text("\n".join(rows[:3]), encoding="utf-8-sig")
        (folder / f"op_summary_slice_1_{stamp}.csv").write_text("\r\n".join((rows[0], rows[3])))
    with job.connections() as connections:
        profile.read(connections.workspace, tmp_path, 2)
        said = capsys.readouterr().out
        assert "0.100 ms of device time" in said
        assert "95.0% of the device's time" in said
        (tmp_path / "other.csv").write_text("\n".join((rows[0], "/stem/Conv,Conv2D,60", rows[2])))
        with pytest.raises(KitError, match=r"another model \(it has /stem/Conv\)"):
            profile.read(connections.workspace, tmp_path / "other.csv", 2)
        with pytest.raises(KitError, match=r"no op_summary"):
            profile.read(connections.workspace, job.folder / "npu-a", 2)


def test_a_host_without_the_profiler_is_told_what_is_missing(job: NpuJob) -> None:
    job.convert()
    script = simulator_script(job.folder, 'mkdir -p "$HOME/.none"; PATH="${PATH#*docker/npu/simulator/bin:}"\n')
    job.inventory["npu"][0]["tools"]["env_scripts"].append(script)
    job.inventory["npu"][0]["tools"]["npu_smi"] = str(Path("docker/npu/simulator/bin/npu-smi").resolve())
    with pytest.raises(KitError, match="msprof"):
        profiled(job)


def test_of_several_tables_one_export_is_taken() -> None:
    old = "profiler/PROF_1/device_0/summary/op_summary_0_1.csv"
    folder = "p/PROF_1/mindstudio_profiler_output"
    first, again = (f"{folder}/op_summary_2026010100000{i}.csv" for i in (1, 5))
    later = [f"{folder}/op_summary_slice_{i}_202601010000{6 + i:02}.csv" for i in (10, 2, 1)]  # a second each
    assert choose([old, "results/x.csv"]) == [old]
    assert choose([old, first, again]) == [again]
    assert choose([first, *later, again]) == [again, *reversed(later)]
    assert choose([again, f"{folder}/op_summary_slice_1_20260101000002.csv", first]) == [again]
    of_device = [f"p/PROF_1/device_0/summary/op_summary_0_1_1{part}.csv" for part in ("", "_slice_1", "_slice_2")]
    assert choose(of_device[::-1]) == of_device


@pytest.mark.full
def test_a_busy_device_is_not_profiled(job: NpuJob) -> None:
    job.convert()
    job.play(BUSY="0:train.py:forever")
    with pytest.raises(HostUnfit, match=r"train\.py"):
        profiled(job)
    assert not job.path(2, "profile.json").exists()
