"""What runs on the nodes of a cluster, in Ray's own processes: the actor of a host, and a unit of work as a task."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.exceptions import RayTaskError

from deploy.containers import runtime
from deploy.errors import KitError
from deploy.hosts.exchange import Pipe
from deploy.hosts.local import LocalHost
from deploy.hosts.pipes import LocalPipe
from deploy.hosts.remote.launch import ARGUMENTS
from deploy.inventory import Inventory, Npu
from deploy.npu.device import Facts, Smi
from deploy.npu.worker import CachedFile, NpuHost, Rows, Work, Worker
from deploy.pipeline.index import Shard
from stgcn.errors import InputError

TASKS = "tasks"  # of a host's kit folder
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"  # Ray sets it, and CANN would number what is visible anew


class NodeHost(LocalHost):
    """The machine of this node. Paths are relative to the home of whom Ray runs as, as to a login's over SSH."""

    def __init__(self, name: str, workspace: str) -> None:
        super().__init__(name, Path.home() / Path(workspace).expanduser())

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(Path.home() / Path(text).expanduser())


@dataclass(frozen=True)
class Member:
    """A host of the inventory in the cluster: all that a task on it needs to know."""

    inventory: Inventory
    name: str
    facts: Facts
    actor: Any  # the handle of its HostActor

    @property
    def _section(self) -> Npu:
        return next(section for section in self.inventory.npu if section.name == self.name)

    def folder(self) -> TemporaryDirectory[str]:
        """Where a task keeps its files until they are sent back."""
        tasks = Path(NodeHost(self.name, self._section.workspace).kit / TASKS)
        tasks.mkdir(mode=0o700, parents=True, exist_ok=True)
        return TemporaryDirectory(dir=tasks)

    def worker(self, assigned: Sequence[str]) -> Worker:
        """The host, or the first device that the inventory lists among those that Ray assigned."""
        section = self._section
        host = NodeHost(section.name, section.workspace)
        its_runtime = runtime.for_npu(section, host)
        npu = NpuHost(section, host, its_runtime, Smi.of(section, its_runtime), self.facts)
        if not assigned:
            return Worker(npu)
        listed = [chip.device for chip in self.facts.chips]
        device = next((device for device in listed if str(device) in assigned), None)
        if device is None:
            raise KitError(
                f"{self.name}: Ray assigned device {', '.join(assigned)}, the inventory lists "
                f"{', '.join(map(str, listed))}; start that node with {VISIBLE}={','.join(map(str, listed))}"
            )
        return Worker(npu, device)


class HostActor:
    """The actor of a host, for as long as the command lasts: starts programs for the control (`RayHost`), and has what
    many tasks need come to the host once."""

    def __init__(self, name: str, workspace: str) -> None:
        os.environ.pop(VISIBLE, None)
        self._host = NodeHost(name, workspace)
        self._pipes: dict[int, Pipe] = {}
        self._here: set[CachedFile | tuple[str, Shard]] = set()
        self._one_at_a_time = threading.Lock()

    def place(self) -> tuple[str, str, list[str]]:
        """Home, workspace, and the argument list of the host's operations."""
        self._host.call("contact", {"workspace": str(self._host.workspace), "inputs": {}})
        return str(Path.home()), str(self._host.workspace), [sys.executable, *ARGUMENTS]

    def start(self, argv: Sequence[str]) -> int:
        pipe = LocalPipe(argv)
        self._pipes[id(pipe)] = pipe
        return id(pipe)

    def pipe(self, number: int, method: str, *arguments: Any) -> Any:
        """Call a method of a `Pipe` that was started."""
        return getattr(self._pipes[number], method)(*arguments)

    def close(self, number: int) -> None:
        self._pipes.pop(number).close()

    def receive(
        self, files: Sequence[CachedFile], inputs: Sequence[Rows], refs: Mapping[CachedFile | Shard, Any]
    ) -> None:
        """Have files and inputs' rows on the host: what is missing comes from Ray's object store.

        Raises:
            KitError: the host's own sentence, e.g. that its disk is full.
        """
        with self._one_at_a_time:
            for file in files:
                if file not in self._here:
                    self._receive_file(file, refs[file])
                    self._here.add(file)
            for rows in inputs:
                missing = [shard for shard in rows.shards if (rows.name, shard) not in self._here]
                if missing:
                    self._receive_shards(rows, {shard: refs[shard] for shard in missing})
                self._here |= {(rows.name, shard) for shard in missing}

    def _receive_file(self, file: CachedFile, ref: Any) -> None:
        path = str(file.on(self._host))
        found = self._host.call("digest", {"paths": [path]}).get(path)
        if found is None or found["sha256"] != file.sha256:
            data = ray.get(ref)
            self._host.call("receive", {"path": path, "bytes": len(data), "sha256": file.sha256}, [data])

    def _receive_shards(self, rows: Rows, refs: Mapping[Shard, Any]) -> None:
        folder, size = rows.folder(self._host), rows.row_bytes
        request = {"folder": str(folder), "clip_bytes": size, "shards": [asdict(shard) for shard in refs]}
        for shard, landed in zip(refs, self._host.call("landed", request)["clips"], strict=True):
            if landed < shard.count:
                what = {"folder": str(folder / str(shard.first)), "clip_bytes": size, "landed": 0}
                self._host.call("unpack", {**what, **asdict(shard)}, [ray.get(refs[shard])])


@dataclass(frozen=True)
class Outcome:
    """What came of a task: its result or the sentence it ended with, and the files that it made."""

    host: str
    result: Any
    error: InputError | None
    files: Mapping[str, bytes]


def run_task(members: Mapping[str, Member], work: Work[Any], refs: Mapping[CachedFile | Shard, Any]) -> Outcome:
    """The task: do `work` on this node, on the device that Ray assigned. `refs` are objects of what it needs."""
    os.environ.pop(VISIBLE, None)
    context = ray.get_runtime_context()
    member = members[context.get_node_id()]
    with member.folder() as folder:
        result, error = None, None
        try:
            ray.get(member.actor.receive.remote(work.files, work.inputs, refs))
            result = work(member.worker(context.get_accelerator_ids().get("NPU", [])), Path(folder))
        except InputError as refusal:
            # An actor's arrives wrapped in a class of Ray's own.
            error = refusal.cause if isinstance(refusal, RayTaskError) else refusal
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return Outcome(member.name, result, error, files)
