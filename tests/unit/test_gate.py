"""`fab gate`: what fails, what cannot be told, and what is refused because it is about something else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import GateFailed, KitError
from deploy.evidence import gate, runs
from deploy.evidence.runs import Run
from deploy.outcome import Check
from tests.unit import made_up
from tests.unit.made_up import score


def made(folder: Path, **differences: Any) -> Path:
    """The folder of another workspace with its verdict, of the same dataset and reference."""
    workspace = made_up.make(folder, **differences)
    with suppress(GateFailed):  # of its own gate; the baseline is the matter here
        score(workspace)
    return workspace.folder


def checks(now: Path, baseline: Path, status: int = 0) -> dict[tuple[str, str], Check]:
    if not status:
        found = gate.run(now, str(baseline))
    else:
        with pytest.raises(GateFailed) as failed:
            gate.run(now, str(baseline))
        assert failed.value.status == status
        assert failed.value.outcome
        found = failed.value.outcome
    assert found.facts["passed"] is (status == 0)
    return {(check.subject, check.name): check for check in found.checks}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("before"))


def test_the_same_again_passes(before: Path, tmp_path: Path) -> None:
    found = checks(made(tmp_path), before)
    assert {check.passed for check in found.values()} == {True}
    assert ("run", "verdict") in found
    assert {name for subject, name in found if subject == "bs4"} == {"top1", "top5", "throughput"}


def test_slower_by_a_tenth_fails_and_names_the_batch_size(before: Path, tmp_path: Path) -> None:
    found = checks(made(tmp_path, slower=1.1), before, status=2)
    assert [key for key, check in found.items() if check.passed is False] == [
        ("bs1", "throughput"),
        ("bs4", "throughput"),
    ]
    assert checks(before, made(tmp_path / "again", slower=1.1))[("bs1", "throughput")].passed


def test_answers_turned_wrong_fail_where_they_are_more_than_chance(before: Path, tmp_path: Path) -> None:
    found = checks(made(tmp_path, wrong=9), before, status=2)
    assert found["bs4", "top1"].passed is False
    assert "9 samples turned wrong and 0 right" in found["bs4", "top1"].detail
    assert found["bs1", "top1"].passed


def test_a_run_that_missed_its_own_gate_fails(before: Path, tmp_path: Path) -> None:
    found = checks(made(tmp_path, flip=0), before, status=2)
    assert found["run", "verdict"].passed is False
    assert found["bs4", "top1"].passed  # one sample is not beyond chance


def test_latest_is_the_newest_run_but_this_one(workspace: Any) -> None:
    with pytest.raises(KitError, match="latest"):
        gate.run(workspace.folder, "latest")
    (kept,) = runs.all_runs(workspace.folder)
    older = kept.folder.with_name("20200101T000000-" + kept.folder.name.partition("-")[2])
    older.symlink_to(kept.folder)
    found = gate.run(workspace.folder, "latest")
    assert found.facts["passed"]


def other_summary(change: Callable[[dict[str, Any]], None]) -> Callable[[Run], None]:
    return lambda run: change(run.summary)


def without_bs4(summary: dict[str, Any]) -> None:
    summary["batches"] = [batch for batch in summary["batches"] if batch["batch_size"] != 4]


def other_data(run: Run) -> None:
    run.manifest.steps["preprocess"]["inputs"]["data"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_data, "dataset"),
        (other_summary(lambda summary: summary.update(samples=12)), "samples 13 and 12"),
        (other_summary(lambda summary: summary["device"].update(soc_version="Ascend310B1")), "chip Ascend310P3"),
        (other_summary(lambda summary: summary["device"].update(simulated=False)), "simulated"),
        (
            other_summary(lambda summary: summary.update(persons={"samples": 20, "a_clip": 2})),
            "persons both and nonempty",
        ),
        (other_summary(without_bs4), "batch size 4"),
        (other_summary(lambda summary: summary["batches"][0].update(throughput=None)), "throughput of batch size 1"),
    ],
)
def test_what_is_about_something_else_is_refused(
    before: Path, change: Callable[[Run], None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Run(before)
    change(now)
    monkeypatch.setattr(gate, "Run", lambda folder: now)
    with pytest.raises(KitError, match=named) as refused:
        gate.run(before, str(before))
    assert refused.value.status == 1


@pytest.mark.parametrize(
    "change", [lambda figure: figure.update(idle=False), lambda figure: figure.update(values=figure["values"][:1])]
)
def test_what_cannot_be_told_neither_passes_nor_fails(
    before: Path, change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Run(before)
    change(now.summary["batches"][0]["throughput"])
    monkeypatch.setattr(gate, "Run", lambda folder: now)
    assert checks(before, before)["bs1", "throughput"].passed is None


def test_a_changed_file_of_either_is_refused(before: Path, workspace: Any) -> None:
    (kept,) = runs.all_runs(workspace.folder)
    logits = kept.folder / "npu/bs4/logits.npy"
    logits.write_bytes(logits.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(KitError, match="bs4/logits.npy"):
        gate.run(workspace.folder, kept.id)
