"""Ray as the scheduler: it places every unit of work on a host with the right chips; what is lost is done elsewhere.

Of each host it uses the resources `NPU`, one for each of its devices, and `accelerator_type:<SoC>`, one in all,
which Ray sets itself where it can ask CANN. A task takes a splinter of the latter, so that it goes to matching chips
only; a measurement takes all of both, so that nothing else is on its host.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from deploy.console import say
from deploy.errors import KitError
from deploy.execution.fleet.cluster import RayHost, pinned
from deploy.execution.fleet.node import Member, Outcome, run_task
from deploy.hosts.transfer import STREAMS
from deploy.interrupt import ended_by_interrupt
from deploy.inventory import Inventory
from deploy.npu.worker import CachedFile, NpuHost, Place, Result, Source, Work
from deploy.pipeline.index import Shard
from deploy.workqueue import in_parallel
from stgcn.files import write_whole

Item = TypeVar("Item")

ATTEMPTS = 3  # of a unit, each on another host where the last one's is to blame
ATC_CPUS = 4  # that a conversion keeps busy
SPLINTER = 0.001  # of a host
POLL_S = 5.0
AHEAD = 2  # units a device that wait in Ray's queue, so that no device waits for the control
SWEEPS = 4  # accuracy runs at once: enough to fill what one leaves idle at its end

REASONS: Sequence[tuple[type[RayError], str]] = (
    (NodeDiedError, "its host was lost"),
    (OutOfMemoryError, "its host ran out of memory"),
    (WorkerCrashedError, "its process was killed"),
    (ObjectStoreFullError, "Ray's object store is full; give its nodes more with `ray start --object-store-memory`"),
    (OutOfDiskError, "the disk is full to which Ray's object store spills"),
    (ObjectLostError, "its data were lost with the host that held them"),
)


@dataclass(frozen=True)
class Need:
    """What a task takes."""

    npus: int = 0
    cpus: float = 0
    host: float = SPLINTER
    node_id: str | None = None  # where it must run


class Fleet:
    """The inventory's hosts as nodes of a Ray cluster.

    Raises:
        KitError: a node offers other devices than the inventory lists.
    """

    def __init__(self, inventory: Inventory, npus: Sequence[NpuHost]) -> None:
        self.npus = npus
        self._hosts = [_host_of(npu) for npu in npus]
        self._named = {host.name: host for host in self._hosts}
        self._soc = f"accelerator_type:{npus[0].facts.soc_version}"
        for npu in npus:
            self._refuse_other_devices(npu)
        members = {
            host.node_id: Member(inventory, host.name, npu.facts, host.actor)
            for npu, host in zip(npus, self._hosts, strict=True)
        }
        self._members, self._task = ray.put(members), ray.remote(run_task)
        self._objects: dict[CachedFile | Shard, Any] = {}  # by content, what tasks may need: in the object store
        self._left_out: dict[str, str] = {}  # host -> why
        self._lost = set[str]()  # hosts that this command holds no more
        self._jobs: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._alive, self._asked, self._lock = set[str](), 0.0, threading.Lock()

    def on_hosts(self, items: Sequence[Item], one: Callable[[Place, Item], None]) -> None:
        cpus = min(ATC_CPUS, *(host.resources.get("CPU", 0) for host in self._hosts))
        self._share(items, len(items), one, Need(cpus=cpus))

    def on_devices(self, items: Sequence[Item], one: Callable[[Place, Item], None]) -> None:
        self._share(items, AHEAD * sum(len(npu.devices) for npu in self.npus), one, Need(npus=1))

    def alone(self) -> Place:
        npu = self.npus[0]
        return _Anywhere(self, Need(len(npu.devices), host=1, node_id=_host_of(npu).node_id))

    def side_by_side(self, items: Sequence[Item], one: Callable[[Item], None]) -> None:
        in_parallel(items, SWEEPS, one)

    def send(self, model: Path, sources: Sequence[Source]) -> None:
        self.put(CachedFile.of(model), model.read_bytes)
        for source in sources:
            in_parallel(source.rows.shards, STREAMS, functools.partial(self._put_shard, source))

    def _put_shard(self, source: Source, shard: Shard) -> None:
        self.put(shard, lambda: source.pack(shard))

    def put(self, what: CachedFile | Shard, read: Callable[[], bytes]) -> None:
        """Have something in the object store, from where each host that needs it fetches it once.

        Raises:
            KitError: the store is full.
        """
        if what in self._objects:
            return
        try:
            self._objects[what] = ray.put(read())
        except RayError as error:
            raise KitError(f"{_name(what)} does not reach the cluster: {_reason(error)}") from None

    def do(self, work: Work[Result], folder: Path, need: Need) -> Result:
        """Have `work` done on a host that has what it needs; what ends without its fault is done elsewhere.

        Raises:
            InputError: its own, where no other host would do better.
            KitError: nobody could do it.
        """
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                say(f"  {work} goes to another: {reason}", "yellow")
            try:
                with self._jobs[work.job]:  # builds that differ in nothing would share its folder on a host
                    outcome = self._outcome(work, need)
            except RayError as error:
                if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
                    raise  # a defect
                reason, self._asked = _reason(error), 0.0
                self._lost |= {host.name for host in self._hosts if not host.is_held()}
                self._end_everywhere(work.job)
                continue
            if not self._named[outcome.host].is_held():  # another command may have worked there meanwhile
                reason = "its host was lost"
                self._lost.add(outcome.host)
                continue
            for name, data in outcome.files.items():
                write_whole(folder / name, data)
            if outcome.error is None:
                result: Result = outcome.result
                return result
            reason = str(outcome.error)
            if need.npus == 0 or need.node_id:
                raise outcome.error
            self._left_out[outcome.host] = reason
        raise KitError(f"{work}: not done in {ATTEMPTS} attempts, the last: {reason}; {_WAY_OUT}")

    def _share(self, items: Sequence[Item], at_once: int, one: Callable[[Place, Item], None], need: Need) -> None:
        place = _Anywhere(self, need)
        in_parallel(items, at_once, lambda item: one(place, item))

    def _outcome(self, work: Work[Any], need: Need) -> Outcome:
        resources = {self._soc: need.host, **({"NPU": need.npus} if need.npus else {})}
        where: dict[str, Any] = {"label_selector": {"ray.io/node-id": f"in({','.join(self._eligible(work, need))})"}}
        if need.node_id:
            where = {"scheduling_strategy": pinned(need.node_id)}
        needed: list[CachedFile | Shard] = [*work.files, *(shard for rows in work.inputs for shard in rows.shards)]
        refs = {what: self._objects[what] for what in needed}
        options = {"num_cpus": need.cpus, "resources": resources, "max_retries": 0, **where}
        task = self._task.options(**options).remote(self._members, work, refs)
        with ended_by_interrupt(lambda: _end(task)):
            while not ray.wait([task], timeout=POLL_S)[0]:
                self._eligible(work, need)
        outcome: Outcome = ray.get(task)
        return outcome

    def _eligible(self, work: Work[Any], need: Need) -> list[str]:
        """The nodes that may do it. Raises KitError where none is left."""
        with self._lock:
            if time.monotonic() - self._asked > POLL_S:
                self._alive, self._asked = {node["NodeID"] for node in ray.nodes() if node["Alive"]}, time.monotonic()
        candidates = [host for host in self._hosts if need.node_id in (None, host.node_id)]
        gone = {host.name for host in candidates if host.node_id not in self._alive} | self._lost
        lost = {host.name: "lost" for host in candidates if host.name in gone}
        out = {**self._left_out, **lost} if need.npus and not need.node_id else lost
        found = [host.node_id for host in candidates if host.name not in out]
        if not found:
            missing = "; ".join(f"{name}: {why}" for name, why in out.items())
            raise KitError(f"{work}: no host is left that can do it ({missing}); {_WAY_OUT}")
        return found

    def _end_everywhere(self, job: str) -> None:
        """A worker that is gone may have left its program on its device."""
        for host in self._hosts:
            with suppress(KitError):
                if host.node_id in self._alive:
                    host.forget([job])

    def _refuse_other_devices(self, npu: NpuHost) -> None:
        wanted = {"NPU": float(len(npu.devices)), self._soc: 1.0}
        offered = {name: _host_of(npu).resources.get(name, 0.0) for name in wanted}
        if offered != wanted:
            raise KitError(
                f"{npu}: its Ray node offers {_resources(offered)}, and the inventory's devices are "
                f"{_resources(wanted)}; start it with `ray start --resources='{json.dumps(wanted)}'`"
            )


_WAY_OUT = "look after the hosts and run the command again, which goes on from what is done"


@dataclass(frozen=True)
class _Anywhere:
    """Wherever Ray finds what is needed."""

    fleet: Fleet
    need: Need

    def __str__(self) -> str:
        return ", ".join(map(str, self.fleet.npus))

    @property
    def npu(self) -> NpuHost:
        return self.fleet.npus[0]

    def send(self, file: Path) -> None:
        self.fleet.put(CachedFile.of(file), file.read_bytes)

    def do(self, work: Work[Result], folder: Path) -> Result:
        return self.fleet.do(work, folder, self.need)


def _end(task: Any) -> None:
    """Have a task ended, so that it begins nothing more on its host; what it began there is the host's to end."""
    with suppress(RayError):
        ray.cancel(task, force=True)
        ray.wait([task], timeout=POLL_S)


def _host_of(npu: NpuHost) -> RayHost:
    assert isinstance(npu.host, RayHost)
    return npu.host


def _reason(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    sentence = next((sentence for kind, sentence in REASONS if isinstance(cause, kind)), None)
    return sentence or f"{type(cause).__name__} in Ray"


def _name(what: CachedFile | Shard) -> str:
    return what.name if isinstance(what, CachedFile) else f"the shard at row {what.first}"


def _resources(of: Mapping[str, float]) -> str:
    return " and ".join(f"{count:g} {name}" for name, count in of.items())
