"""atc and aoe: what they write, what they refuse and how."""

import json
import re
import stat
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import atc

from .conftest import SIMULATOR, Run, atc_command
from .networks import CLIP, stgcn_like

FAILED = "ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
EINSUM = helper.make_node("Einsum", ["output1"], ["sum"], name="Einsum_12", equation="ij->i")


def outputs(path: Path, clips: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input1": clips})[0])


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((4, *CLIP)).astype(np.float32)


def test_the_om_is_plain_onnx_of_a_fixed_batch(om: Path) -> None:
    model = onnx.load(om)
    onnx.checker.check_model(model, full_check=True)
    (data,), (logits,) = model.graph.input, model.graph.output
    assert [dim.dim_value for dim in data.type.tensor_type.shape.dim] == [4, *CLIP]
    assert [dim.dim_value for dim in logits.type.tensor_type.shape.dim] == [4, 400]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "cann": "6.0.RC1-simulated", "precision_mode": "force_fp16", "soc_version": "Ascend310P3"
    }  # fmt: skip
    assert stat.S_IMODE(om.stat().st_mode) == 0o600


def test_success_is_told_and_the_same_input_makes_the_same_bytes(
    run: Run, onnx_file: Path, om: Path, tmp_path: Path
) -> None:
    done = run(*atc_command(onnx_file, tmp_path / "new/folder/again"))
    assert done.returncode == 0
    assert done.stdout == (
        "ATC start working now, please wait for a moment.\nATC run success, welcome to the next use.\n"
    )
    assert (tmp_path / "new/folder/again.om").read_bytes() == om.read_bytes()
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["again.om"]


def test_half_precision_is_near_the_model_and_not_the_model(om: Path, onnx_file: Path, batch: np.ndarray) -> None:
    exact, half = outputs(onnx_file, batch), outputs(om, batch)
    error = np.abs(half - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 5e-3


def test_weights_and_activations_are_float16_values(om: Path) -> None:
    model = onnx.load(om)
    statistics = {name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[1:]}
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and weight.name not in statistics:
            assert np.array_equal(values, values.astype(np.float16).astype(np.float32)), weight.name
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 2 * (1 + 3 + 4 + 5 + 3)  # input, blocks (the last two add, the last projects), head


def test_a_clip_does_not_see_its_neighbours(om: Path, batch: np.ndarray) -> None:
    alone = np.zeros_like(batch)
    alone[2] = batch[1]
    assert np.array_equal(outputs(om, alone)[2], outputs(om, batch)[1])


@pytest.mark.parametrize("mode", ["force_fp32", "must_keep_origin_dtype"])
def test_wide_modes_keep_float32(run: Run, onnx_file: Path, tmp_path: Path, batch: np.ndarray, mode: str) -> None:
    more = f"--precision_mode={mode}"
    assert run(*atc_command(onnx_file, tmp_path / "wide", "input1:4,3,300,18,2", more)).returncode == 0
    np.testing.assert_allclose(outputs(tmp_path / "wide.om", batch), outputs(onnx_file, batch), rtol=1e-5, atol=1e-5)


def test_float16_outputs(run: Run, onnx_file: Path, om: Path, tmp_path: Path, batch: np.ndarray) -> None:
    command = atc_command(onnx_file, tmp_path / "half", "input1:4,3,300,18,2", "--output_type=FP16")
    assert run(*command).returncode == 0
    result = outputs(tmp_path / "half.om", batch)
    assert result.dtype == np.float16
    assert np.array_equal(result, outputs(om, batch).astype(np.float16))


def test_a_bad_block_spoils_it_and_what_follows_only(run: Run, tmp_path: Path, batch: np.ndarray) -> None:
    model = stgcn_like()
    blocks = [node.output[0] for node in model.graph.node if node.op_type == "Relu"][1::2]
    shape = [None, None, None, None]
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in blocks)
    path = tmp_path / "blocks.onnx"
    onnx.save(model, path)
    results = {}
    for name, knobs in {"good": {}, "bad": {"BAD_BLOCK": "2"}}.items():
        assert run(*atc_command(path, tmp_path / name), **knobs).returncode == 0
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.om"), providers=["CPUExecutionProvider"])
        results[name] = session.run(["output1", *blocks], {"input1": batch})
    error = [np.abs(a - b).max() / np.abs(a).max() for a, b in zip(results["good"], results["bad"], strict=True)]
    assert error[1] == 0
    assert error[2] > 0.1
    assert error[3] > 0.1
    assert error[0] > 0.02
    assert len(np.unique(results["bad"][2][0, 0])) <= 3


def test_weights_listed_as_inputs(run: Run, om: Path, tmp_path: Path) -> None:
    model = stgcn_like()
    model.graph.input.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims) for weight in model.graph.initializer
    )
    onnx.save(model, tmp_path / "old.onnx")
    assert run(*atc_command(tmp_path / "old.onnx", tmp_path / "old")).returncode == 0
    assert (tmp_path / "old.om").read_bytes() == om.read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input_shape=input:4,3,300,18,2"], "E10016: Opname [input] specified in [--input_shape] is not found"),
        (["--input_shape="], "E10001: Value [-1] for parameter [input1] is invalid. Reason: maybe you should set"),
        (["--input_shape=input1"], "E10002: Value [input1] for parameter [--input_shape] is invalid."),
        (["--input_shape=input1:4,3,x,18,2"], "E10002: "),
        (["--input_shape=input1:0,3,300,18,2"], "E10011: "),
        (["--input_shape=input1:-1,3,300,18,2"], "E10011: "),
        (["--input_shape=input1:4,3,300"], "E10001: "),
        (["--model="], "E10004: Value for [--model] is empty."),
        (["--framework=0"], "E10007: [--framework] is required."),
        (["--log=loud"], "E10010: Value [loud] for parameter [--log] is invalid."),
        (["--output=folder/"], "E10022: Path [folder/] for parameter [--output]"),
        (["--model=missing.onnx"], "E10041: "),
        ([f"--model={__file__}"], "E10041: "),
        (["--model=/dev/zero"], "E10041: "),
        (["--log=\x1b[2J"], "E10010: Value [[2J] for"),
        (["--input_shape=input1:" + "9" * 5000], "E10002: "),
        (["--soc_version=Ascend310310P3"], "EE1001: The argument is invalid.Reason: Soc version [Ascend310310P3] is"),
        (["--precision_mode=fp16"], "E10001: Value [fp16] for parameter [--precision_mode] is invalid. Reason: "),
        (["--op_select_implmode=fast"], "E10001: "),
        (["--input_shape=input1:-1,3,300,18,2", "--dynamic_batch_size=4"], "E10001: "),
        (["--dynamic_batch_size=1,4"], "E10031: "),
    ],
)
def test_refusals(run: Run, onnx_file: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    done = run(*atc_command(onnx_file, tmp_path / "x"), *flags, cwd=tmp_path)
    assert done.returncode == 255
    start, failed, error = done.stdout.partition(FAILED)
    assert start == "ATC start working now, please wait for a moment.\n"
    assert failed
    assert error.startswith(message)
    assert [line[:8] for line in error.splitlines()[1:]] == [" " * 8] * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "output", "soc_version"])
def test_required_flags(run: Run, onnx_file: Path, tmp_path: Path, name: str) -> None:
    command = [word for word in atc_command(onnx_file, tmp_path / "x") if not word.startswith(f"--{name}=")]
    done = run(*command)
    assert done.returncode == 255
    assert f"E10054: The requied parameter [--{name}] for ATC is empty." in done.stdout


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            stgcn_like(opset=13, extra=(EINSUM,)),
            "EZ3003: No supported Ops kernel and engine are found for [Einsum_12], optype [Einsum].",
        ),
        (stgcn_like(opset=15), "E19010: No parser is registered for Op [transpose0, optype [ai.onnx::15::Transpose]]."),
    ],
    ids=["einsum", "opset"],
)  # fmt: skip
def test_models_without_kernel_or_parser(run: Run, tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    done = run(*atc_command(tmp_path / "m.onnx", tmp_path / "x"))
    assert done.returncode == 255
    assert message in done.stdout


def test_shapes_that_the_model_cannot_have(run: Run, tmp_path: Path) -> None:
    data, logits = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 8), ("y", 4))
    )
    weight = onnx.numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], "fc", [data], [logits], [weight]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), tmp_path / "fc.onnx")
    done = run(*atc_command(tmp_path / "fc.onnx", tmp_path / "x", "x:1,5"))
    assert done.returncode == 255
    assert "\nE19999: Inner Error!\nE19999  " in done.stdout


def test_a_newer_cann_takes_a_newer_opset_and_stamps_its_errors(run: Run, tmp_path: Path) -> None:
    onnx.save(stgcn_like(opset=15), tmp_path / "m.onnx")
    assert run(*atc_command(tmp_path / "m.onnx", tmp_path / "x"), CANN="7.0.0").returncode == 0
    done = run(*atc_command(tmp_path / "m.onnx", tmp_path / "x"), "--log=loud", CANN="8.0.0")
    assert "\nE10010: [PID: " in done.stdout


@pytest.mark.parametrize("cann", ["8.5.0", "9.0.1"])
def test_the_newest_canns_put_a_title_before_the_code(run: Run, onnx_file: Path, tmp_path: Path, cann: str) -> None:
    done = run(*atc_command(onnx_file, tmp_path / "x"), "--log=loud", CANN=cann)
    assert re.search(r"\n\[PID: \d+\] \S+ Invalid_Argument\(E10010\): Value loud for parameter --log is", done.stdout)
    inner = run(*atc_command(onnx_file, tmp_path / "x"), CANN=cann, ATC_ERROR="E19999").stdout
    assert re.search(r"\nE19999: Inner Error!\nE19999\[PID: \d+\] \S+ Inner_Error\(E19999\):  Infer", inner)


@pytest.mark.parametrize(
    ("soc", "cann", "known"),
    [
        ("Ascend910_9392", "7.0.0", False),
        ("Ascend910_9392", "8.0.0", True),
        ("Ascend950PR_9579", "8.0.0", False),
        ("Ascend950PR_9579", "8.5.0", True),
    ],
)
def test_a_cann_knows_the_chips_of_its_time(
    run: Run, onnx_file: Path, tmp_path: Path, soc: str, cann: str, known: bool
) -> None:
    command = [word.replace("Ascend310P3", soc) for word in atc_command(onnx_file, tmp_path / "x")]
    done = run(*command, CANN=cann)
    assert (done.returncode == 0) is known
    assert known or "EE1001" in done.stdout


@pytest.mark.parametrize("code", sorted(atc.MESSAGES))
def test_every_code_on_demand(run: Run, onnx_file: Path, tmp_path: Path, code: str) -> None:
    done = run(*atc_command(onnx_file, tmp_path / "x"), ATC_ERROR=code)
    assert done.returncode == 255
    assert f"\n{code}: " in done.stdout


def test_a_code_at_one_batch_size(run: Run, onnx_file: Path, tmp_path: Path) -> None:
    status = {
        size: run(*atc_command(onnx_file, tmp_path / "x", f"input1:{size},3,300,18,2"), ATC_ERROR="EZ3003@8").returncode
        for size in (1, 8)
    }
    assert status == {1: 0, 8: 255}


def test_without_set_env(run: Run, onnx_file: Path, tmp_path: Path) -> None:
    done = run(
        "env", "-u", "ASCEND_TOOLKIT_HOME", str(SIMULATOR / "bin/atc"), *atc_command(onnx_file, tmp_path / "x")[1:]
    )
    assert done.returncode == 255
    assert "E10001: Value [linux] for parameter [--host_env_os] is invalid." in done.stdout


@pytest.mark.parametrize("flag", ["--colour=red", "--model", "--insert_op_conf=aipp.cfg"])
def test_flags_that_it_lacks(run: Run, flag: str) -> None:
    done = run("atc", flag)
    assert done.returncode == 1
    assert flag.partition("=")[0].strip("-") in done.stderr


def test_dashes_and_spaced_values(run: Run, onnx_file: Path, tmp_path: Path) -> None:
    command = atc_command(onnx_file, tmp_path / "x")
    spelt = ["-" + w.lstrip("-").replace("_", "-", 1).replace("=", " ", 1) for w in command[1:5]]
    words = [part for word in spelt for part in word.split(" ", 1)]
    assert run("atc", *words, *command[5:]).returncode == 0


@pytest.mark.parametrize(("job", "kind"), [("1", "sgat"), ("2", "opat")])
def test_aoe(run: Run, onnx_file: Path, om: Path, tmp_path: Path, job: str, kind: str) -> None:
    command = ["aoe", "--framework=5", f"--model={onnx_file}", f"--job_type={job}", f"--output={tmp_path}/tuned",
               "--input_shape=input1:4,3,300,18,2"]  # fmt: skip
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0
    assert "[Aoe]Aoe process finished,cost time " in done.stdout
    assert (tmp_path / "tuned.om").read_bytes() == om.read_bytes()
    (report,) = tmp_path.glob(f"aoe_result_{kind}_*_pid*.json")
    assert json.loads(report.read_text())


def test_aoe_refuses_another_job(run: Run, onnx_file: Path) -> None:
    assert run("aoe", "--framework=5", f"--model={onnx_file}", "--job_type=3").returncode == 255
