"""A workspace as the stages leave it, of made-up numbers: no torch, no tools, in a tenth of a second."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from deploy.connections import Connections
from deploy.evidence.logits import DIGESTS, LOGITS, DeviceLogits, write_logits
from deploy.inventory import Inventory
from deploy.npu import ais_bench, measure
from deploy.options import Options
from deploy.pipeline.manifest import Step, write_json
from deploy.pipeline.model import find
from deploy.stages import report as report_stage
from deploy.stages import score as score_stage
from deploy.workspace import Workspace
from stgcn.cards import KINETICS
from stgcn.dataset import CLIP_SHAPE
from stgcn.files import sha256_file

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
TOLD = """[INFO] load model st_gcn.om success
[INFO] -----------------Performance Summary------------------
[INFO] NPU_compute_time (ms): min = {low}, max = {high}, mean = {mean}, median = {mean}, percentile(99%) = {high}
[INFO] throughput 1000*batchsize({size})/NPU_compute_time.mean({mean}): {rate}
"""


def make(folder: Path, seed: int = 0, error: float = 1e-3, flip: int | None = None, slower: float = 1.0) -> Workspace:
    """A finished workspace up to the score. `error` is the device's; `flip` gives one sample another Top-1 at bs4;
    `slower` divides the throughput."""
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
    reference = random.standard_normal((SAMPLES, CLASSES)).astype(np.float32)
    reference[np.arange(10), labels[:10]] += 9  # ten of thirteen are right
    _gpu_stage(workspace, clips, names, labels, reference)
    for size in SIZES:
        device = (reference + error * random.standard_normal(reference.shape)).astype(np.float32)
        if flip is not None and size == 4:
            device[flip, (labels[flip] + 1) % CLASSES] = 40
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


def _gpu_stage(
    workspace: Workspace, clips: np.ndarray, names: list[str], labels: list[int], reference: np.ndarray
) -> None:
    folder = workspace.artefact("gpu")
    folder.mkdir()
    files = workspace.local_files()
    digest = {name: workspace.manifest.input_sha256(path) for name, path in files.items()}
    checkpoint = {"name": files["checkpoint"].name, "sha256": digest["checkpoint"]}
    tools = {"python": "3.11.2", "numpy": "2.4.6", "torch": "2.13.0"}

    def preprocess() -> dict[str, Any]:
        np.save(folder / "labels.npy", np.array(labels, np.int64))
        shard = {"first": 0, "count": SAMPLES, "sha256": hashlib.sha256(clips.tobytes()).hexdigest()}
        array = {"name": "input1", "file": None, "dtype": "float32", "shape": list(CLIP_SHAPE), "shards": [shard]}
        index = {"format": 2, "samples": SAMPLES, "names": names, "rows": None, "inputs": [array]}
        write_json(folder / "dataset.json", index)
        return {}

    def export() -> dict[str, Any]:
        (folder / "st_gcn.onnx").write_bytes(b"onnx")
        write_json(folder / "model.json", KINETICS.as_json())
        return {}

    def reference_logits() -> dict[str, Any]:
        np.save(folder / "reference.npy", reference)
        return {}

    data = {"data": digest["data"], "labels": digest["labels"]}
    run = [["python", "-m", "stgcn.index"]]
    paths = [folder / "labels.npy", folder / "dataset.json"]
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
        om.write_bytes(b"om" * size)
        (folder / "atc.log").write_text("ATC run success, welcome to the next use.\n")
        return {"simulated": True}

    def accuracy() -> dict[str, Any]:
        write_logits(DeviceLogits(names, [logits]), folder, CARD)
        return {"simulated": True, "units": {"npu-a:0": 1}}

    def benchmark() -> dict[str, Any]:
        runs = []
        for repeat, mean in enumerate((100.0, 102.0, 101.0), start=1):
            mean = mean * size**0.9 * slower
            told = TOLD.format(size=size, mean=mean, low=mean * 0.98, high=mean * 1.03, rate=1000 * size / mean)
            (folder / measure.log_name(repeat)).write_text(told)
            runs.append(ais_bench.parse_stdout(told, size))
        check = {"at": "2026-01-01T00:00:00+00:00", "busy": None, "aicore_percent": 0, "processes": []}
        figure = measure.figures(size, runs)
        figure["throughput"] |= {"idle": True, "noisy": False}
        figure["logs"] = {name: sha256_file(folder / name) for name in map(measure.log_name, range(1, 4))}
        figure["idle_checks"] = {"before": check, "after": check}
        write_json(folder / "benchmark.json", figure)
        return {"simulated": True, "idle": True}

    inputs: dict[str, Any] = {
        "onnx": steps["export"]["outputs"]["gpu/st_gcn.onnx"]["sha256"],
        "soc_version": TOOLS["soc_version"],
        "cann": TOOLS["cann"],
        "flags": {"precision_mode": "force_fp16"},
        "batch_size": size,
    }
    command = [["atc", "--model=st_gcn.onnx", f"--output=st_gcn_bs{size}"]]
    workspace.manifest.run_step(Step(f"convert/bs{size}", "npu-a", inputs, [om, folder / "atc.log"], convert, command))
    inputs = {
        "om": steps[f"convert/bs{size}"]["outputs"][f"npu/bs{size}/{om.name}"]["sha256"],
        "onnx": steps["export"]["outputs"]["gpu/st_gcn.onnx"]["sha256"],
        "dataset": steps["preprocess"]["outputs"]["gpu/dataset.json"]["sha256"],
        "batch_size": size,
        **TOOLS,
    }
    command = [["python3", "-m", "ais_bench", "--model", om.name]]
    outputs = [folder / LOGITS, folder / DIGESTS]
    workspace.manifest.run_step(Step(f"accuracy/bs{size}", "npu-a:0", inputs, outputs, accuracy, command))
    del inputs["dataset"]
    inputs |= {"loop": 1, "host": "npu-a", "device": 0}
    workspace.manifest.run_step(
        Step(f"throughput/bs{size}", "npu-a:0", inputs, [folder / "benchmark.json"], benchmark, command)
    )


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())
