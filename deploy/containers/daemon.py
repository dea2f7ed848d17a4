"""The Docker engine of a host: this machine's, or another's through the connection that the kit has to it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from deploy.containers import endpoint
from deploy.containers.endpoint import EngineError
from deploy.errors import HostUnfit, KitError, OverrunError
from deploy.hosts.host import Host
from deploy.hosts.over_ssh import SSHHost
from deploy.interrupt import ended_by_interrupt
from deploy.inventory import Gpu, Npu

REMOVAL_TIMEOUT_S = 20.0
OWNER_LABEL, WORKSPACE_LABEL = "stgcn-ascend-kit.owner", "stgcn-ascend-kit.workspace"
CONTAINER_USER = (1000, 1000)  # of the images, and of HwHiAiUser, who owns the NPU's nodes
PIDS = 4096  # of a container, threads too: ATC has some hundreds
INPUT = "input"  # in a step's folder: what it may read and not write
MEMORY_SHARE = 0.9  # of the host's memory: a container that wants more is killed, not the host's other programs
# What every container gets, and does not get.
SHIELD: Mapping[str, Any] = {
    "cap_drop": ["ALL"],
    "init": True,
    "network_mode": "none",
    "pids_limit": PIDS,
    "read_only": True,
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "exec"},  # noqa: S108 (a container's own; ATC loads libraries that it has compiled there)
}


@dataclass
class DockerDaemon:
    """The engine of one host; its containers share the host's workspace."""

    section: Gpu | Npu
    host: Host

    @cached_property
    def client(self) -> docker.DockerClient:
        """Connected; what a killed run of the kit left in this workspace is removed.

        Raises:
            KitError: no engine answers there.
        """
        client = connect(self.host)
        with telling(self.host.name, "connect"):
            _remove_orphans(client, str(self.host.workspace))
        return client

    @cached_property
    def uid_map(self) -> str | None:
        """How the engine maps a container's users to the host's; None where it does not, or no engine answers."""
        try:
            with telling(self.host.name, "tell of itself"):
                return endpoint.uid_map(self.client.info().get("SecurityOptions") or [])
        except KitError:
            return None

    @cached_property
    def hands_in_gpus(self) -> bool:
        """Whether NVIDIA's Container Toolkit is there: as one of the engine's runtimes, or as the hook of `--gpus`."""
        with telling(self.host.name, "tell of itself"):
            known = "nvidia" in (self.client.info().get("Runtimes") or {})
        return known or self.host.run(["sh", "-c", "command -v nvidia-container-runtime-hook"]).status == 0

    def image(self, name: str) -> dict[str, Any]:
        """An image's name, id and labels."""
        with telling(self.host.name, f"show {name}"):
            found = self.client.images.get(name)
        return {"name": name, "id": found.id, "labels": dict(sorted(found.labels.items()))}

    def run(
        self,
        options: Mapping[str, Any],
        program: str,
        feed: Callable[[bytes], None],
        timeout_s: float | None = None,
    ) -> int:
        """Run a container to its end, its output to `feed` as it comes; its exit status. Nothing of it is left.

        Raises:
            KitError: the engine refuses it, or it ran out of memory.
            OverrunError: it did not end in `timeout_s`.
        """
        client, name, late = self.client, f"stgcn-{secrets.token_hex(6)}", threading.Event()
        self._refuse_what_is_mapped_away(options)
        uid, gid = self.user
        labels = {OWNER_LABEL: owner(), WORKSPACE_LABEL: str(self.host.workspace)}

        def expire() -> None:
            late.set()
            _remove(client, name)

        timer = threading.Timer(timeout_s, expire) if timeout_s else None
        try:
            with telling(self.host.name, f"run {program}"), ended_by_interrupt(lambda: _remove(client, name)):
                container = client.containers.create(
                    **options,
                    **SHIELD,
                    mem_limit=int(MEMORY_SHARE * client.info()["MemTotal"]),
                    user=f"{uid}:{gid}",
                    userns_mode="host" if self.uid_map == "userns" else None,
                    name=name,
                    labels=labels,
                    entrypoint=["bash"],
                )
                output = container.attach(stream=True, logs=True)
                if timer:
                    timer.start()
                container.start()
                for block in output:
                    feed(block)
                status = int(container.wait()["StatusCode"])
                container.reload()
        except KitError:
            if not late.is_set():
                raise
        finally:
            if timer:
                timer.cancel()
            _remove(client, name)
        if late.is_set():
            raise OverrunError(f"{self.host.name}: {program} did not end within {timeout_s:g} s and was stopped")
        if container.attrs["State"]["OOMKilled"]:
            raise KitError(f"{self.host.name}: {program} ran out of memory and was killed; give the host more")
        return status

    def present(self, paths: Sequence[str]) -> list[str]:
        """Those of `paths` that are there on the host."""
        script = 'for path; do [ ! -e "$path" ] || echo "$path"; done'
        return self.host.run(["sh", "-c", script, "sh", *paths]).output.split()

    def refuse_unreadable(self, paths: Sequence[PurePosixPath]) -> None:
        """Raises KitError for a file that the container's user, who is not root, may not read."""
        if self._caller[0] != 0 or not paths:
            return
        found = self.host.run(["find", *map(str, paths), "-maxdepth", "0", "!", "-perm", "-o+r", "-print0"])
        if hidden := found.output.split("\0")[0]:
            raise KitError(
                f"{self.host.name}: {hidden} is not readable by uid {CONTAINER_USER[0]}, which runs in the container; "
                f"chmod o+r {shlex.quote(hidden)}"
            )

    def groups(self, nodes: Sequence[str]) -> list[int]:
        """The gids that `nodes` of the host give their rights to: their own, whatever was free when they were made."""
        found = self.host.run(["stat", "-L", "-c", "%g", *nodes]).output.split()
        return sorted({int(gid) for gid in found if gid.isdigit()} - {self.user[1]})

    @property
    def passwd(self) -> PurePosixPath:
        """A file on the host that names the container's user, for an image knows no user of the host's uid."""
        uid, gid = self.user
        return self.host.kit / f"passwd-{uid}-{gid}"

    @cached_property
    def written_passwd(self) -> PurePosixPath:
        """`passwd`, once it is there."""
        uid, gid = self.user
        lines = ["root:x:0:0:root:/root:/bin/sh", f"stgcn:x:{uid}:{gid}::/tmp:/bin/sh"]
        text = "".join(line + "\n" for line in lines).encode()
        digest = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        self.host.call("receive", {"path": str(self.passwd), **digest}, [text])
        self.host.run(["chmod", "644", str(self.passwd)])
        return self.passwd

    @property
    def user(self) -> tuple[int, int]:
        """The uid and gid that run in a container: the host's user's, so that files are theirs, but never root's.

        A rootless engine maps its user to a container's root, and all others to uids that own nothing on the host.
        """
        if self.uid_map == "rootless":
            return (0, 0)
        return self._caller if self._caller[0] != 0 else CONTAINER_USER

    def _refuse_what_is_mapped_away(self, options: Mapping[str, Any]) -> None:
        if self.uid_map == "rootless" and (options.get("devices") or options.get("runtime")):
            raise EngineError(
                f"{self.host.name}: its Docker engine is rootless, and maps away the group that owns the NPU's nodes",
                "use the system's engine (`docker context use default`), or runtime: native in the inventory",
            )

    @contextmanager
    def lent(self, write: Sequence[PurePosixPath], read: Sequence[PurePosixPath]) -> Iterator[None]:
        """Root's folders `write` belong to the container's user meanwhile, who may read `read`: nobody else gets at
        them, for the kit's folder above is root's alone."""
        if self._caller[0] != 0:
            yield
            return
        if read:
            self._done(["chmod", "--recursive", "o+rX", "--", *map(str, read)])
        guest = "{}:{}".format(*CONTAINER_USER)
        for folder in write:
            self._chown(folder, "0", guest)
        try:
            yield
        finally:
            for folder in write:
                self._chown(folder, str(CONTAINER_USER[0]), "0:0")

    @cached_property
    def _caller(self) -> tuple[int, int]:
        uid, gid = self.host.run(["sh", "-c", "id -u; id -g"]).output.split()
        return int(uid), int(gid)

    def _chown(self, folder: PurePosixPath, old: str, new: str) -> None:
        """What a step's folder holds, but for its inputs, which are other steps' too."""
        change = ["-exec", "chown", "--no-dereference", f"--from={old}", new, "{}", "+"]
        self._done(["find", str(folder), "-path", str(folder / INPUT), "-prune", "-o", *change])

    def _done(self, argv: Sequence[str]) -> None:
        done = self.host.run(argv)
        # A file that goes meanwhile is another thread's.
        if done.status != 0 and "No such file" not in done.output:
            raise KitError(f"{self.host.name}: {(done.output.strip().splitlines() or [argv[0] + ' failed'])[-1]}")


@contextmanager
def telling(host: str, doing: str) -> Iterator[None]:
    """Errors of the engine as sentences."""
    try:
        yield
    except ImageNotFound as error:
        raise HostUnfit(f"{host}: {_reason(error)}; build it there (make gpu-image, make npu-image)") from None
    except APIError as error:
        raise KitError(f"{host}: the Docker engine refuses to {doing}: {_with_way_out(_reason(error))}") from None
    except (DockerException, requests.RequestException) as error:
        raise HostUnfit(f"{host}: the Docker engine stopped answering ({_reason(error)}); see `fab doctor`") from None


def connect(host: Host) -> docker.DockerClient:
    """A client of the engine that the host's own `docker` uses.

    Raises:
        EngineError: none answers; with what mends that.
    """
    found = endpoint.parse(host.name, host.run(["sh", "-c", endpoint.ASK]).output)
    try:
        client = _remote_client(host, found) if isinstance(host, SSHHost) else _client(found)
        name = str(client.info().get("Name", ""))
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        raise endpoint.failure(host.name, found, error) from None
    endpoint.refuse_elsewhere(host.name, found, name, host.run(["uname", "-n"]).output.strip())
    return client


def _client(found: endpoint.Endpoint) -> docker.DockerClient:
    endpoint.reach(found)
    if found.kind == "ssh":
        return docker.DockerClient(base_url=found.url, use_ssh_client=True)
    if found.certificates is None:
        return docker.DockerClient(base_url=found.url)
    folder = PurePosixPath(found.certificates)
    pair = (str(folder / "cert.pem"), str(folder / "key.pem"))
    tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=str(folder / "ca.pem"), verify=found.verified)
    return docker.DockerClient(base_url=found.url, tls=tls)


def _remote_client(host: SSHHost, found: endpoint.Endpoint) -> docker.DockerClient:
    """By the connection that the kit has to the host."""
    if found.kind == "ssh" or found.certificates:
        raise EngineError(
            f"{host.name}: {found} is reached from that host by {'SSH' if found.kind == 'ssh' else 'TLS'} of its own",
            f"unset {found.said_by} there and use its own engine, or name that machine in the inventory",
        )
    if found.kind == "tcp":
        return docker.DockerClient(base_url=f"unix://{host.socket(*found.address)}")
    try:
        return docker.DockerClient(base_url=f"unix://{host.socket(found.path)}")
    except (DockerException, requests.RequestException, KitError):
        # Through the link all failures look alike: the host itself tells them apart.
        test = 'if [ ! -S "$1" ]; then exit 2; elif [ ! -w "$1" ]; then exit 13; else exit 111; fi'
        number = host.run(["sh", "-c", test, "sh", found.path]).status
        raise OSError(number, os.strerror(number)) from None


def _reason(error: Exception) -> str:
    text = getattr(error, "explanation", None) or str(error)
    return " ".join(str(text).split())[:500]


# What an engine says, of which a vendor's hook is a part -> what to do.
_WAYS_OUT = {
    r"(unknown or invalid runtime|runtime .*not found).*\bascend\b": (
        "install the Ascend Docker Runtime on that host and restart its engine, or leave out `vendor_runtime`"
    ),
    r"no NPU|ascend-docker|davinci|failed to mount|(prestart|createRuntime|createContainer)[- ]?hook": (
        "see that `devices` in the inventory are there and that no other container holds them; the Ascend Docker "
        "Runtime logs to /var/log/ascend-docker-runtime, and without `vendor_runtime` the kit passes the devices itself"
    ),
    r"could not select device driver|nvidia-container": (
        "install the NVIDIA Container Toolkit on that host and restart its engine"
    ),
    r'exec: "?bash"?|exec format error': "give an image with bash, for that host's machine (uname -m)",
    r"no space left|disk quota": "make room there (docker system df)",
}


def _with_way_out(reason: str) -> str:
    way_out = next((text for known, text in _WAYS_OUT.items() if re.search(known, reason, re.IGNORECASE)), None)
    return f"{reason}; {way_out}" if way_out else reason


def owner() -> str:
    """This process, as the label of the containers that it starts."""
    return f"{platform.node()}:{os.getpid()}"


def _remove_orphans(client: docker.DockerClient, workspace: str) -> None:
    for container in client.containers.list(all=True, filters={"label": f"{WORKSPACE_LABEL}={workspace}"}):
        node, _, pid = container.labels.get(OWNER_LABEL, "").rpartition(":")
        if node == platform.node() and not _alive(int(pid)):
            _remove(client, container.name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(client: docker.DockerClient, name: str) -> None:
    """Stop and remove a container with its anonymous volumes; it is gone then, whoever else is at removing it."""
    deadline = time.monotonic() + REMOVAL_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            client.api.remove_container(name, force=True, v=True)
        except NotFound:
            return
        except (APIError, requests.RequestException):
            time.sleep(0.1)  # its removal is under way, or the engine does not answer
        else:
            return
