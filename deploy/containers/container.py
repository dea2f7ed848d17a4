"""How a command runs on a host in a container."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import docker

from deploy.containers.daemon import INPUT, PIDS, DockerDaemon
from deploy.containers.native import ARRAYS, Native, Runtime, logs, overrun, refuse_wrong_tools
from deploy.errors import OverrunError
from deploy.hosts.capture import Capture
from deploy.hosts.host import Completed, Host, RunOptions, open_log
from deploy.pipeline.prelude import sourced

if TYPE_CHECKING:
    from typing_extensions import Unpack

NPU_NODES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
VERSION_FILES = ("/usr/local/Ascend/driver/version.info", "/etc/ascend_install.info")
DRIVER_FILES = (
    "/usr/local/dcmi",
    "/usr/local/bin/npu-smi",
    "/usr/local/sbin/npu-smi",
    "/usr/local/Ascend/driver/lib64",
    *VERSION_FILES,
)


@dataclass(frozen=True)
class Npus:
    """How the containers of one host get at its devices."""

    npu_smi: str
    vendor_runtime: bool = False  # the vendor's container runtime hands the devices in, not the kit
    first: int = 0  # the device that the vendor's runtime shows a command that uses none
    device: int | None = None  # the one logical device that is handed in: a device serves one container at a time


@dataclass(frozen=True)
class Container:
    """A container an invocation, with the least it needs, removed at its end whatever the end.

    Its step's folder (and that of converted clips), and of the kit's copies and of `inputs` (both read-only) those that
    a command names, are mounted at their own paths: no path is translated, and nothing else of the workspace is seen.
    Files come out owned by the host's user: it is that user's uid that runs in the container, but for root, who lends
    those folders to uid 1000 for the time.
    """

    daemon: DockerDaemon
    image: str
    inputs: Sequence[PurePosixPath] = ()
    env_scripts: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    npus: Npus | None = None
    gpu: int | None = None  # of the host's NVIDIA GPUs the one that is handed in

    @property
    def host(self) -> Host:
        return self.daemon.host

    def argv(self, command: Sequence[str], folder: PurePosixPath | None = None) -> list[str]:
        options = self._options(command, folder)
        uid, gid = self.daemon.user
        flags = [
            "--rm",
            "--init",
            f"--pids-limit={PIDS}",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        ]
        flags += ["--network=none", "--tmpfs=/tmp:exec", f"--user={uid}:{gid}"]
        flags += ["--userns=host"] if self.daemon.uid_map == "userns" else []
        flags += [f"--group-add={group}" for group in options["group_add"]]
        flags += [f"--mount={_csv(mount)}" for mount in options["mounts"]]
        flags += [f"--device={node}" for node in options["devices"]]
        flags += [f"--runtime={options['runtime']}"] if options["runtime"] else []
        flags += [] if self.gpu is None else [f"--gpus=device={self.gpu}"]
        # The user's by name alone: docker takes their values from its own environment.
        variables = sorted(options["environment"].items())
        flags += [f"--env={name}" if name in self.env else f"--env={name}={value}" for name, value in variables]
        return ["docker", "run", *flags, "--entrypoint=bash", self.image, *options["command"]]

    def run(
        self, command: Sequence[str], *, folder: PurePosixPath | None = None, **options: Unpack[RunOptions]
    ) -> Completed:
        asked, timeout_s = self._options(command, folder), options.get("timeout_s")
        with ExitStack() as stack:
            _ = self.daemon.written_passwd  # it is mounted
            self.daemon.refuse_unreadable(self._named(command))
            stack.enter_context(self.daemon.lent(self._write(command, folder), self._read(command, folder)))
            capture = Capture(stack.enter_context(open_log(options.get("log"))), options.get("echo", False))
            try:
                status = self.daemon.run(asked, command[0], capture.write, timeout_s)
            except OverrunError:
                raise overrun(self.host, command, timeout_s) from None
        done = Completed(status, capture.text())
        refuse_wrong_tools(done, command[0], f"{self.host.name}, image {self.image}", self.env_scripts)
        return done

    def facts(self) -> Mapping[str, Any]:
        return {"image": self.daemon.image(self.image)}

    def on_device(self, device: int) -> tuple[Runtime, int]:
        if self.npus is None or not (self.npus.vendor_runtime or self.daemon.present(NPU_NODES)):
            return self, device  # a simulated one: nothing to hand in
        # The driver numbers a container's devices from 0.
        return replace(self, npus=replace(self.npus, device=device)), 0

    def with_gpu(self, index: int) -> Runtime | None:
        return replace(self, gpu=index) if self.daemon.hands_in_gpus else None

    def of_host(self) -> Runtime:
        if self.npus is None or self.host.run(["sh", "-c", 'command -v "$0"', self.npus.npu_smi]).status != 0:
            return self
        return Native(self.host)

    def _options(self, command: Sequence[str], folder: PurePosixPath | None) -> dict[str, Any]:
        """What is asked of the engine beyond what every container gets, under the Docker SDK's names."""
        options: dict[str, Any] = {
            "image": self.image,
            "command": sourced(str(folder or "/"), self.env_scripts, command),
            "environment": {"HOME": "/tmp", **logs(folder), **self.env},  # noqa: S108 (a container's own)
            "mounts": [
                _bind(self.daemon.passwd, read_only=True, target="/etc/passwd"),
                *map(_bind, self._write(command, folder)),
                *(_bind(path, read_only=True) for path in (*self._read(command, folder), *self._named(command))),
            ],
            "devices": [],
            "group_add": [],
            "runtime": None,
        }
        if self.gpu is not None:
            one = docker.types.DeviceRequest(device_ids=[str(self.gpu)], capabilities=[["gpu"]])
            options["device_requests"] = [one]
        return options if self.npus is None else self._with_npu(options, self.npus)

    def _write(self, command: Sequence[str], folder: PurePosixPath | None) -> list[PurePosixPath]:
        """A step's own folder, and the one for converted clips where the command names it."""
        arrays = self.host.kit / ARRAYS
        return [*([folder] if folder else []), *([arrays] if str(arrays) in command else [])]

    def _read(self, command: Sequence[str], folder: PurePosixPath | None) -> list[PurePosixPath]:
        """What of the kit's a command names to read: the host's copies of files, and its own folder's inputs."""
        files = re.escape(str(self.host.kit / "files")) + "/[^/,]+"
        copies = sorted({PurePosixPath(path) for word in command for path in re.findall(files, word)})
        inputs = [] if folder is None else [folder / INPUT]
        return [*copies, *(path for path in inputs if str(path) in command)]

    def _named(self, words: Sequence[str]) -> list[PurePosixPath]:
        return [path for path in self.inputs if any(str(path) in word for word in words)]

    def _with_npu(self, options: dict[str, Any], npus: Npus) -> dict[str, Any]:
        """`options`, the driver's files and one device added."""
        device, vendor = npus.device, npus.vendor_runtime
        if vendor and device is None:
            device = npus.first  # used or not: the driver's libraries come in with a device alone
        nodes = [] if device is None else [f"/dev/davinci{device}", *NPU_NODES]
        files = self.daemon.present(VERSION_FILES if vendor else DRIVER_FILES)
        visible = {"ASCEND_VISIBLE_DEVICES": str(device)} if vendor else {}
        return {
            **options,
            "runtime": "ascend" if vendor else None,
            "environment": {**visible, **options["environment"]},
            "mounts": [*(_bind(PurePosixPath(path), read_only=True) for path in files), *options["mounts"]],
            "devices": [] if vendor else [f"{node}:{node}:rw" for node in nodes],
            "group_add": self.daemon.groups(nodes) if nodes else [],
        }


def _bind(path: PurePosixPath, read_only: bool = False, target: str | None = None) -> docker.types.Mount:
    return docker.types.Mount(target or str(path), str(path), type="bind", read_only=read_only)


def _csv(mount: docker.types.Mount) -> str:
    """A mount as the value of `docker run --mount`, which is a line of CSV."""
    fields = ["type=bind", f"source={mount['Source']}", f"target={mount['Target']}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *(["readonly"] if mount["ReadOnly"] else [])])
    return line.getvalue()
