"""What every stage is given: the inventory, the workspace and its manifest, the hosts, the operator's switches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from deploy.console import say
from deploy.containers import runtime
from deploy.containers.engine import ARRAYS
from deploy.errors import KitError, LinkLost
from deploy.execution.engine import Engine, Ssh
from deploy.execution.worker import NpuHost, Rows
from deploy.hosts import transfer
from deploy.hosts.host import Host
from deploy.hosts.local import LocalHost
from deploy.hosts.over_ssh import SSHHost
from deploy.hosts.remote.folders import make_folders
from deploy.inventory import Gpu, Inventory, Npu, local_path
from deploy.npu.device import Facts, Idle, Smi
from deploy.pipeline import graph
from deploy.pipeline.build import Build
from deploy.pipeline.index import FILES, Array, Index, Shard, read_index
from deploy.pipeline.manifest import Manifest, Step, key_of
from deploy.pipeline.model import BUNDLED, CARD, Card, Files, Model, find, input_files, read_card
from deploy.pipeline.sources import source_files
from stgcn.files import sweep

if TYPE_CHECKING:
    from deploy.execution.fleet.cluster import Cluster


@dataclass
class Context:
    inventory: Inventory
    fresh: bool = False  # ignore what is cached
    dry: bool = False  # print what would run, on which host
    force: bool = False  # take figures on a busy device, marked
    workspace: Path = field(init=False)
    manifest: Manifest = field(init=False)
    idle: Idle = field(init=False, default=Idle())  # what the figures so far know of their device
    _sent: set[tuple[str, str, Any]] = field(init=False, default_factory=set)
    _hosts: list[Host] = field(init=False, default_factory=list)
    _holding: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.workspace = local_path(self.inventory.workspace)
        try:
            make_folders(str(self.workspace))
        except OSError as error:
            raise KitError(
                f"{self.workspace}: the workspace cannot be made ({error.strerror}); correct `workspace` "
                "in the inventory"
            ) from None
        self.manifest = Manifest(self.workspace)

    def __enter__(self) -> Context:
        """Hold the workspace, and from now on that of every host that is connected; a dry run holds none.

        Raises:
            KitError: another operator does, named.
        """
        self._holding = not self.dry
        if self._holding:
            self._hold(LocalHost("control", self.workspace))
            sweep(self.workspace, depth=3)
            self.manifest = Manifest(self.workspace)  # as the last holder left it
            self.manifest.verify_hold = self._verify_hold
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go of every host; an interrupt also stops what runs there."""
        with ExitStack() as stack:
            if "cluster" in vars(self):
                stack.callback(self.cluster.close)
            for host in self._hosts:
                stack.callback(host.close, interrupted=kind is KeyboardInterrupt)

    def connect(self, section: Gpu | Npu) -> Host:
        """The host that a section names. A GPU host on this machine works in the control's own workspace."""
        if isinstance(section, Npu) and self.inventory.engine.kind == "ray":
            return self._hold(self.cluster.connect(section))
        if section.connection == "ssh":
            known_hosts = local_path(self.inventory.known_hosts) if self.inventory.known_hosts else None
            inputs = self.inventory.inputs if isinstance(section, Gpu) else {}
            return self._hold(SSHHost(section, known_hosts, self.inventory.link_timeout_s, inputs))
        workspace = self.workspace if isinstance(section, Gpu) else local_path(section.workspace)
        return self._hold(LocalHost(section.name, workspace))

    def _hold(self, host: Host) -> Host:
        self._hosts.append(host)
        if self._holding:
            host.hold()
        return host

    def _verify_hold(self) -> None:
        for host in list(self._hosts):
            host.verify_hold()

    def perform(self, step: Step, *, fresh: bool = False) -> dict[str, Any]:
        return self.manifest.perform(step, fresh=self.fresh or fresh, dry=self.dry)

    @cached_property
    def gpu(self) -> runtime.Runtime:
        section, model = self.inventory.gpu, self.model
        host, files = self.connect(section), list(self.files.model_dump().values())
        if model.package == BUNDLED and section.runtime == "docker":
            return runtime.for_gpu(section, host, files)
        sources = PurePosixPath(model.path)
        if section.connection == "ssh":
            sources = host.kit / f"{model.package.name}-{model.sha256[:16]}"
            transfer.plant(host, source_files(model.package), sources / model.package.name)
        return runtime.for_gpu(section, host, files, sources)

    @cached_property
    def npus(self) -> list[NpuHost]:
        """Every NPU host, its facts read.

        Raises:
            KitError: a host is unfit, or two hosts would not make one verdict (another SoC or CANN).
        """
        found = []
        for section in self.inventory.npu:
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
    def engine(self) -> Engine:
        if self.inventory.engine.kind == "ssh":
            return Ssh(self.npus, self.send_rows)
        from deploy.execution.fleet.engine import Fleet

        return Fleet(self.inventory, self.npus, self._pack)

    def _pack(self, array: Array, shard: Shard) -> bytes:
        return transfer.pack_shard(self.gpu.host, self.array_file(array), array, shard)

    @property
    def array_folder(self) -> PurePosixPath:
        """Where the GPU host keeps the inputs' rows that are not the dataset's own array."""
        return self.gpu.host.kit / ARRAYS

    def array_file(self, array: Array) -> PurePosixPath:
        """The .npy of an input's rows on the GPU host."""
        return self.data if array.file is None else self.array_folder / array.file

    @cached_property
    def model(self) -> Model:
        """The model that the inventory names. Raises KitError where there is none."""
        return find(self.inventory.model, local_path(self.inventory.model))

    def card(self) -> Card:
        """The card of the graph that was exported.

        Raises:
            KitError: it was not, or it is another model's than the inventory's.
        """
        path = self.manifest.output("export", self.artefact(f"gpu/{CARD}"), "make gpu-stage")
        card = read_card(path)
        if card.name != self.model.card.name:
            raise KitError(
                f"{path}: of {card.name}, and the inventory says {self.inventory.model}; run `make gpu-stage`"
            )
        return card

    @cached_property
    def files(self) -> Files:
        """What the model reads: as the inventory names it, else as the card does."""
        return input_files(self.inventory, self.model.card)

    @property
    def data(self) -> PurePosixPath:
        """On the GPU host, like `labels` and `checkpoint`."""
        return self.gpu.host.path(self.files.data)

    @property
    def labels(self) -> PurePosixPath:
        return self.gpu.host.path(self.files.labels)

    @property
    def checkpoint(self) -> PurePosixPath:
        return self.gpu.host.path(self.files.checkpoint)

    def input_sha256(self, path: PurePosixPath) -> str:
        """sha256 of a file of the GPU host, remembered while it stays the same.

        Raises:
            KitError: it is not there.
        """
        host = self.gpu.host
        if isinstance(host, LocalHost):
            return self.manifest.input_sha256(Path(path))
        memo = str(host.kit / "hashes.json")
        found = host.call("digest", {"paths": [str(path)], "memo": memo}).get(str(path))
        if found is None:
            raise KitError(f"{host.name}: {path} is not there; correct its path in the inventory")
        return str(found["sha256"])

    def artefact(self, name: str) -> Path:
        return self.workspace / name

    def batch_folder(self, batch_size: int) -> Path:
        return self.workspace / "npu" / f"bs{batch_size}"

    def index(self) -> Index:
        """The dataset's index, as the GPU stage left it."""
        return self.samples("both")

    def samples(self, persons: str) -> Index:
        """The index of what a device is given: the samples' own rows, or the single persons of `nonempty`."""
        path = self.artefact(f"gpu/{FILES[persons]}")
        return read_index(self.manifest.output("preprocess", path, "make gpu-stage"))

    def index_sha256(self, index: Index) -> str:
        """Of the file that an index was read from."""
        return str(self.manifest.steps["preprocess"]["outputs"][f"gpu/{index.file}"]["sha256"])

    def onnx(self) -> Path:
        name = f"gpu/{self.model.card.stem}.onnx"
        path = self.manifest.output("export", self.artefact(name), "make gpu-stage")
        exported = self.manifest.steps["export"]["inputs"].get("persons", "both")
        if exported != self.inventory.persons:
            raise KitError(
                f"{path}: exported for persons: {exported}, and the inventory says {self.inventory.persons}; "
                "run `make gpu-stage`"
            )
        return path

    def rows(self, index: Index) -> list[Rows]:
        """The rows of an index's inputs, as hosts keep them."""
        name = self.index_sha256(index)[:16]
        names = [name if i == 0 else f"{name}-{array.name}" for i, array in enumerate(index.inputs)]
        return [Rows(name, array.shards, array.row_bytes) for name, array in zip(names, index.inputs, strict=True)]

    def send_rows(self, npu: NpuHost, index: Index) -> None:
        """Bring an index's rows to a host, once a command: to check them there is to read them all."""
        for array, rows in zip(index.inputs, self.rows(index), strict=True):
            there = (str(npu), rows.name, tuple(shard.sha256 for shard in array.shards))
            if there not in self._sent:
                folder = rows.folder(npu.host)
                transfer.push_rows(self.gpu.host, self.array_file(array), array, npu.host, folder)
                self._sent.add(there)

    def build(self, batch_size: int) -> Build:
        """The OM of a batch size, as the inventory has it. Raises KitError where the ONNX is not made yet."""
        folder = self.batch_folder(batch_size)
        flags, aoe = self.inventory.atc, self.inventory.aoe
        name, onnx, card = f"bs{batch_size}", self.onnx(), self.card()
        return Build(name, folder, onnx, "export", batch_size, flags, card, self.inventory.persons, aoe)

    def om(self, build: Build) -> Path:
        """A build's OM. Raises KitError where it is not made yet or was changed."""
        return self.manifest.output(f"convert/{build.name}", build.om, graph.command_of("convert"))

    def local_files(self) -> dict[str, Path]:
        """data, labels and checkpoint, where they lie on this machine; no host is asked."""
        if self.inventory.gpu.connection == "ssh":
            return {}
        return {name: local_path(file) for name, file in self.files.model_dump().items()}


def job_name(inputs: Mapping[str, Any], name: str) -> str:
    """Of the run that makes `name` of `inputs`."""
    return f"{name.replace('/', '-')}-{key_of(inputs)[:12]}"


@dataclass(frozen=True)
class Job:
    """One run on a host that outlives a cut: the next command finds it by its name."""

    host: Host
    name: str

    @classmethod
    def of(cls, host: Host, inputs: Mapping[str, Any], name: str) -> Job:
        return cls(host, job_name(inputs, name))

    @property
    def folder(self) -> PurePosixPath:
        """What the run reads and writes there."""
        return self.host.kit / "runs" / self.name

    @contextmanager
    def begun(self, fresh: bool = False) -> Iterator[bool]:
        """Whether an earlier command began it, so that its folder is ready and in use.

        At the end nothing is left of it, unless the link was lost: then it goes on.
        """
        if fresh:
            self._remove()
        begun = self.host.has_job(self.name)
        if begun:
            say(f"  {self.name} on {self.host.name} was begun before: going on with it")
        try:
            yield begun
        except LinkLost:
            raise
        except BaseException:
            with suppress(KitError):
                self._remove()
            raise
        self._remove()

    def _remove(self) -> None:
        self.host.forget([self.name])
        self.host.call("remove", {"paths": [str(self.folder)]})
