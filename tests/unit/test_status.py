"""`fab status`: every step in its order, what follows from its state, and where else something ran."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from deploy.errors import KitError
from deploy.evidence import elsewhere
from deploy.evidence.status import MISSING, STALE, print_status, states_of
from deploy.inventory import ROOT
from deploy.pipeline.manifest import FAILED, OK
from deploy.stages import report
from deploy.workspace import Workspace
from tests.unit import made_up

LINE = ["preprocess", "export", "reference", "convert/bs1", "convert/bs4"]


def state_of(workspace: Workspace, step: str) -> tuple[str, str]:
    return next((state.state, state.reason) for state in states_of(workspace) if state.step == step)


def test_the_line_is_that_of_the_stages_whatever_has_run(workspace: Workspace) -> None:
    whole = [state.step for state in states_of(workspace)]
    assert whole[:5] == LINE
    assert whole[-2:] == ["score", "report"]
    del workspace.manifest.steps["convert/bs4"], workspace.manifest.steps["score"]
    assert [state.step for state in states_of(workspace)] == whole
    assert state_of(workspace, "score")[0] == MISSING


def test_a_finished_job_has_no_next_command(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.evidence.status.why_stale", lambda *_: None)  # made up: no sources are in its keys
    made_up.report(workspace)
    facts = print_status(workspace).facts
    assert (facts["finished"], facts["next"]) == (True, None)
    assert "PASSED" in facts["state"]


@pytest.mark.parametrize(
    ("step", "next_command"),
    [("export", "make gpu-stage"), ("convert/bs4", "fab npu-convert"), ("accuracy/bs1", "fab npu-bench")],
)
def test_the_next_command_is_that_of_the_first_step_that_is_not_done(
    step: str, next_command: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.evidence.status.why_stale", lambda *_: None)
    workspace.manifest.steps[step] |= {"state": FAILED, "error": "out of memory"}
    facts = print_status(workspace).facts
    assert (facts["finished"], facts["next"]) == (False, next_command)
    assert state_of(workspace, step) == (FAILED, "out of memory")
    monkeypatch.setenv("INVENTORY", "other site.yaml")
    assert print_status(workspace).facts["next"] == f"INVENTORY='other site.yaml' {next_command}"


def test_what_rests_on_a_changed_file_is_stale_too(workspace: Workspace) -> None:
    assert state_of(workspace, "convert/bs1") == (OK, "")
    workspace.artefact("npu/bs1/atc.log").write_text("another")
    assert state_of(workspace, "convert/bs1") == (STALE, "its outputs changed")
    assert state_of(workspace, "accuracy/bs1") == (STALE, "convert/bs1 is")


def test_a_batch_size_that_the_inventory_lost_comes_last(workspace: Workspace) -> None:
    workspace.inventory = workspace.inventory.model_copy(update={"batch_sizes": [4]})
    states = list(states_of(workspace))
    assert {state.step for state in states[-3:]} == {"convert/bs1", "accuracy/bs1", "throughput/bs1"}
    assert all("bs1 is not in the inventory" in state.reason for state in states[-3:])


def test_where_nothing_ran_it_says_which_inventory_has_a_run(
    scored: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Workspace(made_up.inventory(tmp_path))
    kit = tmp_path / "kit"
    kit.mkdir()
    monkeypatch.setattr(elsewhere, "ROOT", kit)
    (kit / "inventory.broken.yaml").write_text("npu: 3")
    with pytest.raises(KitError, match="make demo"):
        elsewhere.require_run(here, "report")
    shutil.copy(ROOT / "inventory.demo.yaml", kit / "inventory.other.yaml")
    text = (kit / "inventory.other.yaml").read_text()
    (kit / "inventory.other.yaml").write_text(text.replace("workspace: work/demo\n", f"workspace: {scored.folder}\n"))
    for ends in (lambda: elsewhere.require_run(here, "report"), lambda: report.run(here, dataclasses.MISSING, None)):  # type: ignore[arg-type]
        with pytest.raises(KitError, match=r"INVENTORY=inventory\.other\.yaml make report"):
            ends()
    assert print_status(here).facts["finished"] is False
    elsewhere.require_run(scored, "report")
