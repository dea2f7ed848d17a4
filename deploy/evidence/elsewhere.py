"""Which other inventory has a run, for those who look where none is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploy.errors import KitError
from deploy.inventory import ROOT, chosen, load, local_path, with_inventory
from deploy.workspace import Workspace

PATTERNS = ("inventory*.yaml", "work/demo-*/inventory.yaml")  # in the kit's folder; the demos' among them


def nothing_ran(workspace: Workspace, task: str) -> str:
    """The sentence: what to begin with here, and the command that shows what ran elsewhere."""
    others = [f"INVENTORY={path.relative_to(ROOT)} make {task}" for path in _with_runs(workspace.folder)]
    shown = f"; `{others[0]}` shows what ran with another inventory" if others else ", or try `make demo`"
    first = "fab init" if any(host.is_example for host in workspace.inventory.npu) else "fab run"
    return f"{workspace.folder}: nothing has run yet with {chosen()}; start with `{with_inventory(first)}`{shown}"


def require_run(workspace: Workspace, task: str) -> None:
    """Raises KitError where nothing has run in the workspace."""
    if not workspace.manifest.steps:
        raise KitError(nothing_ran(workspace, task))


def _with_runs(here: Path) -> Iterator[Path]:
    """The newest first."""
    found = []
    for path in (path for pattern in PATTERNS for path in ROOT.glob(pattern)):
        try:
            manifest = local_path(load(path).workspace) / "manifest.json"
            if manifest.parent != here:
                found.append((manifest.stat().st_mtime, path))
        except (KitError, OSError):
            continue  # not an inventory, or never used
    return (path for _, path in sorted(found, reverse=True))
