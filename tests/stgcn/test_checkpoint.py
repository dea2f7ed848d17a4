"""Checkpoints, good and bad, in both of torch's formats."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import functools
import hashlib
import io
import os
import pickle
import random
import struct
import uuid
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict

import numpy as np
import pytest
import torch

from stgcn.checkpoint import load_model, load_state_dict, save_state_dict
from stgcn.errors import InputError

State = Dict[str, torch.Tensor]
LEGACY_TORCH = torch.__version__.startswith("1.2.")
needs_zip = pytest.mark.skipif(LEGACY_TORCH, reason="torch 1.2 writes no zip")
FORMATS = [False, pytest.param(True, marks=needs_zip)]


def torch_save(content: Any, path: Path, as_zip: bool = False) -> Path:
    options = {} if LEGACY_TORCH else {"_use_new_zipfile_serialization": as_zip}
    torch.save(content, str(path), **options)
    return path


class Reduced:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call

    def __str__(self) -> str:
        return f"{self.call[0]}"


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("as_zip", FORMATS)
class TestTorchsOwnFiles:
    def test_a_state_dict_comes_back(self, state: State, tmp_path: Path, as_zip: bool) -> None:
        assert same(load_state_dict(torch_save(OrderedDict(state), tmp_path / "x.pth", as_zip)), state)

    def test_a_training_tools_wrapping_is_understood(self, state: State, tmp_path: Path, as_zip: bool) -> None:
        wrapped = {
            "meta": {"epoch": 3, "time": "now"},
            "state_dict": {f"module.{name}": values for name, values in state.items()},
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        }
        assert same(load_state_dict(torch_save(wrapped, tmp_path / "x.pth", as_zip)), state)

    def test_parameters_and_views_are_tensors(self, state: State, tmp_path: Path, as_zip: bool) -> None:
        odd = dict(state)
        shape = state["fcn.weight"].shape
        odd["fcn.weight"] = state["fcn.weight"].reshape(400, 256).t().contiguous().t().reshape(shape)
        odd["fcn.bias"] = torch.nn.Parameter(torch.cat([torch.zeros(7), state["fcn.bias"]]))[7:].detach()
        odd["edge_importance.0"] = torch.nn.Parameter(state["edge_importance.0"])
        assert same(load_state_dict(torch_save(odd, tmp_path / "x.pth", as_zip)), state)

    def test_half_precision_is_loaded_into_the_model(self, state: State, tmp_path: Path, as_zip: bool) -> None:
        halves = {name: values.half() if values.is_floating_point() else values for name, values in state.items()}
        model = load_model(torch_save(halves, tmp_path / "x.pth", as_zip))
        assert same(dict(model.state_dict()), {name: values.to(state[name].dtype) for name, values in halves.items()})
        assert not model.training

    @pytest.mark.parametrize("wrapping", ["state_dict", "model_state_dict", "model", "net"])
    @pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module."])
    def test_every_wrapping_is_opened(
        self, state: State, tmp_path: Path, wrapping: str, prefix: str, as_zip: bool
    ) -> None:
        wrapped = {"best": torch.tensor(0.5), wrapping: {prefix + name: values for name, values in state.items()}}
        assert same(load_state_dict(torch_save(wrapped, tmp_path / "x.pth", as_zip)), state)
        inside = {"state_dict": {"epoch": 1}, "model": wrapped}
        assert same(load_state_dict(torch_save(inside, tmp_path / "x.pth", as_zip)), state)

    def test_harmless_objects_beside_the_weights_are_passed_over(
        self, state: State, tmp_path: Path, as_zip: bool
    ) -> None:
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
        beside = [
            argparse.Namespace(lr=0.1, path=PurePosixPath("a"), seen={1, 2}, kinds=frozenset("ab")),
            collections.Counter("aab"),
            collections.defaultdict(list, {0.5: [1], None: [2], (1, "a"): [3]}),
            collections.deque([1, 2], 3),
            Path("a/b"),
            datetime.datetime.now(datetime.timezone.utc),
            datetime.timedelta(1),
            decimal.Decimal("0.1"),
            uuid.UUID(int=1),
            np.float64(0.25),
            np.arange(3),
            np.dtype("M8[s]"),
            np.random.RandomState(0).get_state(),
            np.float32,
            complex(1, 2),
            b"bytes",
            torch.Size([1]),
            torch.float32,
            torch.device("cpu"),
            [torch.zeros(2, dtype=dtype) for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)],
        ]
        optimizer.zero_grad()
        content = {"epoch": np.int64(3), "beside": beside, "optimizer": optimizer.state_dict(), "net": state}
        for protocol in (2, 3, pickle.HIGHEST_PROTOCOL):
            path = tmp_path / f"{protocol}.pth"
            options = {} if LEGACY_TORCH else {"_use_new_zipfile_serialization": as_zip}
            torch.save(content, str(path), pickle_protocol=protocol, **options)
            assert same(load_state_dict(path), state)

    @pytest.mark.parametrize(
        ("hostile", "name"),
        [
            (Reduced(os.system, "exit 1"), r"(posix|os)\.system"),
            (Reduced(eval, "1"), r"(builtins|__builtin__)\.eval"),
            (Reduced(getattr, Path("x"), "unlink"), r"builtins\.getattr"),
            (Reduced(functools.partial, print), r"functools\.partial"),
            (Reduced(collections.namedtuple, "A", "b"), r"collections\.namedtuple"),
            (Reduced(argparse.FileType("w"), "x"), r"argparse\.FileType"),
            (collections.defaultdict(os.getpid), r"(posix|os)\.getpid"),
            (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
            (np.random.RandomState(0), r"numpy\.random"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_may_run_code_is_refused_by_name(
        self, state: State, tmp_path: Path, hostile: Any, name: str, as_zip: bool
    ) -> None:
        for content in ({"state_dict": state, "beside": hostile}, {**state, "A": hostile}):
            with pytest.raises(InputError, match=f"x.pth.*{name}"):
                load_state_dict(torch_save(content, tmp_path / "x.pth", as_zip))

    def test_bfloat16_becomes_float32(self, state: State, tmp_path: Path, as_zip: bool) -> None:
        if LEGACY_TORCH:
            pytest.skip("torch 1.2 computes nothing in bfloat16")
        halves = {name: v.bfloat16() if v.is_floating_point() else v for name, v in state.items()}
        found = load_state_dict(torch_save(halves, tmp_path / "x.pth", as_zip))
        assert same(found, {name: values.to(state[name].dtype) for name, values in halves.items()})


class OldStorage:
    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


class OldTensor:
    """A tensor as torch before 0.4 pickled it: by another function, its storage a part of a larger one."""

    def __init__(self, key: str, values: torch.Tensor) -> None:
        self.key, self.values = key, values.contiguous()

    def __reduce__(self) -> Any:
        storage = OldStorage(self.key, self.values.numel())
        return torch._utils._rebuild_tensor, (storage, 0, tuple(self.values.shape), tuple(self.values.stride()))


class OldPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, OldStorage):
            return None
        return "storage", torch.FloatStorage, obj.key, "cuda:0", obj.count + 2, (f"{obj.key}v", 2, obj.count)


def test_a_file_of_old_torch_on_a_gpu_is_read(state: State, tmp_path: Path) -> None:
    tensors = OrderedDict(
        (name, OldTensor(str(index), values))
        for index, (name, values) in enumerate(state.items())
        if values.is_floating_point()
    )
    body = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(part, body, 2)
    OldPickler(body, 2).dump({"epoch": 1, "state_dict": tensors})
    pickle.dump([tensor.key for tensor in tensors.values()], body, 2)
    for tensor in tensors.values():
        body.write(struct.pack("<q", tensor.values.numel() + 2) + bytes(8) + tensor.values.numpy().tobytes())
    content = body.getvalue().replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage")
    (tmp_path / "x.pth").write_bytes(content)
    found = load_state_dict(tmp_path / "x.pth")
    assert {name for name in found if found[name].dtype == torch.int64} == state.keys() - tensors.keys()
    assert same(found, {name: values if name in tensors else 0 * values for name, values in state.items()})
    (tmp_path / "x.pth").write_bytes(content.replace(b"little_endianq\x01\x88", b"little_endianq\x01\x89"))
    if b"little_endianq\x01\x88" in content:
        with pytest.raises(InputError, match=r"x\.pth.*bytes"):
            load_state_dict(tmp_path / "x.pth")


class TestSaving:
    def test_torch_reads_it(self, state: State, checkpoint: Path) -> None:
        assert same(torch.load(str(checkpoint)), state)

    def test_it_comes_back(self, state: State, checkpoint: Path) -> None:
        assert same(load_state_dict(checkpoint), state)

    def test_equal_states_give_equal_bytes(self, state: State, checkpoint: Path, tmp_path: Path) -> None:
        save_state_dict({name: values.clone() for name, values in state.items()}, tmp_path / "x.pth")
        assert (tmp_path / "x.pth").read_bytes() == checkpoint.read_bytes()


class TestPublishedName:
    def test_the_right_digest_is_accepted(self, checkpoint: Path, tmp_path: Path) -> None:
        content = checkpoint.read_bytes()
        path = tmp_path / f"st_gcn.kinetics-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        path.write_bytes(content)
        assert len(load_state_dict(path)) == 172

    def test_a_wrong_one_is_told(self, checkpoint: Path, tmp_path: Path) -> None:
        content = checkpoint.read_bytes()
        (tmp_path / "st_gcn.kinetics-6fa43f73.pth").write_bytes(content)
        head = hashlib.sha256(content).hexdigest()[:8]
        with pytest.raises(InputError, match=f"6fa43f73.*{head}"):
            load_state_dict(tmp_path / "st_gcn.kinetics-6fa43f73.pth")


def without(state: State, *names: str) -> State:
    return {name: values for name, values in state.items() if name not in names}


def with_nan(state: State) -> State:
    weight = state["fcn.weight"].clone()
    weight[399, 255] = float("nan")
    return {**state, "fcn.weight": weight}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: without(s, "A", "fcn.bias"), "misses A, fcn.bias.*st_gcn.kinetics"),
        (lambda s: {**s, "extra": s["A"]}, "surplus extra"),
        (lambda s: {**without(s, "A"), "extra": s["A"]}, "misses A and .*surplus extra"),
        (lambda s: {"weight": s["A"]}, "misses A, data_bn.bias, .* 137 more .*surplus weight"),
        (lambda s: {**s, "A": s["A"][:2].clone()}, r"A of .* has shape \(2, 18, 18\) and .* is \(3, 18, 18\)"),
        (lambda s: {**s, "fcn.bias": s["A"].expand(10**6, 3, 18, 18)}, r"fcn.bias of .* has shape \(1000000, 3"),
        (with_nan, "fcn.weight of .* holds NaN or infinity"),
        (lambda s: {**s, "A": s["A"].double() * 1e300}, "A of .* holds NaN or infinity"),
        (lambda s: {**s, "A": 1}, "entry A is no tensor"),
        (lambda s: [1, 2], "holds no state dict"),
        (lambda s: {1: s["A"]}, "holds no state dict"),
        (lambda s: {**s, "A": s["A"].int()}, "A holds int32 numbers"),
        (
            lambda s: {**s, "data_bn.num_batches_tracked": torch.tensor(1.0)},
            "num_batches_tracked holds float32 numbers",
        ),
        (lambda s: {**s, "module.A": s["A"]}, "it has A twice"),
        (lambda s: {"model": s["A"], "net": {"model": {"epoch": 1}}}, "entry net is no tensor"),
        (lambda s: {"epoch": 3, "model": {}, "net": [s]}, "misses A"),
        (lambda s: {**s, "A": os.system}, r"(posix|os)\.system"),
    ],
)
@pytest.mark.parametrize("as_zip", FORMATS)
def test_another_state_dict_is_refused(
    state: State, tmp_path: Path, change: Callable[[State], Any], fault: str, as_zip: bool
) -> None:
    torch_save(change(state), tmp_path / "x.pth", as_zip)
    with pytest.raises(InputError, match=f"x.pth.*{fault}|{fault}"):
        load_state_dict(tmp_path / "x.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.pth"):
        load_state_dict(tmp_path / "missing.pth")


class TestDamage:
    @pytest.mark.parametrize("length", [0, 1, 15, 400, 20000, -4, -1])
    @pytest.mark.parametrize("as_zip", FORMATS)
    def test_a_truncated_file_is_refused(self, state: State, tmp_path: Path, length: int, as_zip: bool) -> None:
        path = torch_save(state, tmp_path / "x.pth", as_zip)
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(InputError, match=r"x\.pth"):
            load_state_dict(path)

    @pytest.mark.parametrize("as_zip", FORMATS)
    def test_damaged_bytes_end_in_a_sentence_or_a_state_dict(self, state: State, tmp_path: Path, as_zip: bool) -> None:
        content = torch_save(state, tmp_path / "x.pth", as_zip).read_bytes()
        source = random.Random(0)
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(3):
                damaged[source.randrange(16000)] = source.randrange(256)  # the pickle
            (tmp_path / "y.pth").write_bytes(damaged)
            with suppress(InputError):
                assert len(load_state_dict(tmp_path / "y.pth")) == 172

    def test_a_count_beyond_the_file_is_refused(self, state: State, tmp_path: Path) -> None:
        path = tmp_path / "x.pth"
        save_state_dict(state, path)
        content = path.read_bytes()
        claimed = b"M" + struct.pack("<H", state["A"].numel()) + b"N"
        assert claimed in content
        path.write_bytes(content.replace(claimed, b"J" + struct.pack("<i", 2**31 - 1) + b"N", 1))
        with pytest.raises(InputError, match=r"x\.pth"):
            load_state_dict(path)

    def test_an_offset_beyond_the_file_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(str(tmp_path / "x.pth"), "w") as archive:
            archive.writestr("x/data.pkl", b"")
        content = (tmp_path / "x.pth").read_bytes()
        (tmp_path / "x.pth").write_bytes(content[:-6] + b"\xfe\xff\xff\xff" + content[-2:])  # of the directory
        with pytest.raises(InputError, match=r"x\.pth.*zip"):
            load_state_dict(tmp_path / "x.pth")

    def test_a_compressed_zip_is_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(str(tmp_path / "x.pth"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", bytes(10**6))
        with pytest.raises(InputError, match=r"x\.pth.*zip"):
            load_state_dict(tmp_path / "x.pth")

    @pytest.mark.parametrize(
        "members", [{}, {"x/other": b""}, {"x/data.pkl": b""}, {"x/data.pkl": pickle.dumps({"A": 1}, 2)}]
    )
    def test_a_zip_of_something_else_is_refused(self, tmp_path: Path, members: Dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        (tmp_path / "x.pth").write_bytes(buffer.getvalue())
        with pytest.raises(InputError, match=r"x\.pth"):
            load_state_dict(tmp_path / "x.pth")
