"""One run on a host that outlives a lost link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from deploy.console import say
from deploy.errors import KitError, LinkLost
from deploy.hosts.host import Host
from deploy.pipeline.manifest import digest_of


def job_name(inputs: Mapping[str, Any], name: str) -> str:
    """Of the run that makes `name` of `inputs`."""
    return f"{name.replace('/', '-')}-{digest_of(inputs)[:12]}"


@dataclass(frozen=True)
class Job:
    """The next command finds it by its name."""

    host: Host
    name: str

    @property
    def folder(self) -> PurePosixPath:
        """What the run reads and writes there."""
        return self.host.kit / "runs" / self.name

    @contextmanager
    def attached(self, fresh: bool = False) -> Iterator[bool]:
        """Whether an earlier command started it, so that its folder is ready and in use.

        At the end nothing is left of it, unless the link was lost: then it goes on.
        """
        if fresh:
            self._remove()
        resumed = self.host.has_job(self.name)
        if resumed:
            say(f"  {self.name} on {self.host.name} was started before: resuming it")
        try:
            yield resumed
        except LinkLost:
            raise
        except BaseException:
            with suppress(KitError):
                self._remove()
            raise
        self._remove()

    def _remove(self) -> None:
        self.host.forget([self.name], [self.folder])
