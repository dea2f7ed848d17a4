"""How a command runs on a host, its environment scripts sourced first: what every way has, and straight on the host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from deploy.errors import HostUnfit, KitError, OverrunError
from deploy.hosts.host import Completed, Host, RunOptions
from deploy.pipeline.prelude import CONFIGURATION_STATUS, sourced

if TYPE_CHECKING:
    from typing_extensions import Unpack

NOT_FOUND_STATUS = 127
LOGS = "ascend-log"  # in a run's folder: what CANN's tools write beside what they print
ARRAYS = "arrays"  # in the kit's folder of the GPU host: clips that it had to convert, kept for later steps


class Runtime(Protocol):
    @property
    def host(self) -> Host: ...

    def argv(self, command: Sequence[str], folder: PurePosixPath | None = None) -> list[str]:
        """The whole argument list that runs `command` in `folder` of the host: what is shown, recorded and run."""

    def run(
        self, command: Sequence[str], *, folder: PurePosixPath | None = None, **options: Unpack[RunOptions]
    ) -> Completed:
        """Run `command`; see `Host.run`. No container outlives the command that started it: a `job` is none there."""

    def facts(self) -> Mapping[str, Any]:
        """What a result's record says of the runtime itself."""

    def on_device(self, device: int) -> tuple[Runtime, int]:
        """The runtime that reaches a logical device of the host, and the number that its tools know the device by."""

    def with_gpu(self, index: int, /) -> Runtime | None:
        """The runtime that reaches one GPU of the host; None where its engine cannot hand one in."""

    def of_host(self) -> Runtime:
        """Where the host's own npu-smi is asked: inside a container it sees that container's processes alone."""


@dataclass(frozen=True)
class Native:
    """Straight on the host."""

    host: Host
    env_scripts: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # the user's: its values are in no argument, record or script
    shown: Mapping[str, str] = field(default_factory=dict)  # the kit's own

    def argv(self, command: Sequence[str], folder: PurePosixPath | None = None) -> list[str]:
        own = {**logs(folder), **self.shown}
        variables = [f"{name}={value}" for name, value in sorted(own.items()) if name not in self.env]
        if not self.env_scripts and folder is None:
            return ["env", *variables, *command]
        return ["env", *variables, "bash", *sourced(str(folder or "."), self.env_scripts, command)]

    def run(
        self, command: Sequence[str], *, folder: PurePosixPath | None = None, **options: Unpack[RunOptions]
    ) -> Completed:
        try:
            argv = self.argv(command, folder)
            done = self.host.run(argv, env=self.env, **options)
        except OverrunError:
            raise overrun(self.host, command, options.get("timeout_s")) from None
        refuse_wrong_tools(done, command[0], self.host.name, self.env_scripts)
        return done

    def facts(self) -> Mapping[str, Any]:
        return {}

    def on_device(self, device: int) -> tuple[Runtime, int]:
        return self, device

    def with_gpu(self, _index: int) -> Runtime | None:
        return self

    def of_host(self) -> Runtime:
        return self


def overrun(host: Host, command: Sequence[str], timeout_s: float | None) -> KitError:
    return KitError(
        f"{host.name}: {shlex.join(command[:3])} ... did not end within {timeout_s:g} s and was stopped; "
        "see its log, and check the device with `npu-smi info`"
    )


def refuse_wrong_tools(done: Completed, program: str, where: str, env_scripts: Sequence[str]) -> None:
    if done.status == CONFIGURATION_STATUS and "environment script" in done.output:
        raise HostUnfit(
            f"{where}: {done.output.strip().splitlines()[-1]}; "
            "name those that are there under tools.env_scripts in the inventory"
        )
    # The loader ends with the same status, for a library: what its program says of that is read where it is known.
    if done.status == NOT_FOUND_STATUS and not re.search("shared libraries|symbol lookup error", done.output):
        place = f"after sourcing {', '.join(env_scripts)}" if env_scripts else "on the PATH"
        raise HostUnfit(f"{where}: {program} is not found {place}; correct `tools` in the inventory")


def logs(folder: PurePosixPath | None) -> dict[str, str]:
    """Where CANN's tools write their detailed logs: not to $HOME, which is gone with a container."""
    return {} if folder is None else {"ASCEND_PROCESS_LOG_PATH": str(folder / LOGS)}
