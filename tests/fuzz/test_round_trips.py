"""What the kit writes, it reads back the same."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deploy.evidence.logits import read_logits, write_logits
from deploy.npu import smi
from deploy.pipeline.index import read_index
from deploy.pipeline.manifest import Manifest, write_json
from stgcn import npy, plain_json
from stgcn.dataset import NAME_LIMIT, load_labels
from stgcn.index import write_index
from tests.stgcn.conftest import random_clips
from tests.unit.made_up import CARD

QUICK = settings(deadline=None, database=None, max_examples=30)
NAMES = st.text(min_size=1, max_size=NAME_LIMIT).filter(str.isprintable)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@QUICK
@given(st.lists(NAMES, min_size=1, max_size=3), st.integers(1, 4))
def test_an_index(names: list[str], shard_clips: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "data.npy", random_clips(len(names)))
        (folder / "labels.pkl").write_bytes(pickle.dumps((names, list(range(len(names)))), 2))
        write_index(folder / "data.npy", folder / "labels.pkl", folder, shard_clips)
        found = read_index(folder / "dataset.json")
        assert load_labels(folder / "labels.pkl").names == found.names == names
        assert npy.load(folder / "labels.npy").tolist() == list(range(len(names)))


@QUICK
@given(st.lists(NAMES, min_size=1, max_size=3), FINITE)
def test_logits(names: list[str], value: float) -> None:
    logits = np.full((len(names), 400), value, np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        write_logits(names, [logits], Path(scratch), CARD)
        found = read_logits(Path(scratch), names, CARD)
    assert np.array_equal(found[0], logits)


@QUICK
@given(arrays.arrays(st.sampled_from(["<f4", "<i8"]), arrays.array_shapes(min_dims=0, min_side=0)))
def test_an_array(array: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        np.save(Path(scratch, "x.npy"), array)
        found = npy.load(Path(scratch, "x.npy"))
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(found, array, equal_nan=True)


@QUICK
@given(JSON)
def test_json(value: object) -> None:
    assert plain_json.loads(json.dumps(value)) == value


@QUICK
@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}(/bs[0-9]{1,3})?", fullmatch=True), st.dictionaries(st.text(), JSON)))
def test_a_manifest(inputs: dict[str, dict[str, object]]) -> None:
    told = {
        "state": "OK",
        "key": "0",
        "host": "npu-a",
        "by": "a@b",
        "revision": "0",
        "started": "2026-01-01T00:00:00+00:00",
    }
    with tempfile.TemporaryDirectory() as scratch:
        steps = {
            name: {**told, "inputs": each, "outputs": {"a/b": {"sha256": "0", "bytes": 0}}, "commands": [["a", "b c"]]}
            for name, each in inputs.items()
        }
        write_json(Path(scratch, "manifest.json"), {"format": 1, "steps": steps})
        assert Manifest(Path(scratch)).steps == steps


@QUICK
@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 64000)), min_size=1, max_size=8, unique_by=lambda c: c[0]))
def test_a_table_of_npu_smi(chips: list[tuple[int, int]]) -> None:
    rows = ["| NPU     Name | Health | Power(W) Temp(C) |", "| Chip    Device | Bus-Id | AICore(%) Memory-Usage(MB) |"]
    for device, used in chips:
        rows += [f"| {device} 310P3 | OK | 15.8 42 0 / 0 |", f"| 0 {device} | 0000:82:00.0 | 7 {used} / 64000 |"]
    found = smi.parse_info("\n".join(rows))
    assert [(chip.device, chip.memory_used_mb) for chip in found] == chips
