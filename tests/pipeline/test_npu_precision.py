"""`fab npu-precision` on a simulated host: from a failed gate to the nodes, ATC's file, the price and the lines."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper, numpy_helper

from deploy.errors import KitError
from deploy.evidence import records
from deploy.evidence.status import states_of
from deploy.npu.convert import Conversion
from deploy.pipeline.manifest import Manifest, Step, StepResult, write_json
from deploy.report.summary import of_precision
from deploy.stages import precision
from stgcn.cards import KINETICS
from tests.pipeline import npu_job
from tests.pipeline.npu_job import NpuJob


def faulty() -> onnx.ModelProto:
    """The small network, whose product vanishes in float16 and is scaled up again by a factor beyond its range."""
    model = npu_job.network()
    weights = model.graph.initializer[1]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1e-9), weights.name))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e9, np.float32), "factor"))
    for node, name in zip(model.graph.node, ("mean", "view", "product"), strict=True):
        node.name = name
    model.graph.node[2].output[0] = "small"
    model.graph.node.append(helper.make_node("Mul", ["small", "factor"], ["output1"], name="scaled"))
    return model


def faulty_job(folder: Path, **changes: Any) -> NpuJob:
    made = NpuJob(folder, samples=12, **changes)
    paths = [made.workspace / "gpu/st_gcn.onnx", made.workspace / "gpu/model.json"]

    def export() -> dict[str, Any]:
        onnx.save(faulty(), paths[0])
        write_json(paths[1], KINETICS.as_json("both"))
        return {}

    Manifest(made.workspace).run_step(Step("export", "gpu", {"seed": "faulty", "persons": "both"}, paths, export))
    return made


@pytest.fixture
def job(tmp_path: Path) -> NpuJob:
    return faulty_job(tmp_path)


def result(job: NpuJob) -> dict[str, Any]:
    return dict(json.loads((job.workspace / "precision/precision.json").read_text()))


@pytest.mark.full
def test_the_nodes_are_named_and_the_inventorys_lines_make_the_gate_hold(
    job: NpuJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.convert()
    converted: list[str] = []
    convert = Conversion.__call__

    def counted(self: Conversion, *where: Any) -> StepResult:
        converted.append(self.build.name)
        return convert(self, *where)

    monkeypatch.setattr(Conversion, "__call__", counted)
    precision.run(job.connections(), 8)
    found = result(job)
    assert found["conversions"] == len(converted)
    assert job.entry("convert/precision/fp16")["facts"]["copied_from"] == "convert/bs8"
    assert "precision/fp16" not in converted
    assert [node["name"] for node in found["nodes"]] == ["product", "scaled"]
    assert found["verdicts"]["kept"]["passed"]
    assert found["verdicts"]["kept"]["samples"] == 12
    assert not found["verdicts"]["fp16"]["passed"]
    assert found["throughput"].keys() == {"fp16", "kept", "fp32"}
    lines = yaml.safe_load((job.workspace / "precision/inventory.yaml").read_text())
    assert Path(lines["atc"]["keep_dtype"]).read_text() == "product\nscaled\n"

    capsys.readouterr()
    precision.run(job.connections(), 8)
    assert "  OK  " not in capsys.readouterr().out

    job.inventory |= lines
    job.convert()
    key = job.entry("convert/bs8")["key"]
    job.accuracy()
    assert (job.logits(8).argmax(1) == npu_job.logits(job.clips).argmax(1)).all()
    told = of_precision(found)
    records.check(job.workspace, told, records.Precision)
    states = {state.step: state.state for state in states_of(job.connections().workspace)}
    assert states["precision"] == "OK"
    Path(lines["atc"]["keep_dtype"]).write_text("product\n")
    job.convert()
    assert job.entry("convert/bs8")["key"] != key


@pytest.mark.full
@pytest.mark.parametrize("played", ["none", "ignored"])
def test_operator_types_are_kept_where_single_nodes_cannot_be(
    job: NpuJob, played: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job.play(KEEP_DTYPE=played)
    precision.run(job.connections(), 8)
    found = result(job)
    assert [node["name"] for node in found["nodes"]] == ["product", "scaled"]
    assert json.loads(found["file"]["text"]) == {
        "black-list": {"to-add": ["BatchMatMul", "BatchMatMulV2", "GEMM", "MatMul", "MatMulV2", "Mul"]},
        "white-list": {"to-add": ["GlobalAveragePool", "ReduceMean", "ReduceMeanD"]},
    }
    # fp16 and fp32 throughout, both types, either alone; and where it counts for nothing, fp32 by nodes
    assert found["conversions"] == (5 if played == "none" else 6)
    records.check(job.workspace, of_precision(found), records.Precision)
    lines = yaml.safe_load((job.workspace / "precision/inventory.yaml").read_text())
    assert lines["atc"]["precision_mode"] == "allow_mix_precision"

    job.inventory |= lines
    job.convert()
    job.accuracy()
    assert (job.logits(8).argmax(1) == npu_job.logits(job.clips).argmax(1)).all()
    states = {state.step: state.state for state in states_of(job.connections().workspace)}
    assert states["precision"] == "OK"
    capsys.readouterr()
    precision.run(job.connections(), 8)
    assert "  OK  " not in capsys.readouterr().out
    assert result(job) == found


@pytest.mark.full
def test_a_fault_that_the_last_samples_alone_show_is_found_by_them(tmp_path: Path) -> None:
    job = faulty_job(tmp_path, empty=[slice(0, 10)] * 2)  # all that the first ten give is zero, in float16 too
    precision.run(job.connections(), 8)
    found = result(job)
    assert [node["name"] for node in found["nodes"]] == ["product", "scaled"]
    assert found["verdicts"]["kept"]["samples"] == 12
    assert found["conversions"] == 5  # float16, float32, the two, either alone


@pytest.mark.full
def test_what_precision_does_not_explain_is_said(job: NpuJob) -> None:
    wrong = job.workspace / "gpu/reference.npy"

    def reference() -> dict[str, Any]:
        np.save(wrong, -npu_job.logits(job.clips))
        return {}

    inputs = {"checkpoint": {"name": "small", "sha256": "1" * 64}}
    Manifest(job.workspace).run_step(Step("reference", "gpu", inputs, [wrong], reference))
    with pytest.raises(KitError, match="precision"):
        precision.run(job.connections(), 8)
    assert result(job)["explained"] is False
    assert result(job)["matrix"] == ["product"]


@pytest.mark.full
def test_a_matrix_unit_of_float16_alone_is_told_as_what_it_may_be(job: NpuJob) -> None:
    job.play(CUBE="float16")
    with pytest.raises(KitError, match="matrix unit takes float16 alone.*: then scale the weights of product$"):
        precision.run(job.connections(), 8)
    assert result(job)["matrix"] == ["product"]
    records.check(job.workspace, of_precision(result(job)), records.Precision)


def test_a_file_that_is_not_there_is_named(job: NpuJob) -> None:
    job.inventory["atc"] = {"keep_dtype": str(job.folder / "missing.cfg")}
    with pytest.raises(KitError, match=r"missing\.cfg: .*`atc\.keep_dtype`"):
        job.convert()


@pytest.mark.full
@pytest.mark.parametrize("persons", ["both", "nonempty"])
def test_the_samples_are_not_held_in_memory(tmp_path: Path, persons: str) -> None:
    job = NpuJob(tmp_path, samples=240, persons=persons, empty=[slice(0, 0), slice(0, 200)])
    connections = job.connections(fresh=True)
    every = connections.workspace.samples()
    doctor = precision.Doctor(connections, 8, every)
    doctor.passes(())

    def peak(samples: int) -> int:
        """Bytes allocated at once while so many are tried."""
        doctor.index = every.head(samples)
        doctor.tried.clear()
        tracemalloc.start()
        try:
            doctor.passes(())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(239) - peak(24) < job.clips.nbytes / 8
