"""An NPU stage of its own on the simulated host, in the test's process and in a second or two: the GPU stage's
artefacts are those of a small network, recorded as that stage records them."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from deploy import inventory
from deploy.connections import Connections
from deploy.options import Options
from deploy.pipeline.manifest import Manifest, Step, write_json
from deploy.stages import accuracy, bench, convert, throughput
from deploy.workspace import Workspace
from stgcn.cards import KINETICS
from stgcn.files import sha256_file
from stgcn.index import write_index

CLASSES, CLIP_SHAPE = KINETICS.classes, KINETICS.row_shape
SET_ENV = "docker/npu/simulator/set_env.sh"
CHECKPOINT = {"name": "small", "sha256": "0" * 64}
SAMPLES = 77  # not a multiple of any batch size but 1, 7, 11
SHARD = 32


def network(seed: int = 0, persons: str = "both") -> onnx.ModelProto:
    """input1 (batch, 3, 300, 18, 2 or 1) -> output1 (batch, 400) by one matrix: enough to tell any two clips apart."""
    values = np.random.default_rng(seed).standard_normal((3 * 18, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input1"], ["joints"], axes=[2, 4], keepdims=0),
        helper.make_node("Reshape", ["joints", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["output1"]),
    ]
    weights = [numpy_helper.from_array(np.array([-1, 54]), "shape"), numpy_helper.from_array(values, "weights")]
    inputs = [helper.make_tensor_value_info("input1", TensorProto.FLOAT, ["batch", *KINETICS.shape(persons)])]
    outputs = [helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", CLASSES])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def logits(clips: np.ndarray, seed: int = 0) -> np.ndarray:
    """What `network` makes of the clips, in float32."""
    weights = numpy_helper.to_array(network(seed).graph.initializer[1])
    return (clips.mean(axis=(2, 4)).reshape(len(clips), -1) @ weights).astype(np.float32)


class NpuJob:
    """A workspace after its GPU stage, and an inventory of simulated hosts."""

    def __init__(self, folder: Path, samples: int = SAMPLES, empty: Sequence[slice] = (), **changes: Any) -> None:
        self.folder, self.workspace = folder, folder / "work"
        self.clips = np.random.default_rng(1).standard_normal((samples, *CLIP_SHAPE)).astype(np.float32)
        for person, clips in enumerate(empty):  # which clips lack it
            self.clips[clips, ..., person] = 0
        self.inventory: dict[str, Any] = {
            "workspace": str(self.workspace),
            "gpu": {"runtime": "native"},
            "npu": [self.host("npu-a")],
            "dataset": {"data": str(folder / "val_data.npy"), "labels": str(folder / "val_label.pkl")},
            "batch_sizes": [8],
            "benchmark": {"loop": 2, "max_repeats": 2, "spread": 1.0, "idle_timeout_s": 1},
            "timeout_s": 60,
            **changes,
        }
        np.save(folder / "val_data.npy", self.clips)
        self._make_gpu_stage()

    def copy(self, folder: Path) -> NpuJob:
        """The same job in another (empty) folder, with all that it and its hosts have."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        made = copy.copy(self)
        made.folder, made.workspace = folder, folder / "work"
        made.inventory = json.loads(json.dumps(self.inventory).replace(str(self.folder), str(folder)))
        return made

    def host(self, name: str, **changes: Any) -> dict[str, Any]:
        """A simulated NPU host for `npu`."""
        return {
            "name": name,
            "connection": "local",
            "runtime": "native",
            "workspace": str(self.folder / name),
            "tools": {"env_scripts": [SET_ENV], "env": {"NPU_SIM_THREADS": "1"}},
            **changes,
        }

    def play(self, host: int = 0, **knobs: str) -> None:
        """Have a host play NPU_SIM_<knob>=<value>; "" takes a knob back."""
        env = self.inventory["npu"][host]["tools"]["env"]
        env |= {f"NPU_SIM_{name}": value for name, value in knobs.items()}

    def connections(self, **switches: bool) -> Connections:
        path = self.folder / "inventory.yaml"
        path.write_text(yaml.safe_dump(self.inventory))
        return Connections(Workspace(inventory.load(path)), Options(**switches))

    def convert(self, **switches: bool) -> None:
        convert.run(self.connections(**switches))

    def bench(self, **switches: bool) -> None:
        bench.run(self.connections(**switches))

    def accuracy(self, batch_size: int = 8, **switches: bool) -> None:
        """The accuracy run of one batch size alone."""
        connections = self.connections(**switches)
        workspace = connections.workspace
        accuracy.run(connections, workspace.build(batch_size), workspace.samples())

    def throughput(self, batch_size: int = 8, **switches: bool) -> None:
        """The figure of one batch size alone."""
        connections = self.connections(**switches)
        throughput.run(connections, connections.workspace.build(batch_size))

    def entry(self, step: str) -> dict[str, Any]:
        """A step of the manifest as it is on disk."""
        return dict(json.loads((self.workspace / "manifest.json").read_text())["steps"][step])

    def path(self, batch_size: int, name: str) -> Path:
        return self.workspace / f"npu/bs{batch_size}" / name

    def logits(self, batch_size: int) -> np.ndarray:
        return np.asarray(np.load(self.path(batch_size, "logits.npy")))

    def figure(self, batch_size: int) -> dict[str, Any]:
        return dict(json.loads(self.path(batch_size, "benchmark.json").read_text()))

    def left_on(self, host: str) -> list[str]:
        """What is left of runs on a host."""
        return [str(path) for path in (self.folder / host).glob("runs/*")]

    def write_onnx(self, seed: int = 0) -> None:
        """Export (another) network, as the GPU stage does."""
        folder, persons = self.workspace / "gpu", self.inventory.get("persons", "both")
        paths = [folder / "st_gcn.onnx", folder / "model.json"]

        def action() -> dict[str, Any]:
            onnx.save(network(seed, persons), paths[0])
            write_json(paths[1], KINETICS.as_json(persons))
            return {}

        inputs = {"seed": seed, "persons": persons, "checkpoint": CHECKPOINT}
        Manifest(self.workspace).run_step(Step("export", "gpu", inputs, paths, action))

    def exports(self, model: onnx.ModelProto) -> None:
        """Have the GPU host's Python export `model`, whatever is asked for; all else it does itself."""
        path, python = self.folder / "exported.onnx", self.folder / "gpu-python"
        onnx.save(model, path)
        persons = "nonempty" if model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value == 1 else "both"
        write_json(Path(f"{path}.json"), KINETICS.as_json(persons))
        python.write_text(
            f"""#!/bin/bash
[ "$2" = -m ] || exec {sys.executable} "$@"
while [ $# -gt 0 ]; do
    case $1 in
        --onnx) cp {path} $2 ;;
        --card) cp {path}.json $2 ;;
    esac
    shift
done
"""
        )
        python.chmod(0o755)
        self.inventory["gpu"]["python"] = str(python)
        self.inventory["checkpoint"] = str(path)  # any file

    def _make_gpu_stage(self) -> None:
        folder = self.workspace / "gpu"
        folder.mkdir(parents=True)
        data, labels = self.folder / "val_data.npy", self.folder / "val_label.pkl"
        expected = logits(self.clips)
        names = [f"clip{i}" for i in range(len(self.clips))]
        labels.write_bytes(pickle.dumps((names, expected.argmax(1).tolist()), protocol=2))

        def preprocess() -> dict[str, Any]:
            write_index(data, labels, folder, SHARD)
            return {}

        def reference() -> dict[str, Any]:
            np.save(folder / "reference.npy", expected)
            return {}

        manifest = Manifest(self.workspace)
        outputs = [folder / "labels.npy", folder / "persons.json", folder / "dataset.json"]
        manifest.run_step(Step("preprocess", "gpu", {"data": sha256_file(data)}, outputs, preprocess))
        manifest.run_step(Step("reference", "gpu", {"checkpoint": CHECKPOINT}, [folder / "reference.npy"], reference))
        self.write_onnx()


def simulator_script(folder: Path, text: str) -> str:
    """An environment script sourced after the simulator's own; its path."""
    path = folder / "more_env.sh"
    path.write_text(text)
    return str(path)
