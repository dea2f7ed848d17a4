"""Checkpoints: the state dict of ST_GCN_18 in a file of either of torch's formats, read without running any of it."""

from __future__ import annotations

import io
import mmap
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch

from stgcn import npy, plain_pickle
from stgcn.errors import InputError
from stgcn.files import PathLike, atomic_write, sha256_file
from stgcn.model import ST_GCN_18

# torch/serialization.py: a legacy file is five pickles (magic number, protocol, system, object, storages' keys), then
# in the order of the keys each storage's element count (int64) and bytes. A zip holds data.pkl and data/<key>.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
ZIP_MAGIC = b"PK\x03\x04"
DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}

# The publishing tool ends a file's name in the head of its sha256: st_gcn.kinetics-6fa43f73.pth
PUBLISHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")
LISTED_KEYS = 12  # more would bury the sentence


class _Storage(NamedTuple):
    """One run of numbers that tensors are views of."""

    key: str
    dtype: np.dtype
    numel: int


class _View(NamedTuple):
    """A tensor whose numbers aren't read yet; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: Tuple[int, ...]
    strides: Tuple[int, ...]


class _State(OrderedDict):  # type: ignore[type-arg]
    """Stands in for OrderedDict; the metadata that torch hangs onto one is of no use here."""

    def __init__(self, pairs: Iterable[Tuple[Any, Any]] = ()) -> None:
        super().__init__()
        for key, value in pairs:
            plain_pickle.check_key(key)
            self[key] = value

    def __setstate__(self, state: object) -> None:
        pass


def _rebuild_view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or not all(map(npy.is_size, numbers)):
        raise ValueError
    return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(view: Any, *_: Any) -> Any:
    return view


ALLOWED: plain_pickle.Allowed = {
    ("collections", "OrderedDict"): _State,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_view,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): np.dtype(dtype) for name, dtype in DTYPES.items()},
}


def load_state_dict(path: PathLike) -> Dict[str, torch.Tensor]:
    """The 172 tensors of a checkpoint, by the names of ST_GCN_18's state dict.

    Training tools save the state dict under the key `state_dict`, or its names with `module.` before them: both are
    understood. Raises InputError for a file that is damaged, doesn't match the sha256 head in its own name, names what
    no state dict needs, misses keys or has surplus ones, has a tensor of another shape, or holds NaN or infinity.
    """
    path = Path(path)
    _check_published_digest(path)
    try:
        arrays = _read_arrays(path)
    except plain_pickle.UnexpectedNameError as error:
        raise InputError(f"{path} names {error}, which no state dict needs: it may run code, don't trust it") from error
    except ValueError as error:
        raise InputError(f"{path} isn't a checkpoint ({error}): copy or save it again") from error
    for name, array in arrays.items():
        with np.errstate(over="ignore"):  # the model's own numbers are float32
            finite = np.isfinite(array.astype(np.float32)).all()
        if not finite:
            raise InputError(f"{name} of {path} holds NaN or infinity: save the checkpoint again")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_model(path: PathLike) -> ST_GCN_18:
    """ST_GCN_18 in evaluation mode with a checkpoint's weights; raises InputError as load_state_dict does."""
    model = ST_GCN_18()
    model.load_state_dict(load_state_dict(path))
    return model.eval()


def save_state_dict(state: Mapping[str, torch.Tensor], path: PathLike) -> None:
    """Write a state dict in the legacy format, which torch 1.2 and every later torch reads; equal states, equal bytes.

    `torch.save` names the storages of that format by their addresses, so its bytes differ from run to run.
    """
    arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in state.values()]
    keys = [str(index) for index in range(len(arrays))]
    tensors = OrderedDict((name, _SavedTensor(key, array)) for name, key, array in zip(state, keys, arrays))
    with atomic_write(path) as file:
        for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {"protocol_version": LEGACY_PROTOCOL, "little_endian": True}):
            pickle.dump(part, file, protocol=2)
        _StatePickler(file, protocol=2).dump(tensors)
        pickle.dump(keys, file, protocol=2)
        for array in arrays:
            file.write(struct.pack("<q", array.size) + array.tobytes())


class _SavedStorage(NamedTuple):
    key: str
    array: np.ndarray


class _SavedTensor:
    def __init__(self, key: str, array: np.ndarray) -> None:
        self.storage = _SavedStorage(key, array)

    def __reduce__(self) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        array = self.storage.array
        strides = tuple(stride // array.itemsize for stride in array.strides)
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, array.shape, strides, False, OrderedDict())


class _StatePickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Optional[Tuple[Any, ...]]:
        if not isinstance(obj, _SavedStorage):
            return None
        storage_type = {np.float32: torch.FloatStorage, np.int64: torch.LongStorage}[obj.array.dtype.type]
        return ("storage", storage_type, obj.key, "cpu", obj.array.size, None)


def _check_published_digest(path: Path) -> None:
    named = PUBLISHED_NAME.search(path.name)
    if named is None:
        return
    digest = sha256_file(path)
    if not digest.startswith(named.group(1)):
        raise InputError(
            f"{path} should have a sha256 that begins {named.group(1)} and it begins {digest[:8]}: fetch it again, or "
            "rename it if that isn't a digest"
        )


def _read_arrays(path: Path) -> Dict[str, np.ndarray]:
    """Copies of the tensors that ST_GCN_18 has; ValueError says what is damaged."""
    with plain_pickle.mapped(path) as content:
        if content[: len(ZIP_MAGIC)] == ZIP_MAGIC:
            views, storages = _read_zip(path, len(content))
        else:
            views, storages = _read_legacy(content)
    _check_entries(path, {name: view.shape for name, view in views.items()})
    return {name: _copy(view, storages[view.storage.key]) for name, view in views.items()}


def _read_legacy(content: mmap.mmap) -> Tuple[Dict[str, _View], Dict[str, np.ndarray]]:
    if plain_pickle.load(content, {}) != LEGACY_MAGIC or plain_pickle.load(content, {}) != LEGACY_PROTOCOL:
        raise ValueError("it isn't a file of torch's")
    plain_pickle.load(content, {})
    views, storages = _load_views(content, len(content))
    keys = plain_pickle.load(content, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("its list of storages is damaged")
    arrays = {}
    for key in keys:
        content.read(8)  # the count, known already
        arrays[key] = _numbers(content.read(_bytes(storages[key])), storages[key])
    return views, arrays


def _read_zip(path: Path, limit: int) -> Tuple[Dict[str, _View], Dict[str, np.ndarray]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is a compressed zip")
            root = archive.namelist()[0].split("/")[0]
            views, storages = _load_views(io.BytesIO(archive.read(root + "/data.pkl")), limit)
            arrays = {key: _numbers(archive.read(f"{root}/data/{key}"), storage) for key, storage in storages.items()}
    except (zipfile.BadZipFile, LookupError, EOFError, OSError, RuntimeError) as error:  # an offset that none can seek
        raise ValueError("its zip is damaged") from error
    return views, arrays


def _load_views(file: Any, limit: int) -> Tuple[Dict[str, _View], Dict[str, _Storage]]:
    """The state dict pickled in `file`, and the storages that it speaks of: at most `limit` bytes together."""
    storages: Dict[str, _Storage] = {}

    def storage(identity: Any) -> _Storage:
        kind, dtype, key, _, count, *view = identity
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str) or not npy.is_size(count):
            raise ValueError
        if view not in ([], [None]):
            raise ValueError
        return storages.setdefault(key, _Storage(key, dtype, count))

    content = plain_pickle.load(file, ALLOWED, storage)
    if sum(_bytes(one) for one in storages.values()) > limit:
        raise ValueError("it claims more numbers than it has bytes")
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError("it holds no state dict")
    views = {name[len("module.") :] if name.startswith("module.") else name: view for name, view in content.items()}
    for name, view in views.items():
        if not isinstance(view, _View):
            raise ValueError(f"its entry {name} is no tensor")
    return views, storages


def _check_entries(path: Path, shapes: Mapping[str, Tuple[int, ...]]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in ST_GCN_18().state_dict().items()}
    faults = []
    for fault, names in (("misses", expected.keys() - shapes.keys()), ("has surplus", shapes.keys() - expected.keys())):
        if names:
            faults.append(f"{fault} {_listed(names)}")
    if faults:
        raise InputError(f"{path} {' and '.join(faults)}: give a checkpoint of ST_GCN_18 in its Kinetics configuration")
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise InputError(
                f"{name} of {path} has shape {shape} and ST_GCN_18's is {expected[name]}: "
                "give a checkpoint of its Kinetics configuration"
            )


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - LISTED_KEYS
    return ", ".join(ordered[:LISTED_KEYS]) + (f" and {more} more keys" if more > 0 else "")


def _copy(view: _View, values: np.ndarray) -> np.ndarray:
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides))
    if last >= len(values):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * values.itemsize for stride in view.strides]
    return np.array(np.lib.stride_tricks.as_strided(values[view.offset :], view.shape, strides))


def _numbers(raw: bytes, storage: _Storage) -> np.ndarray:
    if len(raw) != _bytes(storage):
        raise ValueError("it is cut short")
    return np.frombuffer(raw, storage.dtype)


def _bytes(storage: _Storage) -> int:
    return storage.numel * storage.dtype.itemsize
