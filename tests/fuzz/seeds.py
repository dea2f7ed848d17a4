"""What the readers meet on a good day, to be damaged; and on a bad one, as others have made it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import zstandard

from deploy import inventory
from deploy.hosts.owner import Owner
from deploy.hosts.remote.protocol import MAGIC
from deploy.hosts.remote.shards import LENGTH
from deploy.workspace import Workspace
from stgcn import blocks, onnx_model
from stgcn.dataset import CLIP_SHAPE
from tests.pipeline.npu_job import network
from tests.unit import made_up
from tests.unit.npu import test_ais_bench, test_atc, test_smi, test_versions

NPU = inventory.Npu(name="npu-a", runtime="native")
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch/serialization.py
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


def _saved(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def _texts(module: object) -> list[bytes]:
    """The tools' outputs that a test module quotes."""
    return [value.encode() for name, value in vars(module).items() if name.isupper() and isinstance(value, str)]


@lru_cache
def clips() -> Sequence[bytes]:
    return [_saved(np.zeros((2, *CLIP_SHAPE), np.float32), version) for version in ((1, 0), (2, 0), (3, 0))]


@lru_cache
def arrays() -> Sequence[bytes]:
    return [_saved(np.arange(6, dtype=kind).reshape(2, 3)) for kind in ("<f4", "<i8", "<f2")]


@lru_cache
def labels() -> Sequence[bytes]:
    return [pickle.dumps((["clip-0", "clip-1"], [7, 399]), protocol) for protocol in range(6)]


@lru_cache
def checkpoints() -> Sequence[bytes]:
    import torch

    from stgcn.model import ST_GCN_18

    torch.manual_seed(0)
    found = []
    for as_zip in (False, True):
        stream = io.BytesIO()
        torch.save(ST_GCN_18().state_dict(), stream, _use_new_zipfile_serialization=as_zip)
        found.append(stream.getvalue())
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    return [*found, squeezed.getvalue()]


def legacy(state: bytes) -> bytes:
    """A checkpoint of torch's older format whose state dict is the given pickle."""
    return b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {})) + state + pickle.dumps([], 2)


def claiming_model(elements: int) -> bytes:
    """An ONNX whose one weight has a shape, and no numbers."""
    model = network()
    model.graph.initializer.add(name="bomb", data_type=1, dims=[elements])
    return model.SerializeToString()


@lru_cache
def documents() -> Sequence[bytes]:
    return [b'{"a": [1, 2.5e3, null, true, "\\u00e9"], "b": {"c": {}}}', b"[]"]


@lru_cache
def indices() -> Sequence[bytes]:
    shards = [{"first": 0, "count": 2, "sha256": "0" * 64}, {"first": 2, "count": 1, "sha256": "1" * 64}]
    array = {"name": "input1", "file": None, "dtype": "float32", "shape": [2], "shards": shards}
    other = {**array, "name": "b", "file": "b.npy", "step": 2, "places": [[0, 0], [0, 1], [2, 1]]}
    whole = {"format": 2, "samples": 3, "names": ["a", "b", "c"], "rows": None, "inputs": [array]}
    return [
        json.dumps(each).encode() for each in (whole, {**whole, "rows": [[0], [1, 2], [0]], "inputs": [array, other]})
    ]


@lru_cache
def models() -> Sequence[bytes]:
    model = network()
    del model.graph.initializer[1]
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    tensor = outside.graph.initializer.add(name="stolen", data_type=1, data_location=1)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return [model.SerializeToString(), outside.SerializeToString()]


@lru_cache
def graphs() -> Sequence[bytes]:
    """Ten blocks, of nothing but what a block is known by."""
    nodes = []
    for i in range(blocks.BLOCKS):
        nodes.append(onnx.helper.make_node("Conv", [f"x{i}", "weight"], [f"y{i}"], kernel_shape=[9, 1]))
        nodes.append(onnx.helper.make_node("Relu", [f"y{i}"], [f"x{i + 1}"]))
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 1, 300, 18]) for name in ("x0", "x10")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "blocks", ends[:1], ends[1:]))
    return [model.SerializeToString(), *models()]


def instrument(path: Path) -> object:
    return blocks.add_block_outputs(onnx_model.load(path))


@lru_cache
def inventories() -> Sequence[bytes]:
    names = ("inventory.yaml", "inventory.demo.yaml", "inventory.demo-docker.yaml")
    return [(inventory.ROOT / name).read_bytes() for name in names]


_FOLDER = TemporaryDirectory(prefix="stgcn-fuzz-")  # removed when this process ends


@lru_cache
def _scored() -> Workspace:
    workspace = made_up.make(Path(_FOLDER.name))
    made_up.score(workspace)
    return workspace


def workspace(folder: Path) -> Workspace:
    """A finished workspace of its own."""
    return made_up.copy(_scored(), folder)


def place_kept(folder: Path, *names: str) -> None:
    """Copy files of a finished workspace's bs4 there."""
    for name in names:
        (folder / name).write_bytes(kept(f"npu/bs4/{name}")[0])


def kept(relative: str) -> Sequence[bytes]:
    """A file of a finished workspace."""
    return [(_scored().folder / relative).read_bytes()]


@lru_cache
def known_hosts() -> Sequence[bytes]:
    plain = f"npu-a.example,192.0.2.1 ssh-ed25519 {KEY} comment\n# a comment\n\n"
    return [
        plain.encode(),
        f"|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|AAAAAAAAAAAAAAAAAAAAAAAAAAA= ssh-ed25519 {KEY}\n".encode(),
    ]


@lru_cache
def owners() -> Sequence[bytes]:
    return [json.dumps(vars(Owner.this_process())).encode(), b'{"pid": "../../../dev"}']


@lru_cache
def streams() -> Sequence[bytes]:
    raw = bytes(range(256)) * 1024  # 4 clips of 64 KiB, as the target announces
    packed = [
        (b"d", zlib.compress(raw)),
        (b"z", zstandard.ZstdCompressor().compress(raw)),
        (b"d", zlib.compress(bytes(64 << 20))),
        (b"z", zstandard.ZstdCompressor().compress(bytes(64 << 20))),
    ]
    return [tag + LENGTH.pack(len(block)) + block + beyond for tag, block in packed for beyond in (b"", b"beyond")]


@lru_cache
def probes() -> Sequence[bytes]:
    told = {"cann": "version=6.0.RC1\n", "driver": "Version=22.0.2\n", "ais_bench": "0" * 64, "aclruntime": None}
    return [json.dumps(told).encode()]


def version_files() -> Sequence[bytes]:
    return _texts(test_versions)


def npu_smi() -> Sequence[bytes]:
    return _texts(test_smi)


def tool_logs() -> Sequence[bytes]:
    usage, tuned = b"usage: --model M --loop N --batchsize N --warmup-count N\n", b"Aoe process finished\n"
    return [*_texts(test_ais_bench), *_texts(test_atc), usage, tuned]


@lru_cache
def summaries() -> Sequence[bytes]:
    files = {str(i): {"infiles": [f"/in/{i}.bin"], "outfiles": [f"/out/results/{i}_0.bin"]} for i in range(2)}
    outside = {"0": {"infiles": ["/in/0.bin"], "outfiles": ["/out/results/../../../etc/passwd"]}}
    return [json.dumps({"filesinfo": each}).encode() for each in (files, outside)]


@lru_cache
def replies() -> Sequence[bytes]:
    digest = {"bytes": 1, "sha256": "0" * 64}
    facts = {"python": "3.9", "machine": "x", "cores": 1, "codecs": {}, "free_bytes": 1, "writable": True, "uid": 0}
    every = (
        *(True, None, "running", {"/a": digest, "/b": None}, digest, {"status": 0}, {"refused": "x"}, {"a": 1}),
        *(
            {"clips": [1], "codecs": ["zstd"]},
            {"removed": ["/a"], "left": []},
            {"home": "/h", "workspace": "/h/w", "main": "/h/m"},
        ),
        {
            **facts,
            "time": 1.0,
            "programs": {},
            "sizes": {"/d": 1, "/e": None},
            "devices": {"/dev/davinci0": [0, 0, 8624]},
        },
    )
    wrong = (
        "[1, 2]",
        "7",
        '{"bytes": 1000000000000000000}',
        '{"bytes": -1}',
        '{"bytes": true}',
        '{"bytes": 1.5}',
        "{}",
    )
    whole = [MAGIC + json.dumps({"ok": reply}).encode() + b"\n" for reply in every]
    return [*whole, *(MAGIC + line.encode() + b"\n" for line in wrong), b"motd\n" + whole[0]]
