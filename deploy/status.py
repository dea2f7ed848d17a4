"""`fab status`: what the workspace's manifest says of each step."""

from __future__ import annotations

from datetime import datetime, timezone

from rich.table import Table

from deploy.console import console, printable, say
from deploy.context import Context
from deploy.manifest import OK


def print_status(context: Context) -> None:
    steps = context.manifest.steps
    if not steps:
        say(f"{context.workspace}: nothing has run yet; start with `make gpu-stage`")
        return
    grid = Table()
    for heading in ("step", "state", "host", "age", "key"):
        grid.add_column(heading)
    for name, entry in sorted(steps.items(), key=lambda item: item[1]["started"]):
        state = entry["state"] if entry["state"] != OK or context.manifest.whole(entry) else "STALE: outputs changed"
        why = f"{state}: {entry['error']}" if "error" in entry else state
        grid.add_row(name, printable(why), entry["host"], _age(entry["started"]), entry["key"][:12])
    console.print(grid)


def _age(started: str) -> str:
    minutes = int((datetime.now(timezone.utc) - datetime.fromisoformat(started)).total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
