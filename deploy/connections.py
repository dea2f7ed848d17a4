"""The hosts of an inventory as one command reaches them, each connected when it is first asked for."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.containers import runtime
from deploy.containers.native import ARRAYS, Runtime
from deploy.errors import KitError
from deploy.execution.scheduler import Queue, Scheduler
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.inventory import Gpu, Npu, local_path
from deploy.npu.device import Facts, Idle, Smi
from deploy.npu.worker import NpuHost, Source, Worker, devices_of, rows_of
from deploy.options import Options
from deploy.pipeline.index import Array, Index
from deploy.pipeline.manifest import Step
from deploy.pipeline.model import BUNDLED
from deploy.pipeline.sources import by_folder, source_files
from deploy.progress import activity
from deploy.workspace import Workspace

if TYPE_CHECKING:
    from deploy.execution.fleet.cluster import Cluster


class Connections:
    """The GPU host, the NPU hosts, and what shares work out among them."""

    def __init__(self, workspace: Workspace, options: Options) -> None:
        self.workspace, self.options = workspace, options
        self.inventory = workspace.inventory
        self.idle = Idle()  # what the figures so far know of their device
        self._hosts: list[Host] = []
        self._holding = False

    def __enter__(self) -> Connections:
        """Hold, from now on, the workspace of every host that is connected; a dry run holds none."""
        self._holding = not self.options.dry
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go of every host; an interrupt also stops what runs there."""
        with ExitStack() as stack:
            if "cluster" in vars(self):
                stack.callback(self.cluster.close)
            for host in self._hosts:
                stack.callback(host.close, interrupted=kind is KeyboardInterrupt)

    def run_step(self, step: Step, *, fresh: bool = False) -> dict[str, Any]:
        """Run a step in the workspace as the options say."""
        return self.workspace.run_step(step, self.options, fresh=fresh)

    def connect(self, section: Gpu | Npu) -> Host:
        """The host that a section names. A GPU host on this machine works in the control's own workspace.

        Raises:
            KitError: it cannot be reached, or another operator holds its workspace, named.
        """
        host = self._host_of(section)
        self._hosts.append(host)
        if self._holding:
            host.hold()
            self.workspace.manifest.holds.append(host.verify_hold)
        return host

    def _host_of(self, section: Gpu | Npu) -> Host:
        if isinstance(section, Npu) and self.inventory.engine.kind == "ray":
            return self.cluster.connect(section)
        if section.connection == "ssh":
            known_hosts = local_path(self.inventory.known_hosts) if self.inventory.known_hosts else None
            inputs = self.inventory.inputs if isinstance(section, Gpu) else {}
            return SSHHost(section, known_hosts, self.inventory.link_timeout_s, inputs)
        return LocalHost(
            section.name, self.workspace.folder if isinstance(section, Gpu) else local_path(section.workspace)
        )

    @cached_property
    def gpu(self) -> Runtime:
        section, model = self.inventory.gpu, self.workspace.model
        host, files = self.connect(section), list(self.workspace.files.model_dump().values())
        if model.package == BUNDLED and section.runtime == "docker":
            return runtime.for_gpu(section, host, files)
        sources = PurePosixPath(model.path)
        if section.connection == "ssh":
            sources = host.kit / f"{model.package.name}-{model.sha256[:16]}"
            for folder, files in by_folder(source_files(model.package)).items():
                transfer.put_folder(host, files, sources / model.package.name / folder)
        return runtime.for_gpu(section, host, files, sources)

    def file(self, name: str) -> PurePosixPath:
        """The data, the labels or the checkpoint, on the GPU host."""
        return self.gpu.host.path(getattr(self.workspace.files, name))

    @property
    def array_folder(self) -> PurePosixPath:
        """Where the GPU host keeps the inputs' rows that are not the dataset's own array."""
        return self.gpu.host.kit / ARRAYS

    def array_file(self, array: Array) -> PurePosixPath:
        """The .npy of an input's rows on the GPU host.

        Raises:
            KitError: the dataset is another than that which was indexed. Rows are checked on their way, and not
                against the index again.
        """
        if array.file is not None:
            return self.array_folder / array.file
        indexed = self.workspace.manifest.steps.get("preprocess", {}).get("inputs", {}).get("data")
        data = self.file("data")
        if self.input_sha256(data) != indexed:
            raise KitError(f"{self.gpu.host.name}: {data} was changed since it was indexed; run `make gpu-stage`")
        return data

    def read_row(self, array: Array, row: int) -> np.ndarray:
        """One row of an input. Raises KitError where the GPU host does not give it up."""
        return transfer.read_row(self.gpu.host, self.array_file(array), array, row)

    def sources(self, index: Index) -> list[Source]:
        """Where the rows of a dataset's index come from."""
        rows = rows_of(index, self.workspace.index_sha256(index))
        host = self.gpu.host
        return [Source(r, array, host, self.array_file(array)) for r, array in zip(rows, index.inputs, strict=True)]

    def input_sha256(self, path: PurePosixPath) -> str:
        """sha256 of a file of the GPU host, remembered while it stays the same.

        Raises:
            KitError: it is not there.
        """
        host = self.gpu.host
        if isinstance(host, LocalHost):
            return self.workspace.manifest.input_sha256(Path(path))
        memo = str(host.kit / "hashes.json")
        found = host.call("digest", {"paths": [str(path)], "memo": memo}).get(str(path))
        if found is None:
            raise KitError(f"{host.name}: {path} is not there; correct its path in the inventory")
        return str(found["sha256"])

    @cached_property
    def npus(self) -> list[NpuHost]:
        """Every NPU host, its facts read.

        Raises:
            KitError: a host is unfit, or two hosts would not make one verdict (another SoC or CANN).
        """
        found = []
        for section in self.inventory.npu:
            with activity(f"asking {section.name}"):
                host = self.connect(section)
                its_runtime = runtime.for_npu(section, host)
                smi = Smi.of(section, its_runtime)
                found.append(NpuHost(section, host, its_runtime, smi, Facts.read(section, its_runtime, smi)))
        first = found[0]
        for other in found[1:]:
            if other.facts.target != first.facts.target:
                raise KitError(
                    f"{first.section.name} is {first.facts.target} and {other.section.name} {other.facts.target}: "
                    "one verdict is about one kind of device; give each kind an inventory of its own"
                )
        return found

    @property
    def devices(self) -> list[Worker]:
        """Every device that the inventory lists, in its order."""
        return devices_of(self.npus)

    @cached_property
    def cluster(self) -> Cluster:
        """The Ray cluster of `engine: {kind: ray}`. Raises KitError where it cannot be joined."""
        try:
            from deploy.execution.fleet.cluster import Cluster  # Ray is an extra: nothing else may import it
        except ImportError as error:
            raise KitError(f"engine.kind: ray needs Ray, which is not installed ({error}); run `make ray`") from None
        assert self.inventory.engine.address is not None
        return Cluster(self.inventory.engine.address)

    @cached_property
    def scheduler(self) -> Scheduler:
        if self.inventory.engine.kind == "ssh":
            return Queue(self.npus)
        from deploy.execution.fleet.scheduler import Fleet

        return Fleet(self.inventory, self.npus)
