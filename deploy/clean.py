"""`fab clean`: remove what the kit put on the hosts; the artefacts in the control's workspace stay."""

from __future__ import annotations

from deploy.connections import Connections
from deploy.console import say
from deploy.inventory import Gpu, Npu


def run(connections: Connections) -> None:
    """Remove the kit's own folder (clips, models, jobs) of every host's workspace, and nothing else.

    Earlier layouts put folders of the same kind straight into the workspace: what their names and contents tell to be
    the kit's goes too, what may be a user's stays and is named.
    """
    sections: list[Gpu | Npu] = [connections.inventory.gpu, *connections.inventory.npu]
    for section in sections:
        host = connections.connect(section)
        cleaned = host.call("clean", {"workspace": str(host.workspace)})
        for path in cleaned["removed"]:
            say(f"  {host.name}: removed {path}")
        for path in cleaned["left"]:
            say(f"  {host.name}: left the rest of {path}, which the kit did not make", "yellow")
        say(f"  {host.name}: {host.workspace} is clean")
