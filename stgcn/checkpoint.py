"""Checkpoints: the state dict of a network in a file of either of torch's formats, read without running any of it."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch

from stgcn import npy, numpy_pickle, plain_pickle
from stgcn.cards import KINETICS, Card
from stgcn.errors import InputError
from stgcn.files import PathLike, atomic_write, sha256_file
from stgcn.networks import network

# torch/serialization.py: a legacy file is five pickles (magic number, protocol, system, object, storages' keys), then
# in the order of the keys each storage's element count (int64) and bytes. A zip holds data.pkl and data/<key>.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
ZIP_MAGIC = b"PK\x03\x04"
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "V2",  # numpy has none: the upper half of a float32
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
}
# Where training tools keep the state dict, and what they leave before its keys: torch's own wrappers for many GPUs
# `module.`, Lightning and others `model.`
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = re.compile(r"^(?:module\.|model\.)+")
COUNTER = "num_batches_tracked"  # of a batch norm; torch before 0.4.1 has none, and no inference reads it

# The publishing tool ends a file's name in the head of its sha256: st_gcn.kinetics-6fa43f73.pth
PUBLISHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")
BIG_ENDIAN = "a machine of the other order of bytes wrote it"
LISTED_KEYS = 12  # more would bury the sentence


class _Storage(NamedTuple):
    """One run of numbers that tensors are views of."""

    key: str
    dtype: np.dtype
    numel: int
    first: int = 0  # torch before 0.4 has storages that are part of another: where this one begins


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


class _DefaultState(_State):
    """Stands in for defaultdict, whose argument makes values that nobody asks for."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


class _Parameter(plain_pickle.Skipped):
    """Stands in for the Parameter of torch before 0.4, which is pickled as an object around its tensor."""

    def __init__(self, view: Any, *_: Any) -> None:
        self.view = view


class _History(plain_pickle.Skipped):
    """Stands in for mmengine's HistoryBuffer, whose methods are among what it is made of."""


def _rebuild_view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or not all(map(npy.is_size, numbers)):
        raise ValueError
    return _View(storage, storage.first + offset, tuple(shape), tuple(strides))


def _rebuild_parameter(view: Any, *_: Any) -> Any:
    return view


def _rebuild_from_type(rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A subclass of Tensor, or a Tensor with attributes: the tensor."""
    if rebuild not in (_rebuild_view, _rebuild_parameter):
        raise ValueError
    return rebuild(*arguments)


def _reconstruct(kind: Any, *_: Any) -> Any:
    """How protocols 0 and 1 write an object of a class."""
    if kind is not plain_pickle.Skipped:
        raise ValueError
    return kind()


def _method(owner: Any, name: Any) -> Any:
    """getattr, by which protocols below 4 write a method."""
    if owner is not _History or name not in HISTORY_METHODS:
        raise plain_pickle.UnexpectedNameError("builtins.getattr")
    return plain_pickle.Skipped


# Harmless things that training tools save beside the weights: passed over, and never constructed
HARMLESS = {
    "addict.addict": "Dict",
    "argparse": "Namespace",
    "collections": "Counter deque ChainMap UserDict UserList UserString",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "easydict": "EasyDict",
    "fractions": "Fraction",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.fabric.utilities.data": "AttributeDict",
    "mmcv.utils.config": "ConfigDict",
    "mmengine.config.config": "ConfigDict",
    "numpy": "bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64",
    "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
    "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "torch": "Size device bfloat16 bool complex64 complex128 double float float16 float32 float64 half int int8 int16 "
    "int32 int64 long short uint8 Tensor",
    "torch._utils": "_rebuild_tensor_v3",  # of dtypes that no weights have
    "torch.storage": "UntypedStorage TypedStorage",
    "torch.version": "TorchVersion",
    "torch.torch_version": "TorchVersion",
    "types": "SimpleNamespace",
    "uuid": "SafeUUID UUID",
    **dict.fromkeys(("pathlib", "pathlib._local"), "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"),
    **dict.fromkeys(
        ("builtins", "__builtin__"),
        "bool complex dict float frozenset int list long object range set slice str tuple unicode xrange",
    ),
}
HISTORY = "mmengine.logging.history_buffer"
HISTORY_METHODS = ("min", "max", "mean", "current")

ALLOWED: plain_pickle.Allowed = {
    **{(module, name): plain_pickle.Skipped for module, names in HARMLESS.items() for name in names.split()},
    **dict.fromkeys(numpy_pickle.ALLOWED, plain_pickle.Skipped),
    **{name: numpy_pickle.ALLOWED[name] for name in numpy_pickle.OF_BYTES},
    ("collections", "OrderedDict"): _State,
    ("collections", "defaultdict"): _DefaultState,
    ("torch._utils", "_rebuild_tensor"): _rebuild_view,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_view,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    **{(module, name): np.dtype(dtype) for module in ("torch", "torch.cuda") for name, dtype in DTYPES.items()},
    **{(module, "getattr"): _method for module in ("builtins", "__builtin__")},
    **{(module, "_reconstructor"): _reconstruct for module in ("copyreg", "copy_reg")},
    (HISTORY, "HistoryBuffer"): _History,
    **{(HISTORY, f"HistoryBuffer.{name}"): plain_pickle.Skipped for name in HISTORY_METHODS},
}


def load_state_dict(path: PathLike, card: Card = KINETICS) -> Dict[str, torch.Tensor]:
    """The tensors of a checkpoint, by the names of the state dict of the model's network.

    Training tools save the state dict under a key of WRAPPINGS, its names after PREFIXES, and harmless objects beside
    it, which are passed over. bfloat16 comes back as float32; the counters that torch before 0.4.1 has not are 0.
    Raises InputError for a file that is damaged, doesn't match the sha256 head in its own name, names what may run
    code, misses keys or has surplus ones, has a tensor of another shape or kind, or holds NaN or infinity.
    """
    path = Path(path)
    _check_published_digest(path)
    try:
        arrays = _read_arrays(path, card)
    except plain_pickle.UnexpectedNameError as error:
        raise InputError(
            f"{path} names {error}, which no state dict needs: it may run code, don't trust it; of a model of your own "
            "save the state dict alone"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} isn't a checkpoint ({error}): copy or save it again") from error
    for name, array in arrays.items():
        with np.errstate(over="ignore"):  # the model's own numbers are float32
            finite = np.isfinite(array.astype(np.float32)).all()
        if not finite:
            raise InputError(f"{name} of {path} holds NaN or infinity: save the checkpoint again")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_model(path: PathLike, card: Card = KINETICS) -> Any:
    """The model's network in evaluation mode with a checkpoint's weights; raises InputError as load_state_dict does."""
    model = network(card)
    model.load_state_dict(load_state_dict(path, card))
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


def _read_arrays(path: Path, card: Card) -> Dict[str, np.ndarray]:
    """Copies of the tensors that the network has; ValueError says what is damaged."""
    with plain_pickle.mapped(path) as content:
        if content[: len(ZIP_MAGIC)] == ZIP_MAGIC:
            views, storages = _read_zip(path, len(content))
        else:
            views, storages = _read_legacy(content)
    expected = network(card).state_dict()
    _check_entries(path, views, expected, card)
    arrays = {}
    for name, tensor in expected.items():
        if name not in views:
            arrays[name] = np.zeros(tuple(tensor.shape), np.int64)
            continue
        arrays[name] = _copy(views[name], storages[views[name].storage.key])
        if (arrays[name].dtype.kind == "f") != tensor.is_floating_point():
            raise ValueError(f"{name} holds {arrays[name].dtype} numbers, and the network's are {tensor.dtype}")
    return arrays


def _read_legacy(content: mmap.mmap) -> Tuple[Dict[str, _View], Dict[str, np.ndarray]]:
    if plain_pickle.load(content, {}) != LEGACY_MAGIC or plain_pickle.load(content, {}) != LEGACY_PROTOCOL:
        raise ValueError("it isn't a file of torch's")
    system = plain_pickle.load(content, {})
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError(BIG_ENDIAN)
    views, storages = _load_views(content, len(content))
    needed = {view.storage.key for view in views.values()}
    keys = plain_pickle.load(content, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("its list of storages is damaged")
    arrays = {}
    for key in keys:
        content.read(8)  # the count, known already
        if key in needed:
            arrays[key] = _numbers(content.read(_bytes(storages[key])), storages[key])
        else:
            content.seek(_bytes(storages[key]), os.SEEK_CUR)
    return views, arrays


def _read_zip(path: Path, limit: int) -> Tuple[Dict[str, _View], Dict[str, np.ndarray]]:
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is a compressed zip")
            root = archive.namelist()[0].split("/")[0]
            if root + "/byteorder" in archive.namelist() and archive.read(root + "/byteorder") != b"little":
                raise ValueError(BIG_ENDIAN)
            views, _ = _load_views(io.BytesIO(archive.read(root + "/data.pkl")), limit)
            needed = {view.storage.key: view.storage for view in views.values()}
            arrays = {key: _numbers(archive.read(f"{root}/data/{key}"), storage) for key, storage in needed.items()}
    except (zipfile.BadZipFile, LookupError, EOFError, OSError, RuntimeError) as error:  # an offset that none can seek
        raise ValueError("its zip is damaged") from error
    return views, arrays


def _load_views(file: Any, limit: int) -> Tuple[Dict[str, _View], Dict[str, _Storage]]:
    """The state dict pickled in `file`, and the storages that it speaks of: at most `limit` bytes together."""
    storages: Dict[str, _Storage] = {}

    def storage(identity: Any) -> _Storage:
        kind, dtype, key, _, count, *part = identity
        if kind != "storage" or not isinstance(key, str) or not npy.is_size(count):
            raise ValueError
        if dtype is plain_pickle.Skipped:  # without a type of its own: its count is of bytes
            dtype = np.dtype("u1")
        if not isinstance(dtype, np.dtype) or len(part) > 1:
            raise ValueError
        whole = storages.setdefault(key, _Storage(key, dtype, count))
        if part in ([], [None]):
            return whole
        _, first, length = part[0]  # its own key, and where it lies in the whole
        if not npy.is_size(first) or not npy.is_size(length):
            raise ValueError
        return whole._replace(first=first)

    content = plain_pickle.load(file, ALLOWED, storage)
    if sum(_bytes(one) for one in storages.values()) > limit:
        raise ValueError("it claims more numbers than it has bytes")
    return _views(_unwrapped(content)), storages


def _views(state: Any) -> Dict[str, _View]:
    """The tensors of a state dict by their names in the network."""
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("it holds no state dict")
    views: Dict[str, _View] = {}
    for key, value in state.items():
        name = PREFIXES.sub("", key)
        view = getattr(value, "view", None) if isinstance(value, _Parameter) else value
        if not isinstance(view, _View):
            raise ValueError(f"its entry {key} is no tensor")
        if name in views:
            raise ValueError(f"it has {name} twice")
        views[name] = view
    return views


def _unwrapped(content: Any) -> Any:
    """The state dict: of what is saved with it, and of that again, the first of WRAPPINGS that holds tensors."""
    for _ in WRAPPINGS:
        inner = [content.get(name) for name in WRAPPINGS] if isinstance(content, dict) else []
        dicts = [each for each in inner if isinstance(each, dict)]
        if not any(map(_has_tensors, dicts)) and (_has_tensors(content) or not dicts):
            break
        content = next(filter(_has_tensors, dicts), dicts[0])
    return content


def _has_tensors(content: Any) -> bool:
    return isinstance(content, dict) and any(isinstance(value, (_View, _Parameter)) for value in content.values())


def _check_entries(path: Path, views: Mapping[str, _View], expected: Mapping[str, torch.Tensor], card: Card) -> None:
    faults = []
    missing = [name for name in expected.keys() - views.keys() if not name.endswith(COUNTER)]
    for fault, names in (("misses", missing), ("has surplus", views.keys() - expected.keys())):
        if names:
            faults.append(f"{fault} {_listed(names)}")
    if faults:
        raise InputError(f"{path} {' and '.join(faults)}: give a checkpoint of {card.name}, or set --model")
    for name, view in views.items():
        shape = tuple(expected[name].shape)
        if view.shape != shape:
            raise InputError(
                f"{name} of {path} has shape {view.shape} and that of {card.name} is {shape}: "
                "give a checkpoint of that model, or set --model"
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
    array = np.array(np.lib.stride_tricks.as_strided(values[view.offset :], view.shape, strides))
    if array.dtype.kind != "V":
        return array
    return (array.view("<u2").astype("<u4") << 16).view("<f4")


def _numbers(raw: bytes, storage: _Storage) -> np.ndarray:
    if len(raw) != _bytes(storage):
        raise ValueError("it is cut short")
    return np.frombuffer(raw, storage.dtype)


def _bytes(storage: _Storage) -> int:
    return storage.numel * storage.dtype.itemsize
