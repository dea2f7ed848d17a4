"""The manifest: a step runs once for its inputs, again when they or its outputs change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.pipeline.manifest import Manifest, Step


class Counter:
    """A step that writes `out` and counts its runs."""

    def __init__(self, workspace: Path) -> None:
        self.out, self.runs = workspace / "out", 0

    def step(self, **inputs: Any) -> Step:
        return Step("work", "here", inputs, [self.out], self.act, [["make", "out"]])

    def act(self) -> Mapping[str, Any]:
        self.runs += 1
        self.out.write_text("whole")
        return {}


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def test_the_same_inputs_and_whole_outputs_are_cached(tmp_path: Path, counter: Counter) -> None:
    assert Manifest(tmp_path).run_step(counter.step(flag=1))["state"] == "OK"
    assert Manifest(tmp_path).run_step(counter.step(flag=1))["state"] == "CACHED"
    assert counter.runs == 1


@pytest.mark.parametrize("damage", ["change", "remove", "inputs", "fresh"])
def test_a_changed_input_or_output_runs_again(tmp_path: Path, counter: Counter, damage: str) -> None:
    Manifest(tmp_path).run_step(counter.step(flag=1))
    if damage == "change":
        counter.out.write_text("whose?")
    elif damage == "remove":
        counter.out.unlink()
    Manifest(tmp_path).run_step(counter.step(flag=2 if damage == "inputs" else 1), fresh=damage == "fresh")
    assert counter.runs == 2
    assert counter.out.read_text() == "whole"


def test_a_failed_step_is_recorded_and_runs_again(tmp_path: Path, counter: Counter) -> None:
    def fail() -> Mapping[str, Any]:
        raise KitError("device lost")

    with pytest.raises(KitError):
        Manifest(tmp_path).run_step(Step("work", "here", {"flag": 1}, [counter.out], fail))
    entry = Manifest(tmp_path).steps["work"]
    assert (entry["state"], entry["error"], entry["outputs"]) == ("FAILED", "device lost", {})
    assert Manifest(tmp_path).run_step(counter.step(flag=1))["state"] == "OK"


def test_an_action_that_claims_success_without_its_file_fails(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=str(tmp_path / "out")):
        Manifest(tmp_path).run_step(Step("work", "here", {}, [tmp_path / "out"], dict))
    assert Manifest(tmp_path).steps["work"]["state"] == "FAILED"


def test_dry_runs_nothing_and_records_nothing(tmp_path: Path, counter: Counter, capsys: Any) -> None:
    assert Manifest(tmp_path).run_step(counter.step(), dry=True)["state"] == "SKIPPED"
    assert counter.runs == 0
    assert not (tmp_path / "manifest.json").exists()
    assert "make out" in capsys.readouterr().out


def test_an_output_is_asked_for_by_step_and_refused_when_changed(tmp_path: Path, counter: Counter) -> None:
    with pytest.raises(KitError, match="work.*`make it`"):
        Manifest(tmp_path).output("work", counter.out, "make it")
    manifest = Manifest(tmp_path)
    manifest.run_step(counter.step())
    assert manifest.output("work", counter.out, "make it") == counter.out
    counter.out.write_text("whose?")
    with pytest.raises(KitError, match="work.*`make it`"):
        manifest.output("work", counter.out, "make it")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "steps": {}}', '{"format": 1, "steps": {"a": 1}}', "[" * 9999]
)
def test_a_strange_manifest_is_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(KitError, match=r"manifest\.json: .*format 1"):
        Manifest(tmp_path)


def test_a_remembered_digest_follows_the_file(tmp_path: Path) -> None:
    path, manifest = tmp_path / "data", Manifest(tmp_path)
    path.write_bytes(b"1" * (1 << 20))
    first = manifest.input_sha256(path)
    assert manifest.input_sha256(path) == first
    path.write_bytes(b"2" * (1 << 20))
    assert manifest.input_sha256(path) != first
    assert json.loads((tmp_path / ".hashes.json").read_text())[str(path)][-1] == manifest.input_sha256(path)
    with pytest.raises(KitError, match="none"):
        manifest.input_sha256(tmp_path / "none")


def test_what_a_killed_commands_run_made_counts_for_the_next_command(tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    output.write_bytes(b"of other inputs")

    def killed() -> dict[str, Any]:
        raise SystemExit  # as kill -9: what is recorded of it is put back below

    step = Step("export", "gpu", {"checkpoint": 1}, [output], killed)
    with suppress(SystemExit):
        manifest = Manifest(tmp_path)
        manifest.record = lambda *_: None  # type: ignore[method-assign]
        manifest.run_step(step)
    output.write_bytes(b"made by the job, which went on")
    entry = Manifest(tmp_path).run_step(replace(step, action=dict))
    assert entry["state"] == "OK"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(KitError, match=r"model\.onnx"):  # that was all that there was to count
        Manifest(tmp_path).run_step(replace(step, inputs={"checkpoint": 2}, action=dict))


def test_a_lost_hold_records_nothing(tmp_path: Path) -> None:
    host, output = LocalHost("control", tmp_path), tmp_path / "model.onnx"
    host.hold()
    manifest = Manifest(tmp_path)
    manifest.holds.append(host.verify_hold)

    def action() -> dict[str, Any]:
        output.write_bytes(b"made")
        Path(host.kit / "lock").unlink()
        return {}

    with pytest.raises(KitError, match=str(tmp_path)):
        manifest.run_step(Step("export", "gpu", {}, [output], action))
    assert not manifest.path.exists()
