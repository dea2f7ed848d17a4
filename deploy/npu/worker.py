"""An NPU host, connected; one of its devices as a place where work is done; the files and rows that hosts keep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import numpy as np

from deploy.containers.native import Runtime
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.job import Job
from deploy.hosts.local import LocalHost
from deploy.inventory import Npu
from deploy.npu.ais_bench import Era
from deploy.npu.device import Facts, Idle, Smi, read_era
from deploy.pipeline.build import Build
from deploy.pipeline.index import Array, Index, Shard
from deploy.workqueue import Turn
from stgcn.files import atomic_write, sha256_file

Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


@dataclass(frozen=True)
class NpuHost:
    """An NPU host of the inventory, connected."""

    section: Npu
    host: Host
    runtime: Runtime
    smi: Smi
    facts: Facts

    def __str__(self) -> str:
        return self.section.name

    @property
    def devices(self) -> list[Worker]:
        """Those that the inventory lists, in its order."""
        return [Worker(self, chip.device) for chip in self.facts.chips]

    def has(self, program: str) -> bool:
        """Whether a program is there once the environment is sourced."""
        return self.runtime.run(["bash", "-c", 'type -P "$1" > /dev/null', "bash", program]).status == 0

    @cached_property
    def era(self) -> Era:
        """Of ais_bench. Raises KitError where there is none that runs."""
        return read_era(self.section, self.runtime, self.facts)


def devices_of(npus: Sequence[NpuHost]) -> list[Worker]:
    """Every device that the inventory lists, in its order."""
    return [device for npu in npus for device in npu.devices]


@dataclass(frozen=True)
class CachedFile:
    """A file that hosts keep a copy of, named by content: a stale one is never taken for it."""

    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> CachedFile:
        return cls(path.name, sha256_file(path))

    def on(self, host: Host) -> PurePosixPath:
        return host.kit / "files" / self.sha256[:16] / self.name


@dataclass(frozen=True)
class Rows:
    """Shards of one input's rows, which hosts keep under a name by content."""

    name: str
    shards: tuple[Shard, ...]
    row_bytes: int

    def folder(self, host: Host) -> PurePosixPath:
        return host.kit / "clips" / self.name

    def path(self, host: Host, row: int) -> PurePosixPath:
        return transfer.clip_path(self.shards, self.folder(host), row)


def rows_of(index: Index, sha256: str) -> list[Rows]:
    """The rows of an index's inputs, as hosts keep them; `sha256` is of the index's file."""
    name = sha256[:16]
    names = [name if i == 0 else f"{name}-{array.name}" for i, array in enumerate(index.inputs)]
    return [Rows(name, array.shards, array.row_bytes) for name, array in zip(names, index.inputs, strict=True)]


@dataclass(frozen=True)
class Source:
    """The rows of one input, and the .npy that they are read from: a file of a host."""

    rows: Rows
    array: Array
    host: Host
    path: PurePosixPath

    def push(self, host: Host) -> None:
        """Have the rows on `host`."""
        transfer.push_rows(self.host, self.path, self.array, host, self.rows.folder(host))

    def pack(self, shard: Shard) -> bytes:
        """One shard in the form that a host's `unpack` takes."""
        return transfer.pack_shard(self.host, self.path, self.array, shard)


def sources_here(arrays: Mapping[str, np.ndarray], folder: Path) -> list[Source]:
    """Inputs' rows that are in memory, by the inputs' names and each (rows, ...), as .npy files in `folder`."""
    here, found = LocalHost("control", folder), []
    for name, values in arrays.items():
        path, contiguous = folder / f"input-{name}.npy", np.ascontiguousarray(values)
        with atomic_write(path) as stream:
            np.save(stream, contiguous)
        shard = Shard(0, len(values), hashlib.sha256(contiguous.data).hexdigest())
        array = Array(name, path.name, values.dtype.name, values.shape[1:], (shard,))
        rows = Rows(shard.sha256[:16], array.shards, array.row_bytes)
        found.append(Source(rows, array, here, PurePosixPath(path)))
    return found


class Work(Protocol[Result_co]):
    """A function of a device's tools, its inputs bound: as good here as sent to another machine."""

    @property
    def job(self) -> str:
        """Its name among the jobs of a host; see `Host.run`."""

    @property
    def files(self) -> Sequence[CachedFile]:
        """What a host must have for it: the model, and whatever else it reads."""

    @property
    def inputs(self) -> Sequence[Rows]:
        """What a host must have for it, of each input."""

    def __call__(self, worker: Worker, folder: Path, /) -> Result_co:
        """Do it on `worker`. Logs and files that it makes go to `folder`, on the machine where this runs.

        Raises:
            KitError: the tools' own reason.
        """


class Place(Protocol):
    """Where work can be done."""

    @property
    def npu(self) -> NpuHost:
        """The host that it is, or one like all those that it may be."""

    def send(self, file: Path) -> None:
        """Have a copy of `file` there."""

    def do(self, work: Work[Result], folder: Path) -> Result:
        """Do `work` there, its files into `folder` of this machine. Raises what the work raises."""


@dataclass(frozen=True)
class Worker:
    """A host, or one logical device of it."""

    npu: NpuHost
    device: int | None = None
    turn: Turn = field(default_factory=Turn, compare=False)  # of its tool

    def __str__(self) -> str:
        return str(self.npu) if self.device is None else f"{self.npu}:{self.device}"

    @property
    def runtime(self) -> Runtime:
        return self.npu.runtime if self.device is None else self.npu.runtime.on_device(self.device)[0]

    @property
    def number(self) -> int:
        """What the tools know the device by."""
        assert self.device is not None
        return self.npu.runtime.on_device(self.device)[1]

    def send(self, file: Path) -> None:
        transfer.put(self.npu.host, file, CachedFile.of(file).on(self.npu.host))

    def do(self, work: Work[Result], folder: Path) -> Result:
        return work(self, folder)


@dataclass(frozen=True, kw_only=True)
class RunAlone:
    """An OM on one device that should be idle, its input made up by the tool: what measuring and profiling share."""

    job: str
    om: CachedFile
    build: Build
    timeout_s: float
    fresh: bool
    force: bool  # a busy device too
    idle: Idle
    inputs: Sequence[Rows] = ()

    @property
    def files(self) -> Sequence[CachedFile]:
        return [self.om]

    def output(self, worker: Worker) -> PurePosixPath:
        """The folder there that the tool is told to write."""
        return Job(worker.npu.host, self.job).folder / "output"
