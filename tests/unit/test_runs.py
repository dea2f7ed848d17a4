"""Kept runs: one a verdict, safe from what comes later, pruned only when asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.audit import print_audit
from deploy.errors import KitError
from deploy.evidence import compare, runs
from deploy.pipeline import reproduce
from deploy.workspace import Workspace
from tests.unit import made_up


def test_a_verdict_is_kept_once_with_all_its_artefacts(workspace: Workspace) -> None:
    (run,) = runs.all_runs(workspace.folder)
    made_up.score(Workspace(workspace.inventory))
    assert [r.folder for r in runs.all_runs(workspace.folder)] == [run.folder]
    kept = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert {
        "manifest.json", "gpu/labels.npy", "gpu/st_gcn.onnx", "gpu/reference.npy", "gpu/reproduce.sh",
        "npu/bs4/logits.npy", "npu/bs4/st_gcn_bs4.om", "npu/bs4/benchmark-3.log", "npu/bs4/atc.log",
        "report/summary.json", "report/summary.csv", "report/report.html", "report/reproduce.sh",
    } <= kept  # fmt: skip
    for entry in run.manifest.steps.values():
        assert run.manifest.whole(entry)


def test_another_verdict_is_another_run(workspace: Workspace) -> None:
    made_up.score(Workspace(workspace.inventory.model_copy(update={"gate": 0.02})))
    first, second = runs.all_runs(workspace.folder)
    assert (first.summary["verdict"]["gate"], second.summary["verdict"]["gate"]) in {(0.01, 0.02), (0.02, 0.01)}


def test_a_log_written_in_place_does_not_reach_a_kept_run(workspace: Workspace) -> None:
    shutil.rmtree(workspace.folder / runs.FOLDER)  # a copy of the finished one's: links were lost in copying
    run = runs.keep(workspace.manifest)
    before = (run.folder / "npu/bs1/atc.log").read_text()
    (workspace.folder / "npu/bs1/atc.log").write_text("later")
    assert (run.folder / "npu/bs1/atc.log").read_text() == before


@pytest.mark.parametrize("name", ["latest", "20", "whole id", "a folder"])
def test_a_run_is_found_by(workspace: Workspace, name: str) -> None:
    (run,) = runs.all_runs(workspace.folder)
    asked = {"whole id": run.folder.name, "a folder": str(workspace.folder)}.get(name, name)
    assert runs.find(workspace.folder, asked).id == run.id


@pytest.mark.parametrize(("name", "sentence"), [("1999", "'1999'.* 20"), ("20", "more than one run")])
def test_an_unknown_or_ambiguous_name_is_refused(workspace: Workspace, name: str, sentence: str) -> None:
    made_up.score(Workspace(workspace.inventory.model_copy(update={"gate": 0.02})))
    with pytest.raises(KitError, match=sentence):
        runs.find(workspace.folder, name)


def test_pruning_keeps_the_newest(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    top = workspace.folder / "runs"
    for old in ("20200101T000000-00000000", "20210101T000000-00000000"):
        (top / old).mkdir()
        (top / old / "manifest.json").touch()
    newest = runs.all_runs(workspace.folder)[-1].folder
    runs.prune(workspace.folder, 1, dry=True)
    assert len(runs.all_runs(workspace.folder)) == 3
    assert capsys.readouterr().out.count("would remove") == 2
    runs.prune(workspace.folder, 1, dry=False)
    assert [run.folder for run in runs.all_runs(workspace.folder)] == [newest]
    with pytest.raises(KitError, match="--keep 0"):
        runs.prune(workspace.folder, 0, dry=False)


def test_a_folder_of_somebody_elses_is_never_pruned(workspace: Workspace) -> None:
    theirs = [workspace.folder / "runs" / name for name in ("20000101T000000-00000000", "photographs")]
    for folder in theirs:
        folder.mkdir(parents=True)
    (theirs[1] / "manifest.json").write_text("{}")
    runs.prune(workspace.folder, 1, dry=False)
    assert all(folder.is_dir() for folder in theirs)


def test_the_list_names_every_run(scored: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    runs.print_runs(scored.folder)
    output = capsys.readouterr().out
    assert runs.all_runs(scored.folder)[0].folder.name in output
    assert "PASSED" in output
    assert "simulated" in output


class TestCompare:
    def test_a_run_with_itself_is_the_same(self, scored: Workspace) -> None:
        run = runs.find(scored.folder, "latest")
        steps = run.manifest.steps
        assert not list(compare.inputs(steps, steps))
        assert not list(compare.results(run.summary, run.summary))
        assert {comparison.verdict for comparison in compare.figures(run, run)} == {"same"}

    def test_what_changed_is_listed(
        self, scored: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = made_up.make(tmp_path, seed=5, slower=1.5)
        made_up.score(other)
        a, b = (runs.find(workspace.folder, "latest") for workspace in (scored, other))
        found = compare.print_comparison(a, b).facts
        assert ("preprocess", "data") in {(row["step"], row["input"]) for row in found["inputs"]}
        rates = [comparison for comparison in found["comparisons"] if comparison["figure"] == "throughput"]
        assert [rate["verdict"] for rate in rates] == ["worse"] * len(made_up.SIZES)
        assert rates[0]["change"] == pytest.approx(-1 / 3)
        output = capsys.readouterr().out
        assert "are not comparable: dataset" in output  # so no sample's answer is
        assert "throughput (simulated): " in output

    def test_two_profiles_stand_side_by_side(
        self, scored: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = runs.find(scored.folder, "latest")
        sides = [replace(one, folder=tmp_path / name) for name in "ab"]
        for side, us in zip(sides, (1000.0, 3000.0), strict=True):
            shutil.copytree(one.folder, side.folder)
            found = {"blocks": [{"block": "7", "us": us}], "operators": [{"nodes": ["Conv_7"], "us": us}]}
            apart = {name: {"us": 0.0} for name in ("compiler", "communication", "unattributed")}
            text = json.dumps({"batch_size": 4, **found, **apart})
            (side.folder / "npu/bs4/profile.json").write_text(text)
        (told,) = compare.print_comparison(*sides).facts["profiles"]
        assert told["nodes"] == [{"name": "Conv_7", "before_us": 1000.0, "now_us": 3000.0}]
        assert "+2.000" in capsys.readouterr().out

    def test_a_faster_run_of_the_same_samples_is_better(self, scored: Workspace, tmp_path: Path) -> None:
        other = made_up.make(tmp_path, slower=0.8)
        made_up.score(other)
        a, b = (runs.find(workspace.folder, "latest") for workspace in (scored, other))
        verdicts = {comparison.figure: comparison.verdict for comparison in compare.figures(a, b)}
        assert verdicts == {"top1": "same", "top5": "same", "throughput": "better"}


def test_reproduce_scripts_hold_the_commands_of_their_steps(scored: Workspace) -> None:
    steps = json.loads((scored.folder / "manifest.json").read_bytes())["steps"]
    for folder, names in (("gpu", ("preprocess", "export", "reference")), ("report", ("score", "report"))):
        path = scored.folder / folder / "reproduce.sh"
        text = path.read_text()
        assert path.stat().st_mode & 0o111
        for name in names:
            assert f"# {name} on " in text
            assert steps[name]["key"] in text
            assert all(output["sha256"] in text for output in steps[name]["outputs"].values())
    assert "atc --model=st_gcn.onnx --output=st_gcn_bs4" in (scored.folder / "npu/bs4/reproduce.sh").read_text()


def test_nothing_in_a_record_leaves_its_comment(workspace: Workspace) -> None:
    evil = "\x1b[2J\ntouch owned\r\n"
    entry = {**workspace.manifest.steps["convert/bs4"], "by": evil, "host": evil, "key": evil, "revision": evil}
    entry["outputs"] = {evil: {"sha256": evil}}
    text = reproduce.script({"convert/bs4": {**entry, "commands": [["echo", evil]], "prepare": []}}, ["convert/bs4"])
    assert text is not None
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"
    assert lines[1].startswith("echo '")
    assert "\x1b" not in "".join(line for line in text.splitlines() if line.startswith("#"))


def test_a_run_of_a_version_that_left_no_card_is_refused_in_one_sentence(workspace: Workspace) -> None:
    path = workspace.folder / "manifest.json"
    record = json.loads(path.read_bytes())
    del record["steps"]["export"]["outputs"]["gpu/model.json"]
    path.write_text(json.dumps(record))
    (workspace.folder / "gpu/model.json").unlink()
    older = Workspace(workspace.inventory)
    revision = record["steps"]["export"]["revision"]
    sentence = rf"made by a version of the kit that left no gpu/model.json \(revision {revision}"
    for command in (lambda: print_audit(older, ""), lambda: made_up.score(older)):
        with pytest.raises(KitError, match=sentence):
            command()
