"""--keep_dtype, --modify_mixlist, --precision_mode(_v2): which nodes atc lowers, and which lists it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import precision

from .conftest import Run, atc_command

SHAPE = "x:2,4,5,5"


def weight(name: str, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def network(scale: float = 1.0, back: float | None = None) -> onnx.ModelProto:
    """x -> first (1x1 convolution) -> norm -> act -> second -> y; `first` is times `scale`, `second` times `back`."""
    random = np.random.default_rng(0)
    back = 1 / scale if back is None else back
    weights = [
        weight("w1", random.normal(size=(4, 4, 1, 1)) * scale),
        weight("w2", random.normal(size=(3, 4, 1, 1)) * back),
        *(weight(name, np.ones(4)) for name in ("gamma", "var")),
        *(weight(name, np.zeros(4)) for name in ("beta", "mean")),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"], name="norm"),
        helper.make_node("Relu", ["b"], ["c"], name="act"),
        helper.make_node("Transpose", ["c"], ["d"], name="turn", perm=[0, 1, 3, 2]),
        helper.make_node("Conv", ["d", "w2"], ["y"], name="second"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size, 5, 5]) for name, size in (("x", 4), ("y", 3))
    ]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    )


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 4, 5, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("scale", "needed"),
    [
        (1e9, ["first", "act", "turn", "second"]),  # too large for float16, in weights and activations
        (1e-9, ["first", "act", "turn", "second"]),  # and too small
        (1.0, []),
    ],
)
def test_every_node_that_meets_a_value_beyond_float16_must_be_kept(
    run: Run, tmp_path: Path, x: np.ndarray, scale: float, needed: list[str]
) -> None:
    onnx.save(network(scale), tmp_path / "m.onnx")
    exact = outputs(tmp_path / "m.onnx", x)

    def error(names: list[str]) -> float:
        (tmp_path / "keep.cfg").write_text("".join(f" {name} \n\n" for name in names))
        flags = [f"--keep_dtype={tmp_path}/keep.cfg"] if names else []
        done = run(*atc_command(tmp_path / "m.onnx", tmp_path / "m", SHAPE), *flags)
        assert done.returncode == 0, done.stdout
        off = np.abs(outputs(tmp_path / "m.om", x) - exact).max() / np.abs(exact).max()
        return float(off) if np.isfinite(off) else np.inf

    assert error(needed) < 1e-2
    for name in needed:
        assert error([other for other in needed if other != name]) > 0.5, name


@pytest.mark.parametrize("name", ["first", "norm"])
def test_a_batch_norm_is_kept_with_its_convolution(name: str, tmp_path: Path) -> None:
    (tmp_path / "keep.cfg").write_text(name)
    found = precision.precisions(network().graph, {"keep_dtype": str(tmp_path / "keep.cfg")}, (6, 0), ())
    assert found == [precision.KEPT] * 2 + [precision.HALF] * 3


def test_a_type_is_ascends_own(tmp_path: Path) -> None:
    (tmp_path / "keep.cfg").write_text("OpType::Conv2D\n")
    found = precision.precisions(network().graph, {"keep_dtype": str(tmp_path / "keep.cfg")}, (6, 0), ())
    assert found == [precision.KEPT, precision.KEPT, precision.HALF, precision.HALF, precision.KEPT]


HALF, CUBE_OUT, KEPT = precision.HALF, precision.CUBE_OUT, precision.KEPT


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [HALF] * 5),
        ({"precision_mode": "force_fp32"}, [KEPT] * 5),
        ({"precision_mode_v2": "origin"}, [KEPT] * 5),
        ({"precision_mode_v2": "fp16"}, [HALF] * 5),
        ({"precision_mode": "allow_fp32_to_fp16"}, [HALF, HALF, KEPT, KEPT, HALF]),
        ({"precision_mode_v2": "cube_fp16in_fp32out"}, [CUBE_OUT, CUBE_OUT, KEPT, KEPT, CUBE_OUT]),
        ({"precision_mode": "allow_mix_precision"}, [HALF] * 5),
        ({"precision_mode_v2": "mixed_float16", "modify_mixlist": {"black-list": {"to-add": ["Relu"]}}},
         [HALF, HALF, KEPT, KEPT, HALF]),
        ({"precision_mode": "allow_mix_precision", "modify_mixlist": {"white-list": {"to-remove": ["Conv2D"]}}},
         [KEPT] * 5),
    ],
)  # fmt: skip
def test_the_modes_decide_node_by_node(flags: dict[str, object], expected: list[str], tmp_path: Path) -> None:
    given = {name: value if isinstance(value, str) else str(tmp_path / "list.json") for name, value in flags.items()}
    (tmp_path / "list.json").write_text(json.dumps(flags.get("modify_mixlist")))
    assert precision.precisions(network().graph, given, (7, 0), ()) == expected


MIXED = "--precision_mode=allow_mix_precision"


@pytest.mark.parametrize(
    ("flags", "content", "cann", "message"),
    [
        (["--keep_dtype={}"], "first\nthird\n", "6.0.RC1", "E10003: .*1 operator not in the graph, op name:third"),
        (["--keep_dtype={}"], "OpType::Conv\n", "7.0.0", "E10003: .*1 operator not in the graph, op type:Conv"),
        (["--keep_dtype={}"], "OpType::conv2d\n", "9.0.1", r"\(E10003\): .*It must be in PascalCase"),
        (["--keep_dtype={}"], "\n \n", "6.0.RC1", "E10003: .*lists no operator"),
        (["--keep_dtype=missing.cfg"], "", "6.0.RC1", r"E10001: Value \[missing.cfg\] for .*keep_dtype"),
        (["--modify_mixlist={}"], "{}", "6.0.RC1", r"E10001: .*\[--modify_mixlist\] .* 'allow_mix_precision'"),
        (["--modify_mixlist={}", MIXED], "{}", "6.0.RC1", "E10001: .*lists no operator"),
        (["--modify_mixlist={}", MIXED], "[", "6.0.RC1", "E10001: .*no list of"),
        (["--modify_mixlist={}", MIXED],
         '{"black-list": {"to-remove": ["Relu"]}}', "6.0.RC1", "E10001: .*Relu is not on the black-list"),
        (["--precision_mode=force_fp16", "--precision_mode_v2=fp16"], "", "7.0.0", "E10056: "),
        (["--precision_mode_v2=half"], "", "7.0.0", r"E10001: Value \[half\] for parameter \[--precision_mode_v2\]"),
        (["--precision_mode=cube_fp16in_fp32out"], "", "6.0.RC1", "E10001: "),
    ],
)  # fmt: skip
def test_refusals(run: Run, tmp_path: Path, flags: list[str], content: str, cann: str, message: str) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    (tmp_path / "list").write_text(content)
    given = [flag.format(tmp_path / "list") for flag in flags]
    done = run(*atc_command(tmp_path / "m.onnx", tmp_path / "m", SHAPE), *given, cwd=tmp_path, CANN=cann)
    assert done.returncode == 255, done.stdout
    assert re.search(message, done.stdout), done.stdout
    assert not (tmp_path / "m.om").exists()


def test_what_a_cann_came_to_take(run: Run, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    command = atc_command(tmp_path / "m.onnx", tmp_path / "m", SHAPE)
    done = run(*command, "--precision_mode_v2=fp16", CANN="6.0.RC1")
    assert done.returncode == 1
    assert "unknown command line flag 'precision_mode_v2'" in done.stderr
    assert run(*command, "--precision_mode_v2=fp16", CANN="7.0.0").returncode == 0
    (tmp_path / "keep.cfg").write_text("first\nthird\n")
    assert run(*command, f"--keep_dtype={tmp_path}/keep.cfg", CANN="9.0.1").returncode == 0  # only its log warns


def test_an_atc_that_lacks_keep_dtype_or_does_not_heed_it(run: Run, tmp_path: Path) -> None:
    onnx.save(network(1e9), tmp_path / "m.onnx")
    (tmp_path / "keep.cfg").write_text("first\n")
    command = [*atc_command(tmp_path / "m.onnx", tmp_path / "m", SHAPE), f"--keep_dtype={tmp_path}/keep.cfg"]
    done = run(*command, KEEP_DTYPE="none")
    assert done.returncode == 1
    assert "unknown command line flag 'keep_dtype'" in done.stderr
    assert run(*command, KEEP_DTYPE="ignored").returncode == 0
    ignored = (tmp_path / "m.om").read_bytes()
    assert run(*command[:-1]).returncode == 0
    assert (tmp_path / "m.om").read_bytes() == ignored


def test_nodes_without_a_name_have_the_parsers(run: Run, tmp_path: Path) -> None:
    model = network()
    for node in model.graph.node:
        node.ClearField("name")
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "keep.cfg").write_text("Conv_4")
    assert (
        run(*atc_command(tmp_path / "m.onnx", tmp_path / "m", SHAPE), f"--keep_dtype={tmp_path}/keep.cfg").returncode
        == 0
    )
