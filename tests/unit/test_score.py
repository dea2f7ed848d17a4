"""`make score`: what it prints, and what it refuses by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.errors import KitError
from deploy.evidence.logits import write_logits
from deploy.evidence.runs import find
from deploy.pipeline.manifest import describe, digest_of
from deploy.workspace import Workspace
from tests.unit import made_up


def change_entry(workspace: Workspace, step: str, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = workspace.folder / "manifest.json"
    data = json.loads(path.read_bytes())
    change(data["steps"][step])
    data["steps"][step]["key"] = digest_of(data["steps"][step]["inputs"])
    path.write_text(json.dumps(data))


def relogit(workspace: Workspace, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Other results of bs4, recorded as if the device had given them."""
    folder = workspace.folder / "npu/bs4"
    names = [f"clip-{i:03}" for i in range(made_up.SAMPLES)]
    logits = change(np.load(folder / "logits.npy"))
    write_logits(names[: len(logits)], [logits], folder, made_up.CARD)
    for name in ("logits.npy", "results.tsv"):
        digest = describe(folder / name)
        change_entry(
            workspace, "accuracy/bs4", lambda entry, n=name, d=digest: entry["outputs"].update({f"npu/bs4/{n}": d})
        )


def nan_in_row_3(logits: np.ndarray) -> np.ndarray:
    logits[3, 9] = np.nan
    return logits


def nan_in_the_reference(workspace: Workspace) -> None:
    path = workspace.artefact("gpu/reference.npy")
    logits = np.load(path)
    logits[5, 0] = np.nan
    np.save(path, logits)
    digest = describe(path)
    change_entry(workspace, "reference", lambda entry: entry["outputs"].update({"gpu/reference.npy": digest}))


def other_file(name: str) -> Callable[[Workspace], None]:
    return lambda workspace: (workspace.folder.parent / "sample" / name).write_bytes(b"another")


REFUSED: dict[str, tuple[Callable[[Workspace], object], str]] = {
    "short": (lambda c: relogit(c, lambda logits: logits[:-1]), r"line 13 is not that of sample 12 \(clip-012\)"),
    "NaN": (lambda c: relogit(c, nan_in_row_3), r"sample 3 \(clip-003\) has NaN or infinite logits"),
    "NaN in the reference": (nan_in_the_reference, r"gpu/reference.npy: sample 5 "),
    "another dataset's logits": (
        lambda c: change_entry(c, "accuracy/bs4", lambda entry: entry["inputs"].update(dataset="0" * 64)),
        r"accuracy/bs4: its dataset \(sha256 000000000000\) is not that of preprocess",
    ),
    "another ONNX": (
        lambda c: change_entry(c, "convert/bs1", lambda entry: entry["inputs"].update(onnx="1" * 64)),
        r"convert/bs1: its ONNX .* run `fab npu-convert` again",
    ),
    "another checkpoint's reference": (
        lambda c: change_entry(c, "reference", lambda entry: entry["inputs"]["checkpoint"].update(sha256="2" * 64)),
        r"reference: its checkpoint .* is not that of export",
    ),
    "another kind of device": (
        lambda c: change_entry(c, "accuracy/bs4", lambda entry: entry["inputs"].update(cann="8.0")),
        r"accuracy/bs4: its cann is 8\.0",
    ),
    "two kinds of device": (
        lambda c: [
            change_entry(c, f"{step}/bs4", lambda entry: entry["inputs"].update(driver="22.0.4"))
            for step in ("accuracy", "throughput")
        ],
        r"accuracy/bs4 and accuracy/bs1 ran on different .* \(driver 22\.0\.4 and ",
    ),
    "the checkpoint changed": (other_file("st_gcn.made-up.pth"), r"made-up\.pth: sha256 .* but export read"),
    "the labels changed": (other_file("val_label.pkl"), r"val_label\.pkl: sha256 .* but preprocess read"),
    "a checkpoint that is none": (
        lambda c: change_entry(c, "export", lambda entry: entry["inputs"].update(checkpoint=None)),
        r"manifest\.json: not of the form that the kit writes",
    ),
    "no manifest": (lambda c: (c.folder / "manifest.json").unlink(), "nothing has run yet"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_belong_together_is_refused(workspace: Workspace, what: str) -> None:
    damage, sentence = REFUSED[what]
    damage(workspace)
    with pytest.raises(KitError, match=sentence):
        made_up.score(Workspace(workspace.inventory))


@pytest.mark.parametrize("change", [{"device": "x"}, {"batches": ["x"]}, {"verdict": None}, {"device": {"a": 1}}])
def test_a_verdict_forged_with_its_manifest_is_refused(
    change: dict[str, Any], scored: Workspace, tmp_path: Path
) -> None:
    forged = made_up.copy(scored, tmp_path)
    path = forged.folder / "report/summary.json"
    path.write_text(json.dumps({**made_up.read(path), **change}))
    change_entry(forged, "score", lambda entry: entry["outputs"].update({"report/summary.json": describe(path)}))
    with pytest.raises(KitError, match=r"summary\.json"):
        made_up.score(Workspace(forged.inventory))


def test_a_missed_gate_is_an_error_after_everything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = made_up.make(tmp_path, flip=2)
    with pytest.raises(KitError, match=r"batch size 4: Top-1 .*1%.*`fab npu-precision`"):
        made_up.score(workspace)
    summary = made_up.read(workspace.folder / "report/summary.json")
    assert summary["verdict"]["passed"] is False
    assert summary["batches"][1]["flipped"] == [2]
    assert (workspace.folder / "report/report.html").is_file()
    output = capsys.readouterr().out
    assert "verdict (simulated): FAILED" in output
    assert "10.00% off" in output


def test_the_table_has_hits_and_nearness(scored: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    made_up.score(Workspace(scored.inventory))
    output = capsys.readouterr().out
    assert "CACHED  score" in output
    assert "│ 76.92% (10/13) │" in output
    assert "flipped samples" in output
    assert "┃ agreement with fp32 ┃ samples/s (simulated) ┃" in output


def test_a_batch_size_without_a_figure_is_scored_all_the_same(workspace: Workspace) -> None:
    path = workspace.folder / "manifest.json"
    data = json.loads(path.read_bytes())
    data["steps"]["throughput/bs4"]["state"] = "FAILED"
    path.write_text(json.dumps(data))
    made_up.score(Workspace(workspace.inventory))
    batches = made_up.read(workspace.folder / "report/summary.json")["batches"]
    assert [batch["throughput"] is None for batch in batches] == [False, True]
    assert [batch["passed"] for batch in batches] == [True, True]


def test_a_kept_run_that_was_changed_is_not_called_kept(workspace: Workspace) -> None:
    path = find(workspace.folder, "latest").folder / "npu/bs1/results.tsv"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(KitError, match=r"results\.tsv: changed since the run was sealed"):
        made_up.score(workspace)
