"""What every stage is given: the inventory, the workspace and its manifest, the hosts, the operator's switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from deploy import hosts, runtime, transfer
from deploy.build import Build
from deploy.device import Device, Facts, Smi, read_era
from deploy.errors import KitError
from deploy.inventory import Inventory, Npu, local_path
from deploy.manifest import Manifest, Step, key_of
from stgcn.files import sha256_file
from stgcn.index import Index, load_index


@dataclass(frozen=True)
class NpuHost:
    """An NPU host of the inventory, connected."""

    section: Npu
    host: hosts.Host
    runtime: runtime.Runtime
    smi: Smi
    facts: Facts

    def __str__(self) -> str:
        return self.section.name

    @property
    def devices(self) -> list[Device]:
        return [Device(self.section.name, chip) for chip in self.facts.chips]

    def has(self, program: str) -> bool:
        """Whether a program is there once the environment is sourced."""
        return self.runtime.run(["bash", "-c", 'type -P "$1" > /dev/null', "bash", program]).status == 0

    @cached_property
    def era(self) -> str:
        """Of ais_bench. Raises KitError where there is none that runs."""
        return read_era(self.section, self.runtime, self.facts)


@dataclass
class Context:
    inventory: Inventory
    fresh: bool = False  # ignore what is cached
    dry: bool = False  # print what would run, on which host
    force: bool = False  # take figures on a busy device, marked
    workspace: Path = field(init=False)
    manifest: Manifest = field(init=False)
    _sent: set[tuple[str, Any]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.workspace = local_path(self.inventory.workspace)
        try:
            self.workspace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KitError(
                f"{self.workspace}: the workspace cannot be made ({error.strerror}); correct `workspace` "
                "in the inventory"
            ) from None
        self.manifest = Manifest(self.workspace)

    def perform(self, step: Step, *, fresh: bool = False) -> dict[str, Any]:
        return self.manifest.perform(step, fresh=self.fresh or fresh, dry=self.dry)

    @cached_property
    def gpu(self) -> runtime.Runtime:
        return runtime.for_gpu(self.inventory.gpu, hosts.connect(self.inventory.gpu))

    @cached_property
    def npus(self) -> list[NpuHost]:
        """Every NPU host, its facts read.

        Raises:
            KitError: a host is unfit, or two hosts would not make one verdict (another SoC or CANN).
        """
        found = []
        for section in self.inventory.npu:
            host = hosts.connect(section)
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
    def data(self) -> Path:
        return local_path(self.inventory.dataset.data)

    @property
    def labels(self) -> Path:
        return local_path(self.inventory.dataset.labels)

    @property
    def checkpoint(self) -> Path:
        return local_path(self.inventory.checkpoint)

    def artefact(self, name: str) -> Path:
        return self.workspace / name

    def batch_folder(self, batch_size: int) -> Path:
        return self.workspace / "npu" / f"bs{batch_size}"

    def index(self) -> Index:
        """The dataset's index, as the GPU stage left it."""
        return load_index(self.manifest.output("preprocess", self.artefact("gpu/dataset.json"), "make gpu-stage"))

    def onnx(self) -> Path:
        return self.manifest.output("export", self.artefact("gpu/st_gcn.onnx"), "make gpu-stage")

    def clips_folder(self, npu: NpuHost) -> PurePosixPath:
        """Where a host keeps the dataset's clips: named by content."""
        dataset = self.manifest.steps["preprocess"]["outputs"]["gpu/dataset.json"]["sha256"]
        return npu.host.workspace / "data" / str(dataset)[:16]

    def send_clips(self, npu: NpuHost, index: Index) -> None:
        """Bring an index's clips to a host, once a command: to check them there is to read them all."""
        shards = tuple((shard.first, shard.count) for shard in index.shards)
        if (str(npu), shards) not in self._sent:
            transfer.push_clips(npu.host, self.data, index, self.clips_folder(npu))
            self._sent.add((str(npu), shards))

    def build(self, batch_size: int) -> Build:
        """The OM of a batch size, as the inventory has it. Raises KitError where the ONNX is not made yet."""
        folder = self.batch_folder(batch_size)
        flags, aoe = self.inventory.atc, self.inventory.aoe
        return Build(f"bs{batch_size}", folder, self.onnx(), "export", batch_size, flags, aoe)

    def model_sha256(self, build: Build) -> dict[str, str]:
        """Of a build's OM and of the ONNX it came from, as inputs of what is run on it.

        The ONNX counts too: fp16 can hide a change of the weights, and what is reported of a changed checkpoint must
        have been measured with it. Raises KitError where the OM is not made yet or was changed.
        """
        step = f"convert/{build.name}"
        om = self.manifest.output(step, build.om, "fab npu-convert").relative_to(self.workspace).as_posix()
        entry = self.manifest.steps[step]
        return {"om": entry["outputs"][om]["sha256"], "onnx": entry["inputs"]["onnx"]}


def remote_copy(host: hosts.Host, path: Path) -> PurePosixPath:
    """Where a host keeps its copy of a file: named by content, so that a stale one is never taken for it."""
    return host.workspace / "files" / sha256_file(path)[:16] / path.name


def run_folder(host: hosts.Host, inputs: Mapping[str, Any], name: str) -> PurePosixPath:
    """The folder of one run on a host, removed when its results have come back."""
    return host.workspace / "runs" / f"{name}-{key_of(inputs)[:12]}"
