"""How a command runs on a host: natively, its environment scripts sourced first."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from deploy.errors import KitError, OverrunError
from deploy.hosts import Completed, Host
from deploy.inventory import Gpu, Npu

# The scripts are counted, so that they and the command stay arguments: nothing is spliced into shell text. They are
# sourced inside a function, for CANN's scripts must not see the command's own arguments.
_PRELUDE = """
load() { local script=$1; shift $#; source "$script"; }
cd "$1" || exit 78
count=$2; shift 2
for ((; count > 0; count--)); do
    [ -r "$1" ] || { echo "environment script $1: no such file" >&2; exit 78; }
    load "$1"; shift
done
exec "$@"
"""
CONFIGURATION_STATUS = 78  # sysexits' EX_CONFIG
NOT_FOUND_STATUS = 127


class Runtime(Protocol):
    @property
    def host(self) -> Host: ...

    def argv(self, command: Sequence[str], folder: PurePosixPath | None = None) -> list[str]:
        """The whole argument list that runs `command` in `folder` of the host: what is shown, recorded and run."""

    def run(
        self,
        command: Sequence[str],
        *,
        folder: PurePosixPath | None = None,
        log: Path | None = None,
        timeout_s: float | None = None,
        echo: bool = False,
        job: str | None = None,
    ) -> Completed:
        """Run `command`; see `Host.run`."""

    def facts(self) -> Mapping[str, Any]:
        """What a result's record says of the runtime itself."""

    def on_device(self, device: int) -> tuple[Runtime, int]:
        """The runtime that reaches a logical device of the host, and the number that its tools know the device by."""

    def of_host(self) -> Runtime:
        """Where the host's own npu-smi is asked: inside a container it sees that container's processes alone."""


@dataclass(frozen=True)
class Native:
    """Straight on the host."""

    host: Host
    env_scripts: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def argv(self, command: Sequence[str], folder: PurePosixPath | None = None) -> list[str]:
        variables = [f"{name}={value}" for name, value in sorted(self.env.items())]
        scripts = [str(len(self.env_scripts)), *self.env_scripts]
        return ["env", *variables, "bash", "-c", _PRELUDE, "bash", str(folder or "."), *scripts, *command]

    def run(
        self,
        command: Sequence[str],
        *,
        folder: PurePosixPath | None = None,
        log: Path | None = None,
        timeout_s: float | None = None,
        echo: bool = False,
        job: str | None = None,
    ) -> Completed:
        try:
            done = self.host.run(self.argv(command, folder), log=log, timeout_s=timeout_s, echo=echo, job=job)
        except OverrunError:
            raise KitError(
                f"{self.host.name}: {shlex.join(command[:3])} ... did not end within {timeout_s:g} s and was stopped; "
                "see its log, and check the device with `npu-smi info`"
            ) from None
        if done.status == CONFIGURATION_STATUS and "environment script" in done.output:
            raise KitError(
                f"{self.host.name}: {done.output.strip().splitlines()[-1]}; "
                "name the host's own under tools.env_scripts in the inventory"
            )
        if done.status == NOT_FOUND_STATUS:
            raise KitError(
                f"{self.host.name}: {command[0]} is not found after sourcing {', '.join(self.env_scripts) or 'nothing'}"
                "; correct `tools` in the inventory"
            )
        return done

    def facts(self) -> Mapping[str, Any]:
        return {}

    def on_device(self, device: int) -> tuple[Runtime, int]:
        return self, device

    def of_host(self) -> Runtime:
        return self


def for_gpu(section: Gpu, host: Host, sources: PurePosixPath) -> Runtime:
    """`sources` is the folder on the host that holds `stgcn/`."""
    _refuse_docker(section)
    return Native(host, env={"PYTHONPATH": str(sources)})


def for_npu(section: Npu, host: Host) -> Runtime:
    _refuse_docker(section)
    scripts = [str(host.path(script)) for script in section.tools.env_scripts]
    return Native(host, scripts, section.tools.env)


def _refuse_docker(section: Gpu | Npu) -> None:
    if section.runtime == "docker":
        raise KitError(f"{section.name}: runtime: docker is not there yet; use runtime: native")
