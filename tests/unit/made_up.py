"""A workspace as the stages leave it, of made-up numbers: no torch, no tools, in a fraction of a second."""

from __future__ import annotations

import json
import pickle
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.connections import Connections
from deploy.evidence.logits import DIGESTS, LOGITS, write_logits
from deploy.inventory import Inventory
from deploy.npu import ais_bench, measure, smi
from deploy.npu.device import IdleCheck
from deploy.options import Options
from deploy.pipeline import graph
from deploy.pipeline.manifest import Step, write_json
from deploy.pipeline.model import find
from deploy.stages import report as report_stage
from deploy.stages import score as score_stage
from deploy.workspace import Workspace
from stgcn.cards import KINETICS
from stgcn.dataset import CLIP_SHAPE
from stgcn.files import sha256_file
from stgcn.index import write_index

SIZES = (1, 4)
CARD = find(KINETICS.name, Path()).card
CLASSES = KINETICS.classes
SAMPLES = 13
TOOLS = {
    "soc_version": "Ascend310P3",
    "cann": "6.0.RC1-simulated",
    "ais_bench": "ab" * 32,
    "driver": "22.0.2-simulated",
}
NODES = [f"/backbone/gcn.{i}/tcn/conv/Conv" for i in (3, 4)]  # with names as long as an exporter's
IDLE = smi.Chip(0, 0, 0, "310P3", "OK", "0000:01:00.0", 20.5, 45, 0, 1000, 21534, processes=())
OPENED = """[INFO] open device 0 success
[INFO] load model /npu-a/files/{om}/st_gcn_bs{size}.om success
"""
RAN = "[INFO] get filesperbatch files0 size:1 tensor0size:1 filesperbatch:{} runcount:{}\n"
TOLD = """[INFO] -----------------Performance Summary------------------
[INFO] NPU_compute_time (ms): min = {low}, max = {high}, mean = {mean}, median = {mean}, percentile(99%) = {high}
[INFO] throughput 1000*batchsize({size})/NPU_compute_time.mean({mean}): {rate}
"""


def make(
    folder: Path,
    seed: int = 0,
    error: float = 1e-3,
    flip: int | None = None,
    slower: float = 1.0,
    wrong: int = 0,
) -> Workspace:
    """A finished workspace up to the score. `error` is the device's; `flip` gives one sample another Top-1 at bs4, and
    `wrong` the first so many; `slower` divides the throughput."""
    random = np.random.default_rng(seed)
    sample = folder / "sample"
    sample.mkdir(parents=True)
    names = [f"clip-{i:03}" for i in range(SAMPLES)]
    labels = [int(i) for i in random.integers(0, CLASSES, SAMPLES)]
    clips = _walkers(random)
    np.save(sample / "val_data.npy", clips)
    (sample / "val_label.pkl").write_bytes(pickle.dumps((names, labels), protocol=2))
    (sample / "st_gcn.made-up.pth").write_bytes(random.bytes(64))
    workspace = Workspace(inventory(folder))
    wanted = random.standard_normal((SAMPLES, CLASSES))
    wanted[np.arange(10), labels[:10]] += 9  # ten of thirteen are right
    features = clips.mean(axis=(2, 4)).reshape(SAMPLES, -1)
    weights = np.linalg.lstsq(features.astype(np.float64), wanted, rcond=None)[0].astype(np.float32)
    reference = features @ weights
    _gpu_stage(workspace, weights, reference)
    for size in SIZES:
        device = (reference + error * random.standard_normal(reference.shape)).astype(np.float32)
        for clip in [*range(wrong), *([] if flip is None else [flip])] if size == 4 else []:
            device[clip, (labels[clip] + 1) % CLASSES] = 40
        _npu_stages(workspace, size, names, device, slower)
    return workspace


def inventory(folder: Path) -> Inventory:
    return Inventory.model_validate(
        {
            "workspace": str(folder / "work"),
            "gpu": {"runtime": "native"},
            "npu": [{"name": "npu-a", "runtime": "native"}],
            "dataset": {"data": str(folder / "sample/val_data.npy"), "labels": str(folder / "sample/val_label.pkl")},
            "checkpoint": str(folder / "sample/st_gcn.made-up.pth"),
            "batch_sizes": list(SIZES),
        }
    )


def copy(workspace: Workspace, folder: Path) -> Workspace:
    """The same workspace elsewhere, to be damaged."""
    source = workspace.folder.parent
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "work/.hashes.json").unlink(missing_ok=True)
    return Workspace(inventory(folder))


def score(workspace: Workspace) -> None:
    """As `make score` does."""
    score_stage.run(workspace, Options(), Connections(workspace, Options()).read_row)


def report(workspace: Workspace) -> None:
    """As `make report` does."""
    report_stage.run(workspace, Options(), Connections(workspace, Options()).read_row)


def _walkers(random: np.random.Generator) -> np.ndarray:
    """Clips of one or two persons who swing about a pose; some shorter than 300 frames."""
    clips = np.zeros((SAMPLES, *CLIP_SHAPE), np.float32)
    pose = random.uniform(-0.3, 0.3, (SAMPLES, 2, 18, 2))
    time = np.arange(300)[:, None, None] / 20
    for i, clip in enumerate(clips):
        frames, persons = 300 - 40 * (i % 3), 1 + i % 2
        for person in range(persons):
            swing = pose[i, :, :, person][:, None] + 0.05 * np.sin(time[..., 0] + np.arange(18))
            clip[:2, :frames, :, person] = swing[:, :frames]
            clip[2, :frames, :, person] = 0.9
        clip[2, 10:20, 4, 0] = 0  # a joint out of sight
    return clips


def network(weights: np.ndarray, batch: int | str = "batch") -> onnx.ModelProto:
    """Clips' joints, averaged over time and persons, times (54, classes) `weights`."""
    nodes = [
        helper.make_node("ReduceMean", ["input1"], ["joints"], NODES[0], axes=[2, 4], keepdims=0),
        helper.make_node("Reshape", ["joints", "shape"], ["flat"], "/backbone/Reshape"),
        helper.make_node("MatMul", ["flat", "weights"], ["output1"], NODES[1]),
    ]
    constants = [numpy_helper.from_array(np.array([-1, 54]), "shape"), numpy_helper.from_array(weights, "weights")]
    inputs = [helper.make_tensor_value_info("input1", TensorProto.FLOAT, [batch, *CLIP_SHAPE])]
    outputs = [helper.make_tensor_value_info("output1", TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "made-up", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def _gpu_stage(workspace: Workspace, weights: np.ndarray, reference: np.ndarray) -> None:
    folder = workspace.artefact("gpu")
    folder.mkdir()
    files = workspace.local_files()
    digest = {name: workspace.manifest.input_sha256(path) for name, path in files.items()}
    checkpoint = {"name": files["checkpoint"].name, "sha256": digest["checkpoint"]}
    tools = {"python": "3.11.2", "numpy": "2.4.6", "torch": "2.13.0"}

    def preprocess() -> dict[str, Any]:
        write_index(files["data"], files["labels"], folder)
        return {}

    def export() -> dict[str, Any]:
        onnx.save(network(weights), folder / "st_gcn.onnx")
        write_json(folder / "model.json", KINETICS.as_json())
        return {}

    def reference_logits() -> dict[str, Any]:
        np.save(folder / "reference.npy", reference)
        return {}

    data = {"data": digest["data"], "labels": digest["labels"]}
    run = [["python", "-m", "stgcn.index"]]
    paths = [folder / name for name in ("labels.npy", "persons.json", "dataset.json")]
    workspace.manifest.run_step(Step("preprocess", "gpu", data, paths, preprocess, run))
    inputs = {"checkpoint": checkpoint, "variant": "reference", "tools": tools}
    exported = [folder / "st_gcn.onnx", folder / "model.json"]
    workspace.manifest.run_step(Step("export", "gpu", inputs, exported, export, run))
    inputs = {"checkpoint": checkpoint, "data": digest["data"], "tools": tools}
    workspace.manifest.run_step(Step("reference", "gpu", inputs, [folder / "reference.npy"], reference_logits, run))


def _npu_stages(workspace: Workspace, size: int, names: list[str], logits: np.ndarray, slower: float) -> None:
    folder = workspace.batch_folder(size)
    folder.mkdir(parents=True)
    om = folder / f"st_gcn_bs{size}.om"
    steps = workspace.manifest.steps

    def convert() -> dict[str, Any]:
        model = onnx.load(workspace.artefact("gpu/st_gcn.onnx"))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        helper.set_model_props(model, {"soc_version": TOOLS["soc_version"], "cann": TOOLS["cann"]})
        onnx.save(model, om)
        (folder / "atc.log").write_text("ATC run success, welcome to the next use.\n")
        return {"simulated": True}

    def accuracy() -> dict[str, Any]:
        write_logits(names, [logits], folder, CARD)
        opened = OPENED.format(size=size, om=inputs["om"][:16])
        (folder / "ais_bench-0.log").write_text(opened + RAN.format(size, -(-SAMPLES // size)))
        return {"simulated": True, "units": {"npu-a:0": 1}}

    def benchmark() -> dict[str, Any]:
        runs = []
        for repeat, mean in enumerate((100.0, 102.0, 100.5), start=1):
            mean = mean * size**0.9 * slower
            times = {"mean": mean, "low": mean * 0.98, "high": mean * 1.03, "rate": 1000 * size / mean}
            told = OPENED.format(size=size, om=inputs["om"][:16]) + TOLD.format(size=size, **times)
            (folder / measure.log_name(repeat)).write_text(told)
            runs.append(ais_bench.parse_stdout(told, size))
        check = IdleCheck(datetime.now(timezone.utc).isoformat(timespec="seconds"), IDLE).record()
        figure = measure.figures(size, runs)
        figure["throughput"] |= {"idle": True, "noisy": False, "health": None}
        figure["logs"] = {name: sha256_file(folder / name) for name in map(measure.log_name, range(1, 4))}
        figure["times"] = {}
        figure["idle_checks"] = {"before": check, "after": check}
        figure |= {"host": "npu-a", "device": 0, "temperature_c": 45, "power_w": 20.5, "simulated": True}
        write_json(folder / "benchmark.json", figure)
        return {"simulated": True, "idle": True}

    inputs: dict[str, Any] = {
        "onnx": steps["export"]["outputs"]["gpu/st_gcn.onnx"]["sha256"],
        "soc_version": TOOLS["soc_version"],
        "cann": TOOLS["cann"],
        "flags": {"precision_mode": "force_fp16"},
        "batch_size": size,
    }
    command = [["atc", "--model=st_gcn.onnx", f"--output=st_gcn_bs{size}", f"--input_shape=input1:{size},3,300,18,2"]]
    command[0] += [f"--soc_version={TOOLS['soc_version']}", "--precision_mode=force_fp16"]
    workspace.manifest.run_step(Step(f"convert/bs{size}", "npu-a", inputs, [om, folder / "atc.log"], convert, command))
    inputs = {
        "om": steps[f"convert/bs{size}"]["outputs"][f"npu/bs{size}/{om.name}"]["sha256"],
        "onnx": steps["export"]["outputs"]["gpu/st_gcn.onnx"]["sha256"],
        "dataset": steps["preprocess"]["outputs"]["gpu/dataset.json"]["sha256"],
        "batch_size": size,
        **TOOLS,
    }
    command = [
        ["python3", "-m", "ais_bench", "--model", f"/npu-a/files/{inputs['om'][:16]}/{om.name}", "--device", "0"]
    ]
    outputs = [folder / LOGITS, folder / DIGESTS]
    workspace.manifest.run_step(Step(f"accuracy/bs{size}", "npu-a:0", inputs, outputs, accuracy, command))
    del inputs["dataset"]
    inputs |= {"loop": 1, "warmup": 1, "max_repeats": 3, "spread": 0.01975, "host": "npu-a", "device": 0}
    workspace.manifest.run_step(
        Step(f"throughput/bs{size}", "npu-a:0", inputs, [folder / "benchmark.json"], benchmark, command)
    )


def precision() -> dict[str, Any]:
    """What `fab npu-precision` finds: both nodes of the network that compute."""
    reasons = [{"cause": "weights_beyond", "figure": 0.12}, {"cause": "vanished", "figure": 0.98}]
    rate = {"median": 150.5, "min": 149.0, "max": 152.0, "repeats": 3, "idle": True, "noisy": False}
    verdict: dict[str, Any] = {"passed": True, "finite": True, "relative_error": 0.0, "agreement": 1.0}
    verdict["samples"] = SAMPLES
    verdict["metrics"] = {"top1": 10 / SAMPLES, "top5": 10 / SAMPLES}  # as fp32's
    return {
        "explained": True,
        "batch_size": 8,
        "samples": SAMPLES,
        "gates": {"top1": 0.01, "top5": 0.01},
        "mode": "force_fp16",
        "units": 2,
        "conversions": 6,
        "blocks": [],
        "matrix": [],
        "file": {"flag": "keep_dtype", "text": "".join(f"{name}\n" for name in NODES)},
        "inventory": "atc: {precision_mode: force_fp16, keep_dtype: work/precision/keep_dtype.cfg}\n",
        "nodes": [
            {"name": name, "kind": "Conv+BatchNormalization", "block": "4", "reasons": reasons} for name in NODES
        ],
        "throughput": {way: {**rate, "noisy": way == "kept"} for way in ("fp16", "kept", "fp32")},
        "verdicts": {"fp16": {"passed": False, "finite": False, "samples": SAMPLES}, "kept": verdict, "fp32": verdict},
    }


def ask_for_precision(workspace: Workspace, found: dict[str, Any]) -> None:
    """As `fab npu-precision` records what it found."""
    folder, entries = workspace.artefact("precision"), workspace.manifest.steps
    files = [folder / name for name in ("precision.json", "inventory.yaml", "keep_dtype.cfg")]
    tools = {name: entries["accuracy/bs1"]["inputs"][name] for name in ("cann", "driver")}
    inputs = {**graph.inputs(entries, "precision", workspace.inventory), "result": found, **tools}

    def action() -> dict[str, Any]:
        write_json(files[0], found)
        files[1].write_text(found["inventory"])
        files[2].write_text(found["file"]["text"])
        return {"simulated": entries["accuracy/bs1"]["facts"]["simulated"]}

    workspace.manifest.run_step(Step("precision", "control", inputs, files, action))


def at(value: Any, path: str) -> Any:
    """What stands at a path such as `batches.0.top1`."""
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())
