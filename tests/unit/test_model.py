"""The seam between the kit and a model: cards, and where their packages lie."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.hosts.local import LocalHost
from deploy.hosts.transfer import put_folder
from deploy.inventory import ROOT
from deploy.pipeline.model import BUNDLED, find, read_card
from deploy.pipeline.sources import by_folder, source_files
from stgcn.cards import CARDS

SMALL: dict[str, Any] = {
    "format": 1,
    "name": "mine.small",
    "title": "Mine",
    "package": "mine",
    "inputs": [{"name": "a", "dtype": "float32", "shape": [3, 4]}, {"name": "b", "dtype": "int64", "shape": [2]}],
    "outputs": [{"name": "x", "dtype": "float32", "shape": [5]}],
    "metrics": [{"key": "error", "title": "Error", "better": "lower", "unit": "number"}],
}


def own(folder: Path, **changes: Any) -> Path:
    """A model folder with a card of its own."""
    (folder / "mine").mkdir(parents=True)
    (folder / "mine/__init__.py").touch()
    (folder / "model.json").write_text(json.dumps({**SMALL, **changes}))
    return folder


@pytest.mark.parametrize("name", CARDS)
def test_a_bundled_card_is_whole_and_found_by_its_name(name: str) -> None:
    model = find(name, ROOT / "no-such-folder")
    assert (model.card.name, model.package) == (name, BUNDLED)


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    model = find("mine", own(tmp_path / "mine"))
    assert (model.card.stem, model.path) == ("mine", tmp_path / "mine")
    assert [tensor.row_bytes for tensor in model.card.inputs] == [48, 16]
    assert model.command("python3", "index", "--x") == [
        "python3",
        "-u",
        "-m",
        "mine.index",
        "--model",
        "mine.small",
        "--x",
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 2}, "format"),
        ({"extra": 1}, "extra"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "a", "dtype": "float64", "shape": [1]}]}, "dtype"),
        ({"inputs": [{"name": "../a", "dtype": "int8", "shape": [1]}]}, "name"),
        ({"outputs": [SMALL["outputs"][0]] * 2}, "outputs"),
        ({"classes": ["one"]}, "classes"),
        ({"rows_per_sample": 10}, "fold"),
        ({"published": {"samples": 1, "sha256": "12345678", "metrics": {"other": 1.0}}}, "other"),
        ({"package": "os.path"}, "package"),
    ],
)
def test_a_wrong_card_is_refused_by_its_key(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    folder = own(tmp_path / "mine", **changes)
    with pytest.raises(KitError, match=named):
        read_card(folder / "model.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}'])
def test_what_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(KitError, match=r"model\.json"):
        read_card(tmp_path / "model.json")


def test_an_unknown_model_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"st_gcn\.kinetics"):
        find("st_gcn.kinetic", tmp_path / "st_gcn.kinetic")


def test_whatever_a_package_holds_is_hashed_wherever_it_lies(tmp_path: Path) -> None:
    package = own(tmp_path / "mine") / "mine"
    (package / "layers").mkdir()
    seen = {find("mine", tmp_path / "mine").sha256}
    for name in ("index.py", "names.csv", "layers/block.py", "layers/table.npy"):
        (package / name).write_bytes(b"1")
        seen.add(find("mine", tmp_path / "mine").sha256)
    assert len(seen) == 5
    for name in ("__pycache__/index.pyc", ".index.py.swp"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(b"1")
        seen.add(find("mine", tmp_path / "mine").sha256)
    assert len(seen) == 5


def test_a_package_is_brought_to_a_host_folder_by_folder(tmp_path: Path) -> None:
    package, host = own(tmp_path / "mine") / "mine", LocalHost("here", tmp_path / "host")
    (package / "layers/deep").mkdir(parents=True)
    (package / "layers/deep/block.py").write_text("x = 1")
    for folder, files in by_folder(source_files(package)).items():
        put_folder(host, files, host.kit / "mine-1/mine" / folder)
    there = Path(host.kit / "mine-1/mine")
    found = {path.relative_to(there).as_posix() for path in there.rglob("*.py")}
    assert found == {"__init__.py", "layers/deep/block.py"}


BESIDE = """
import os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from deploy import interrupt
from deploy.pipeline.model import run_command
interrupt.install()
model = SimpleNamespace(path="", card=None, command=lambda *_: ["sleep", "60"])
with ThreadPoolExecutor(1) as beside:
    beside.submit(run_command, model, "index")
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
"""


def test_an_interrupt_ends_a_command_that_another_thread_waits_for() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stderr.splitlines()[-1:] == ["KeyboardInterrupt"]
