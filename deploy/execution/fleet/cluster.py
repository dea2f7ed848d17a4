"""The Ray cluster that an inventory names, and its nodes as hosts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deploy.errors import KitError, LinkLost
from deploy.execution.fleet.node import TASKS, HostActor
from deploy.hosts.exchange import Pipe
from deploy.hosts.piped import PipedHost
from deploy.inventory import ROOT, Npu

TIMEOUT_S = 60.0  # for an answer of a node that is there
CALLS = 64  # at once of an actor: each program of the control's holds one while it waits for output


class Cluster:
    """A cluster that this process has joined.

    Raises:
        KitError: nothing answers at the address, this machine is no node, or its Ray or Python is another.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        _refuse_silent(address)
        # The kit's own code travels with the command, so that all nodes run the same.
        code = {"py_modules": [str(ROOT / "deploy"), str(ROOT / "stgcn")], "excludes": ["__pycache__"]}
        try:
            ray.init(
                address, runtime_env=code, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, RayError) as error:
            reason = str(error).strip().splitlines()[0]
            raise KitError(
                f"{address}: the Ray cluster cannot be joined ({reason}); this machine must be a node of it, started "
                f"with the same Ray and Python: `ray start --address={address} --num-cpus=0`"
            ) from None

    def connect(self, section: Npu) -> RayHost:
        """The node whose name is that of the inventory's host.

        Raises:
            KitError: there is none.
        """
        nodes = {node["NodeName"]: node for node in ray.nodes() if node["Alive"]}
        if section.name not in nodes:
            raise KitError(
                f"{section.name}: the Ray cluster at {self.address} has no node of this name (it has "
                f"{', '.join(sorted(nodes))}); start it there with `ray start --node-name={section.name}`"
            )
        return RayHost(section, nodes[section.name])

    def close(self) -> None:
        ray.shutdown()


class RayHost(PipedHost):
    """A node, reached through its actor."""

    def __init__(self, section: Npu, node: dict[str, Any]) -> None:
        super().__init__(section.name)
        self.node_id: str = node["NodeID"]
        self.resources: dict[str, float] = node["Resources"]
        options = {"num_cpus": 0, "max_concurrency": CALLS, "scheduling_strategy": pinned(self.node_id)}
        self.actor: Any = ray.remote(HostActor).options(**options).remote(section.name, section.workspace)
        home, workspace, self.operations = self.ask("place")
        self.home, self.workspace = PurePosixPath(home), PurePosixPath(workspace)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the actor.

        Raises:
            LinkLost: the node or its actor is gone.
        """
        try:
            return ray.get(getattr(self.actor, method).remote(*arguments), timeout=TIMEOUT_S)
        except RayTaskError as error:
            raise error.cause from None
        except RayError:
            raise LinkLost(f"{self.name}: its Ray node is gone; start it again, then run the command again") from None

    def start(self, argv: Sequence[str]) -> Pipe:
        return _RayPipe(self, self.ask("start", list(argv)))

    def broken(self, operation: str, complaint: str) -> KitError:
        self.ask("place")  # a node that is gone says so
        return super().broken(operation, complaint)

    def hold(self) -> None:
        super().hold()
        self.call("remove", {"paths": [str(self.kit / TASKS)]})  # what killed tasks left

    def verify_hold(self) -> None:
        """Nothing: no result is taken of a host that is not held, so one that is lost later spoils nothing."""

    def is_held(self) -> bool:
        """Whether the workspace is still this command's: false where the node is gone, too."""
        try:
            super().verify_hold()
        except KitError:
            return False
        return True

    def close(self, interrupted: bool = False) -> None:
        super().close(interrupted)
        ray.kill(self.actor)


class _RayPipe:
    def __init__(self, host: RayHost, number: int) -> None:
        self._host, self._number = host, number

    def write(self, block: bytes) -> None:
        self._ask("write", bytes(block))

    def end_input(self) -> None:
        self._ask("end_input")

    def read(self, timeout_s: float) -> bytes | None:
        try:
            found: bytes | None = self._ask("read", timeout_s)
        except OSError:
            return b""
        return found

    def complaint(self) -> str:
        with suppress(OSError):
            return str(self._ask("complaint"))
        return ""

    def abort(self) -> None:
        with suppress(OSError):
            self._ask("abort")

    def close(self) -> None:
        with suppress(LinkLost):
            self._host.ask("close", self._number)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return self._host.ask("pipe", self._number, method, *arguments)
        except LinkLost as error:
            raise BrokenPipeError(str(error)) from None


def pinned(node_id: str) -> NodeAffinitySchedulingStrategy:
    """On this node and no other."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _refuse_silent(address: str) -> None:
    """Ray itself would wait minutes for an answer."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise KitError(
            f"engine.address {address}: no Ray cluster answers there ({error}); start its head with "
            "`ray start --head`, and name it as HOST:PORT"
        ) from None
