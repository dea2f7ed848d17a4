"""tools.env of the inventory: in the keys of all that it may influence, its values written nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from deploy.containers.native import Native
from deploy.evidence.status import why_stale
from deploy.hosts.local import LocalHost
from deploy.inventory import Inventory
from deploy.pipeline import reproduce
from deploy.workspace import Workspace

SECRET = "hunter2-and-more"


def changed(inventory: Inventory, **tools: Any) -> Inventory:
    values = inventory.model_dump()
    values["npu"][0]["tools"] |= tools
    return Inventory.model_validate(values)


@pytest.mark.parametrize("kind", ["convert", "accuracy"])
def test_a_step_is_stale_once_a_variable_is_another(kind: str, workspace: Workspace) -> None:
    name = f"{kind}/bs4"
    entry = workspace.manifest.steps[name]
    assert why_stale(workspace, name, entry, {}) is None
    given = replace_inventory(workspace, changed(workspace.inventory, env={"TOKEN": SECRET}))
    assert why_stale(given, name, entry, {}) == "env changed"
    of_it = {**entry, "inputs": {**entry["inputs"], **given.inventory.environment}}
    assert why_stale(given, name, of_it, {}) is None
    other = replace_inventory(workspace, changed(workspace.inventory, env={"TOKEN": "other"}))
    assert why_stale(other, name, of_it, {}) == "env changed"
    assert SECRET not in str(of_it)


def test_a_conversion_is_stale_once_aoe_is_wanted(workspace: Workspace) -> None:
    values = workspace.inventory.model_dump()
    tuned = replace_inventory(workspace, Inventory.model_validate({**values, "aoe": 2}))
    entry = workspace.manifest.steps["convert/bs4"]
    assert why_stale(tuned, "convert/bs4", entry, {}) == "aoe_job_type changed"


def replace_inventory(workspace: Workspace, inventory: Inventory) -> Workspace:
    given = replace(workspace, inventory=inventory)
    given.manifest = workspace.manifest
    return given


@pytest.mark.parametrize("job", [None, "job"])
def test_a_program_has_it_and_no_file_or_argument_does(job: str | None, tmp_path: Path) -> None:
    host = LocalHost("here", tmp_path / "workspace")
    native = Native(host, env={"TOKEN": SECRET})
    script = 'test "$TOKEN" = "$(cat "$0")" && tr "\\0" " " < /proc/$PPID/cmdline && grep -rl "$TOKEN" "$1"'
    (tmp_path / "secret").write_text(SECRET)
    command = ["bash", "-c", script, str(tmp_path / "secret"), str(host.workspace)]
    (tmp_path / "workspace").mkdir()
    done = native.run(command, folder=PurePosixPath(tmp_path), log=tmp_path / "log", job=job)
    assert SECRET not in done.output
    assert done.status == 1, done.output  # grep found it in no file of the workspace
    assert SECRET not in str(native.argv(command))


def test_a_script_asks_for_the_variables_by_name(workspace: Workspace) -> None:
    entry = workspace.manifest.steps["convert/bs4"]
    inputs = {**entry["inputs"], "env": {"names": ["TOKEN", "x; rm -rf /"], "sha256": "0" * 64}}
    script = reproduce.script({"convert/bs4": {**entry, "inputs": inputs}}, ["convert/bs4"])
    assert script is not None
    assert 'export TOKEN="${TOKEN?' in script
    assert "rm -rf" not in script
