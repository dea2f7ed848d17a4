"""`fab audit`: holds on what was made, and names the first thing that was not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.audit import print_audit
from deploy.errors import KitError
from deploy.evidence import records
from deploy.evidence.differences import differences
from deploy.evidence.runs import find
from deploy.pipeline.manifest import digest_of
from deploy.workspace import Workspace
from tests.unit import made_up


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_bytes())
    change(data)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def set_to(*places: str | int, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for place in places[:-1]:
            data = data[place]
        data[places[-1]] = value

    return change


def flip_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def drop_line(path: Path, beginning: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(beginning)))


def one_label(work: Path) -> None:
    labels = np.load(work / "gpu/labels.npy")
    labels[7] = (labels[7] + 1) % 400
    np.save(work / "gpu/labels.npy", labels)


def one_label_of_the_dataset(work: Path) -> None:
    path = work.parent / "sample/val_label.pkl"
    names, labels = pickle.loads(path.read_bytes())
    labels[7] = (labels[7] + 1) % 400
    path.write_bytes(pickle.dumps((names, labels), protocol=2))


def remove_entry(name: str) -> Callable[[Path], None]:
    return lambda work: edit(work / "manifest.json", lambda data: data["steps"].pop(name))


def edit_manifest(*places: str, value: Any) -> Callable[[Path], None]:
    return lambda work: edit(work / "manifest.json", set_to("steps", *places, value=value))


def edit_summary(*places: str | int, value: Any) -> Callable[[Path], None]:
    return lambda work: edit(work / "report/summary.json", set_to(*places, value=value))


def forge_inputs(step: str, **changes: Any) -> Callable[[Path], None]:
    """Inputs with a key to match: only the links to other steps and the verdict can tell."""

    def change(data: Any) -> None:
        entry = data["steps"][step]
        entry["inputs"] |= changes
        entry["key"] = digest_of(entry["inputs"])

    return lambda work: edit(work / "manifest.json", change)


def forge_figure(work: Path) -> None:
    """A benchmark.json without its idle checks, its sha256 in the manifest made to match."""
    path = work / "npu/bs1/benchmark.json"
    edit(path, lambda data: data.pop("idle_checks"))
    forge_output(work, "throughput/bs1", path)


def forge_rate(work: Path) -> None:
    path = work / "npu/bs1/benchmark.json"
    edit(path, set_to("throughput", "median", value=381.1))
    forge_output(work, "throughput/bs1", path)


def forge_output(work: Path, step: str, path: Path) -> None:
    from deploy.pipeline.manifest import describe

    place = path.relative_to(work).as_posix()
    edit(work / "manifest.json", set_to("steps", step, "outputs", place, value=describe(path)))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a logits byte": (
        lambda w: flip_byte(w / "npu/bs4/logits.npy", 128 + 1600 * 5 + 8),
        r"bs4/logits\.npy: the row of sample 5 \(clip-005\) was changed",
    ),
    "a label": (one_label, r"gpu/labels\.npy: the label of sample 7 is \d+ and was \d+"),
    "a label of the dataset": (one_label_of_the_dataset, r"val_label\.pkl: changed since preprocess read it"),
    "the dataset gone": (
        lambda w: (w.parent / "sample/val_data.npy").unlink(),
        r"val_data\.npy: missing, although preprocess read it",
    ),
    "the checkpoint": (
        lambda w: flip_byte(w.parent / "sample/st_gcn.made-up.pth", 3),
        r"st_gcn\.made-up\.pth: changed since export read it",
    ),
    "a row of the CSV": (
        lambda w: drop_line(w / "report/summary.csv", "4,"),
        r"summary\.csv: the row of batch size 4 is missing",
    ),
    "a cell of the CSV": (
        lambda w: (w / "report/summary.csv").write_text(
            (w / "report/summary.csv").read_text().replace("\n4,13,", "\n4,14,")
        ),
        r"summary\.csv: samples of batch size 4",
    ),
    "the CSV gone": (lambda w: (w / "report/summary.csv").unlink(), r"summary\.csv: missing"),
    "a throughput": (
        edit_summary("batches", 1, "throughput", "median", value=999.0),
        r"summary\.json: batches\[1\]\.throughput\.median is 999\.0",
    ),
    "the verdict": (edit_summary("verdict", "passed", value=False), r"summary\.json: verdict\.passed is false"),
    "a hit more": (edit_summary("batches", 0, "top1_hits", value=11), r"summary\.json: batches\[0\]\.top1_hits is 11"),
    "a key more in the summary": (edit_summary("note", value="fine"), r'summary\.json: note is "fine"'),
    "the OM replaced": (
        lambda w: (w / "npu/bs1/st_gcn_bs1.om").write_bytes(b"another"),
        r"st_gcn_bs1\.om: not the file that convert/bs1 made",
    ),
    "the ONNX gone": (lambda w: (w / "gpu/st_gcn.onnx").unlink(), r"st_gcn\.onnx: missing, although export made it"),
    "the log of a figure": (
        lambda w: flip_byte(w / "npu/bs1/benchmark-2.log", 30),
        r"benchmark-2\.log: .*changed since a figure was read",
    ),
    "a figure without its idle check": (forge_figure, r"benchmark\.json: a figure without an idle check before"),
    "a figure that its logs do not give": (forge_rate, r"benchmark\.json: throughput\.median is 381\.1, and the logs"),
    "the verdict's entry": (remove_entry("score"), r"score: manifest\.json has no entry"),
    "who ran it": (
        edit_manifest("export", "by", value="someone@else"),
        r"export: its manifest entry is not the one that the verdict rests on",
    ),
    "a flag": (
        edit_manifest("convert/bs4", "inputs", "flags", value={}),
        r"convert/bs4: the inputs in its manifest entry are not those",
    ),
    "another ONNX": (
        forge_inputs("convert/bs4", onnx="0" * 64),
        r"convert/bs4: its ONNX \(sha256 000000000000\) is not that of export",
    ),
    "another dataset": (
        forge_inputs("accuracy/bs1", dataset="0" * 64),
        r"accuracy/bs1: its dataset .* is not that of preprocess",
    ),
    "another OM": (
        forge_inputs("throughput/bs1", om="0" * 64),
        r"throughput/bs1: its OM .* is not that of convert/bs1",
    ),
    "a failed step": (
        edit_manifest("accuracy/bs4", "state", value="FAILED"),
        r"accuracy/bs4: its last run failed",
    ),
    "half an entry": (
        lambda w: edit(w / "manifest.json", lambda d: d["steps"]["reference"].pop("seconds")),
        r"steps\.reference\.seconds",
    ),
    "the page": (
        lambda w: (w / "report/report.html").write_text(
            (w / "report/report.html").read_text().replace("Passed", "Perfect")
        ),
        r"report\.html: not the file that report made",
    ),
    "the page's summary": (
        lambda w: (w / "report/report.html").write_text(
            (w / "report/report.html").read_text().replace('"samples":13', '"samples":14', 1)
        ),
        r"report\.html: samples is 14",
    ),
    "a CSV of one endless field": (
        lambda w: (w / "report/summary.csv").write_text("x" * 200000),
        r"summary\.csv: missing or damaged",
    ),
    "a command": (
        lambda w: (w / "npu/bs1/reproduce.sh").write_text("true\n"),
        r"npu/bs1/reproduce\.sh: missing, or not the commands",
    ),
}
DAMAGE |= {
    f"the entry of {name}": (remove_entry(name), f"{name}: manifest\\.json has no entry")
    for name in ("preprocess", "export", "reference", "convert/bs1", "accuracy/bs4", "throughput/bs4", "report")
}


def test_a_whole_run_holds(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    print_audit(workspace, "")
    assert f"{find(workspace.folder, 'latest').id} holds: 13 samples" in capsys.readouterr().out


def test_a_kept_run_holds_when_the_workspace_has_moved_on(workspace: Workspace) -> None:
    flip_byte(workspace.folder / "gpu/st_gcn.onnx", 0)
    with pytest.raises(KitError, match=r"st_gcn\.onnx.*export"):
        print_audit(workspace, "")
    print_audit(workspace, "latest")


@pytest.mark.parametrize("what", DAMAGE)
def test_the_first_thing_that_does_not_hold_is_named(workspace: Workspace, what: str) -> None:
    damage, sentence = DAMAGE[what]
    damage(workspace.folder)
    with pytest.raises(KitError, match=sentence):
        print_audit(Workspace(workspace.inventory), "")


class TestPrecision:
    """What `fab npu-precision` found is part of a verdict that is reached after it, and of no earlier one."""

    def test_a_verdict_carries_it_and_its_files_are_checked(self, workspace: Workspace) -> None:
        found = made_up.precision()
        made_up.ask_for_precision(workspace, found)
        print_audit(workspace, "")  # the verdict was reached before
        made_up.score(workspace)
        path = workspace.folder / "report/summary.json"
        told = records.check(path, made_up.read(path), records.Summary).precision
        assert told is not None
        assert [node.name for node in told.nodes] == [node["name"] for node in found["nodes"]]
        assert {way.way: way.passed for way in told.ways} == {"fp16": False, "kept": True, "fp32": True}
        assert "".join(f"{node['name']}\n" for node in found["nodes"]).strip() in page_of(workspace)
        print_audit(workspace, "")
        print_audit(workspace, "latest")
        made_up.ask_for_precision(workspace, {**found, "conversions": 7})
        print_audit(workspace, "latest")

    def test_files_that_are_not_what_it_found_are_named(self, workspace: Workspace) -> None:
        made_up.ask_for_precision(workspace, made_up.precision())
        made_up.score(workspace)
        flip_byte(workspace.folder / "precision/keep_dtype.cfg", 3)
        with pytest.raises(KitError, match=r"precision/keep_dtype\.cfg"):
            print_audit(workspace, "")

    def test_one_of_another_onnx_is_left_out(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        made_up.ask_for_precision(workspace, made_up.precision())
        edit(workspace.manifest.path, lambda all_: all_["steps"]["precision"]["inputs"].update(onnx="0" * 64))
        again = Workspace(workspace.inventory)
        made_up.score(again)
        assert "precision is left out" in capsys.readouterr().out
        assert "precision" not in made_up.read(workspace.folder / "report/summary.json")
        print_audit(again, "")


def page_of(workspace: Workspace) -> str:
    return (workspace.folder / "report/report.html").read_text()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON text that is no container, or an empty one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [leaf for key, item in items for leaf in leaves(item, (*path, key))]
    yield from below or [path]


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_no_value_of_a_record_can_change_unseen(workspace: Workspace, change: str) -> None:
    """Every value of every entry, but for the report's own, on which nothing rests."""
    path = workspace.folder / "manifest.json"
    whole = path.read_text()
    places = [leaf for leaf in leaves(json.loads(whole)["steps"]) if leaf[0] != "report"]
    assert len(places) > 200
    for *parents, last in places:
        manifest = json.loads(whole)
        inner = manifest["steps"]
        for parent in parents:
            inner = inner[parent]
        if change == "removed":
            del inner[last]
        else:
            inner[last] = 7 if inner[last] != 7 else 8
        path.write_text(json.dumps(manifest))
        with pytest.raises(KitError):
            print_audit(Workspace(workspace.inventory), "")


def test_a_verdict_short_of_the_inventory_is_partial(workspace: Workspace) -> None:
    inventory = workspace.inventory.model_copy(update={"batch_sizes": [1, 4, 8]})
    with pytest.raises(KitError, match="batch size 8"):
        print_audit(Workspace(inventory), "")


def test_a_run_folder_renamed_is_found(workspace: Workspace) -> None:
    run = find(workspace.folder, "latest")
    run.folder.rename(run.folder.with_name("20200101T000000-00000000"))
    with pytest.raises(KitError, match="20200101T000000-00000000"):
        print_audit(workspace, "2020")


@pytest.mark.parametrize(
    ("expected", "found", "places"),
    [
        ({"a": 1.0}, {"a": 1.0 + 1e-12}, []),
        ({"a": 1.0}, {"a": 1.001}, ["a"]),
        ({"a": [1, 2]}, {"a": [1, 2], "b": 3}, []),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": {"b": True}}, {"a": {"b": 1}}, ["a.b"]),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, ["a[0].b"]),
        ({"a": 0.5}, {}, ["a"]),
        ([1, float("nan")], [1, float("nan")], ["[1]"]),
    ],
)
def test_differences_have_a_place(expected: Any, found: Any, places: list[str]) -> None:
    assert [place for place, _, _ in differences(expected, found)] == places
