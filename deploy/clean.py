"""`fab clean`: remove what the kit put on the hosts; the artefacts in the control's workspace stay."""

from __future__ import annotations

from deploy.console import say
from deploy.context import Context
from deploy.inventory import Gpu, Npu


def run(context: Context) -> None:
    """Remove the helper, jobs, clips and models on every host, and the workspace itself where nothing else is in it."""
    sections: list[Gpu | Npu] = [context.inventory.gpu, *context.inventory.npu]
    for section in sections:
        host = context.connect(section)
        paths = [str(host.workspace / name) for name in ("data", "files", ".kit")]
        host.call("remove", {"paths": paths, "if_empty": [str(host.workspace)]})
        say(f"  {host.name}: {host.workspace} is clean")
