"""Stand-in for `aclruntime`, the compiled module under ais_bench: its Python API over ONNX Runtime.

The real ais_bench front ends of 2022-12 to 2024 run over it unchanged. Class and attribute names, spelling mistakes
included, are the real module's; so are the lines that its C++ prints. In the 2024 era `exec_time_list` holds (start,
end) pairs, before it the differences; all times are milliseconds, rounded through float32 as the C++ does.
"""

import ctypes
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import recording
import scenario
from host import Host

LEVELS = {"DEBUG": 1, "INFO": 2, "ERROR": 4}  # of session_options.log_level
GENERAL_FAILURE = "[-1][ACL: general failure] "
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
          "tensor(int32)": np.int32, "tensor(double)": np.float64, "tensor(bool)": np.bool_,
          "tensor(uint8)": np.uint8}  # fmt: skip

_START = time.perf_counter()
_host = Host(scenario.load())
_log_level = LEVELS["INFO"]
_contexts: dict[int, ExitStack] = {}  # devices that this process has opened
_sessions: list["InferenceSession"] = []


def _log(level: str, text: str) -> None:
    if LEVELS[level] >= _log_level:
        print(f"[{level}] {text}", flush=True)


def _milliseconds() -> float:
    return (time.perf_counter() - _START) * 1000


def _copied(start: float, way: int, clips: int) -> float:
    """The ms of a copy (way 0 to the device, 1 back) that began at `start`: what it took, or what is played a clip."""
    planted = _host.scenario.copies_ms
    return _milliseconds() - start if planted is None else planted[way] * clips


class MemorySummary:
    """Copies between host and device since the last reset, ms each; one for the process."""

    H2D_time_list: list[float] = []  # noqa: RUF012
    D2H_time_list: list[float] = []  # noqa: RUF012

    @staticmethod
    def reset() -> None:
        MemorySummary.H2D_time_list.clear()
        MemorySummary.D2H_time_list.clear()


class BaseTensor:
    """Borrowed host memory: address and bytes."""

    def __init__(self, buf: int, size: int) -> None:
        self.buf, self.size = buf, size

    def bytes(self) -> NDArray[np.uint8]:
        return np.frombuffer(ctypes.string_at(self.buf, self.size), np.uint8)


class Tensor:
    """An array on the host (`device` -1) or on a device."""

    def __init__(self, array: NDArray[Any], device: int = -1) -> None:
        self._array = np.array(array)
        self.device = device

    @property
    def shape(self) -> list[int]:
        return list(self._array.shape)

    @property
    def dtype(self) -> str:
        return str(self._array.dtype)

    def to_device(self, device: int) -> None:
        start = _milliseconds()
        self._array, self.device = self._array.copy(), device
        MemorySummary.H2D_time_list.append(_copied(start, 0, len(self._array)))

    def to_host(self) -> None:
        start = _milliseconds()
        self._array, self.device = self._array.copy(), -1
        MemorySummary.D2H_time_list.append(_copied(start, 1, len(self._array)))

    def bytes(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._array).view(np.uint8).reshape(-1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self.device >= 0:
            raise RuntimeError("tensor is in npu. can't convert to numpy array")
        return self._array if dtype is None else self._array.astype(dtype)


class session_options:  # noqa: N801
    def __init__(self) -> None:
        self.loop, self.log_level, self.acl_json_path = 1, LEVELS["INFO"], ""


class infer_options:  # noqa: N801
    """Of a pipeline."""

    def __init__(self) -> None:
        self.output_dir, self.out_format, self.pure_infer_mode = "", "BIN", False
        self.auto_dym_shape = self.auto_dym_dims = False


class tensor_desc:  # noqa: N801
    """An input or output of the model; sizes in bytes, `realsize` that of the batch size in use."""

    def __init__(self, name: str, shape: Sequence[int], dtype: Any) -> None:
        self.name, self.shape, self.datatype, self.format = name, list(shape), np.dtype(dtype), 2
        self.size = self.realsize = int(np.prod(shape)) * self.datatype.itemsize

    def clips(self, size: int) -> int:
        """How many rows so many bytes hold."""
        return size // max(int(np.prod(self.shape[1:])) * int(self.datatype.itemsize), 1)


class sumary:  # noqa: N801
    def __init__(self) -> None:
        self.exec_time_list: list[Any] = []


class InferenceSession:
    """A model on a device."""

    def __init__(self, model_path: str, device_id: int, options: session_options) -> None:
        global _log_level
        _log_level = options.log_level
        self._options, self._device, self._runs, self._loaded = options, device_id, 0, False
        self._summary = sumary()
        self._open_device()
        self._load(model_path)
        _sessions.append(self)

    def _open_device(self) -> None:
        count = len(_host.chips())
        if not _contexts:
            _log("INFO", "acl init success")
        if not 0 <= self._device < len(_host.scenario.chips):
            print(
                f"deviceId({self._device}) is bigger than deviceCount({count})\nSetDevice failed. ret=1004", flush=True
            )
            raise RuntimeError("[1004][Invalid parameter] ")
        self._check_device("acl open device {} failed")
        if self._device not in _contexts:
            _contexts[self._device] = ExitStack()
            _contexts[self._device].enter_context(_host.running(self._device))
            _log("INFO", f"open device {self._device} success")

    def _check_device(self, failure: str) -> None:
        if self._device not in {chip.device for chip in _host.chips()}:
            _log("ERROR", failure.format(self._device))
            raise RuntimeError("[507033][Error code unknown] ")

    def _load(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _host.scenario.threads
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others share these cores
        self._recording = recording.begin(path, options)
        try:
            model: Any = self._recording.model if self._recording else path
            self._model = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            properties = self._model.get_modelmeta().custom_metadata_map
            soc_version = f"Ascend{_host.scenario.chips[self._device].name}"
            if properties["soc_version"] != soc_version:
                raise ValueError(f"the model is for {properties['soc_version']}, the device is {soc_version}")
        except Exception as error:  # whatever ONNX Runtime makes of a file that is no OM
            print(error, flush=True)
            _log("ERROR", f"{_load()} from file failed, model file is {path}")
            raise RuntimeError(GENERAL_FAILURE) from None
        self._loaded = True
        self._gears = [int(size) for size in properties.get("dynamic_batch_size", "").split(",") if size]
        self._inputs = self._describe(self._model.get_inputs())
        self._outputs = self._describe(self._model.get_outputs())
        _log("INFO", f"{_load()} {path} success")
        _log("INFO", "create model description success")
        if _host.scenario.shortcut_ms is not None:
            print("[WARN] simulated device: NPU_SIM_SHORTCUT is set, the model is not run", flush=True)

    def _describe(self, values: Sequence[Any]) -> list[tensor_desc]:
        shapes = [[size if isinstance(size, int) else -1 for size in value.shape] for value in values]
        descriptions = [
            tensor_desc(
                value.name, [max(self._gears, default=1) if size < 0 else size for size in shape], DTYPES[value.type]
            )
            for value, shape in zip(values, shapes, strict=True)
        ]
        for description, shape in zip(descriptions, shapes, strict=True):
            description.shape = shape
        return descriptions

    def get_inputs(self) -> list[tensor_desc]:
        return self._inputs

    def get_outputs(self) -> list[tensor_desc]:
        return self._outputs

    def options(self) -> session_options:
        return self._options

    def sumary(self) -> sumary:
        return self._summary

    def reset_sumaryinfo(self) -> None:
        self._summary.exec_time_list.clear()

    def set_staticbatch(self) -> None:
        """Nothing to set: a model's fixed batch is its own."""

    def set_dynamic_batchsize(self, size: int) -> None:
        if not self._gears:
            self._refuse("the dynamic_batch_size parameter is not specified for model conversion")
        if int(size) not in self._gears:
            self._refuse("the dymBatch parameter is not correct")
        for description in (*self._inputs, *self._outputs):
            description.realsize = description.size // max(self._gears) * int(size)
        _log("INFO", "check dynamic batch success")

    def set_dynamic_hw(self, _width: int, _height: int) -> None:
        self._refuse("the dynamic_image_size parameter is not specified for model conversion")

    def set_dynamic_dims(self, _dims: str) -> None:
        self._refuse("the dynamic_dims parameter is not correct")

    def set_dynamic_shape(self, _shape: str) -> None:
        self._refuse("check dynamic shape failed")

    def set_custom_outsize(self, _sizes: Sequence[int]) -> None:
        """Output sizes are known: only models of dynamic shape need it."""

    def get_max_dym_batchsize(self) -> int:
        return max(self._gears, default=1)

    def get_dym_aipp_input_exist(self) -> int:
        return 0

    def create_tensor_from_fileslist(self, description: tensor_desc, files: Sequence[str]) -> Tensor:
        joined = np.concatenate([np.fromfile(path, np.uint8) for path in files])
        if joined.nbytes > description.realsize:
            self._refuse(f"offset:0 filesize:{joined.nbytes} > size:{description.realsize} invalid")
        return Tensor(joined, self._device)

    def run(self, names: Sequence[str], feeds: Any) -> list[Tensor]:
        """Outputs by name, on the device; feeds are a list of Tensor or BaseTensor in the model's order, or a dict."""
        tensors = [feeds[description.name] for description in self._inputs] if isinstance(feeds, Mapping) else feeds
        if len(tensors) != len(self._inputs):
            self._refuse(f"intensors in:{len(tensors)} need:{len(self._inputs)} not match")
        arrays: dict[str, NDArray[Any]] = {}
        for index, (description, tensor) in enumerate(zip(self._inputs, tensors, strict=True)):
            start = _milliseconds()
            raw = tensor.bytes()
            if isinstance(tensor, BaseTensor):
                MemorySummary.H2D_time_list.append(_copied(start, 0, description.clips(raw.nbytes)))
            if raw.nbytes != description.realsize:
                detail = f"in size:{raw.nbytes} needsize:{description.realsize} not match"
                _log("ERROR", f"Check i:{index} name:{description.name} {detail}")
                self._refuse("Check InVector failed ret:-1")
            arrays[description.name] = raw.view(description.datatype).reshape([-1, *description.shape[1:]])
        loop = self._options.loop
        print(end="\n" if loop > 1 else "")
        for step in range(1, loop + 1):
            outputs = self._execute(arrays)
            print(end=f"\rloop inference exec: ({step}/{loop})" if loop > 1 else "", flush=True)
        print(end="\n" if loop > 1 else "")
        return [Tensor(outputs[name], self._device) for name in names]

    def run_pipeline(
        self, batches: Sequence[Sequence[str]], options: infer_options, extra: Sequence["InferenceSession"]
    ) -> None:
        """Batches of one file per input, shared out to this session and the `extra` ones, a thread each.

        An inference's times are then kept as they overlap, in this session. Planted ones are played: each inference
        waits until one of the device's lanes is free.
        """
        sessions = [self, *extra]
        count = len(sessions)
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(lambda i: sessions[i]._pipe(batches[i::count], options), range(count)))
        times = self._summary.exec_time_list
        if _host.scenario.shortcut_ms is None and _host.scenario.compute_ms is None:
            times += [pair for session in extra for pair in session._summary.exec_time_list]
            return
        took = times[0][1] - times[0][0]
        lanes, free = [_milliseconds()] * _host.scenario.lanes, [_milliseconds()] * count
        times.clear()
        for number in range(len(batches)):
            lane, thread = lanes.index(min(lanes)), number % count
            end = max(lanes[lane], free[thread]) + took
            times.append((free[thread], end))
            lanes[lane] = free[thread] = end

    def _pipe(self, batches: Sequence[Sequence[str]], options: infer_options) -> None:
        for files in batches:
            if options.pure_infer_mode:
                arrays = [np.zeros(description.realsize, np.uint8) for description in self._inputs]
            else:
                arrays = [np.load(f) if f.lower().endswith(".npy") else np.fromfile(f, np.uint8) for f in files]
            feeds = [BaseTensor(array.__array_interface__["data"][0], array.nbytes) for array in arrays]
            outputs = self.run([description.name for description in self._outputs], feeds)
            for description, output in zip(self._outputs, outputs, strict=True):
                output.to_host()
                if options.output_dir:
                    name = f"{Path(files[0]).stem}_{description.name.replace('/', '')}.bin"
                    np.array(output).tofile(Path(options.output_dir, name))

    def _execute(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self._runs += 1
        faults = {
            fault.kind
            for fault in _host.scenario.faults
            if fault.run == self._runs and fault.device in (None, self._device)
        }
        if "crash" in faults:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in faults:
            while True:
                signal.pause()
        if "lost" in faults:
            _host.lose(self._device)
            _log("ERROR", "execute model failed, modelId is 1")
            self._refuse("acl execute failed:1")
        self._check_device("execute model failed, modelId is 1")
        names = [description.name for description in self._outputs]
        clips = next(iter(arrays.values()))
        start = _milliseconds()
        if _host.scenario.shortcut_ms is None:
            results = self._model.run(names, dict(arrays))
        else:
            results = [_shortcut(clips, description) for description in self._outputs]
        planted = (ms for ms in (_host.scenario.compute_ms, _host.scenario.shortcut_ms) if ms is not None)
        end = start + ms * len(clips) if (ms := next(planted, None)) is not None else _milliseconds()
        end += (end - start) * _host.scenario.drift * (self._runs - 1)
        if "nan" in faults:
            results = [np.full_like(result, np.nan) for result in results]
        if "short" in faults:
            results = [result[..., : result.shape[-1] // 2] for result in results]
        pair = float(np.float32(start)), float(np.float32(end))
        self._summary.exec_time_list.append(pair if _host.scenario.era >= "2024" else float(np.float32(end - start)))
        return dict(zip(names, results, strict=True))

    def _refuse(self, reason: str) -> None:
        _log("ERROR", reason)
        raise RuntimeError(GENERAL_FAILURE)

    def free_resource(self) -> None:
        if self._loaded:
            self._loaded = False
            if self._recording:
                self._recording.end(self._model.end_profiling())
            _log("INFO", "unload model success, model Id is 1")

    @staticmethod
    def finalize() -> None:
        """Unload what is loaded and leave the devices; called on the class (2024) or on the session (before)."""
        for session in _sessions:
            session.free_resource()
        for device, context in _contexts.items():
            context.close()
            if _host.scenario.era < "2024":
                _log("INFO", "end to destroy context")
                _log("INFO", f"end to reset device is {device}")
            else:
                _log("INFO", f"end to reset device {device}")
        _contexts.clear()
        _sessions.clear()
        _log("INFO", "end to finalize acl")


def _load() -> str:
    return "load model" if _host.scenario.era < "2025" else "Load model"


def _shortcut(clips: NDArray[Any], description: tensor_desc) -> NDArray[Any]:
    """A cheap function of each clip in the output's shape: its values folded and summed."""
    size = int(np.prod(description.shape[1:]))
    flat = clips.reshape(len(clips), -1).astype(np.float32)
    flat = np.pad(flat, [(0, 0), (0, -flat.shape[1] % size)])
    folded: NDArray[Any] = flat.reshape(len(clips), -1, size).sum(axis=1)
    return folded.reshape(-1, *description.shape[1:]).astype(description.datatype)
