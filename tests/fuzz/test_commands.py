"""The commands that users type, given what others made: one sentence, status 1, nothing written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.inventory import ROOT
from tests.fuzz.bombs import BOMBS
from tests.stgcn.conftest import random_clips

HANG_S = 120
FAB = Path(sys.executable).with_name("fab")


class Evil:
    def __reduce__(self) -> object:
        return os.system, ("touch PWNED",)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def bomb(target: str, name: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(BOMBS[target, name]())


FORMS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to nothing": link_to_nothing,
    "nothing": lambda path: None,
    "an empty file": Path.touch,
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps((Evil(), []), 2)),
    "2^60 clips": bomb("clips", "2^60 clips"),
    "tuples as a key": bomb("labels", "tuples as a key"),
    "lists, a million deep": bomb("json", "a million lists deep"),
    "control sequences": lambda path: path.write_bytes(b"\x80\x02c\x1b[2J\x1b]0;x\x07\n\x1b[31m\n."),
    "YAML that runs code": lambda path: path.write_bytes(b"gate: !!python/object/apply:os.system [touch PWNED]"),
}


def forms(quick: Sequence[str], others: Iterable[str]) -> list[Any]:
    """The quick tier tries a few: each is a process."""
    return [*quick, *(pytest.param(form, marks=pytest.mark.full) for form in others if form not in quick)]


def refused(argv: Sequence[str | Path], folder: Path, status: int = 1, **environment: str) -> str:
    """The sentence of a program that ended as it should."""
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=HANG_S,
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert said.startswith("error: ")
    assert said.endswith("\n")
    assert said[:-1].isprintable(), said
    assert sorted(folder.rglob("*")) == before
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "data.npy", random_clips(1))
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps((["a"], [0]), 2))
    return tmp_path


@pytest.mark.parametrize("form", forms(["a pipe", "a pickle that runs code"], FORMS))
def test_index(form: str, folder: Path) -> None:
    FORMS[form](folder / "bad")
    for data, labels in (("bad", "labels.pkl"), ("data.npy", "bad")):
        argv = ["-m", "stgcn.index", "--data_path", data, "--label_path", labels, "--output_dir", "out"]
        assert "bad" in refused([sys.executable, *argv], folder)


@pytest.mark.parametrize("form", forms(["a pipe"], ["a folder", "a link to nothing", "nothing", "an empty file"]))
def test_score(form: str, folder: Path) -> None:
    (folder / "results").mkdir()
    FORMS[form](folder / "results" / "0_0.bin")
    argv = [sys.executable, "-m", "stgcn.score", "--result_dir", "results", "--label_path", "labels.pkl"]
    assert "sample 0 (a)" in refused(argv, folder)


@pytest.mark.parametrize(
    "form", forms(["a pickle that runs code"], ["a pipe", "control sequences", "lists, a million deep"])
)
def test_export(form: str, folder: Path) -> None:
    FORMS[form](folder / "bad")
    assert "bad" in refused([sys.executable, "-m", "stgcn.export", "--ckpt", "bad", "--onnx", "out.onnx"], folder)


@pytest.mark.parametrize("form", forms(["control sequences"], ["a pipe", "an empty file", "lists, a million deep"]))
def test_onnx_model(form: str, folder: Path) -> None:
    FORMS[form](folder / "bad")
    assert "bad" in refused([sys.executable, "-m", "stgcn.onnx_model", "bad", "data.npy", "out.onnx"], folder)


@pytest.mark.parametrize(
    "form", forms(["a pipe", "YAML that runs code"], [form for form in FORMS if form != "nothing"])
)
def test_an_inventory(form: str, folder: Path) -> None:
    FORMS[form](folder / "bad")
    assert "bad" in refused([FAB, "status"], folder, INVENTORY=str(folder / "bad"))


@pytest.mark.parametrize("task", forms(["audit"], ["status", "runs"]))
@pytest.mark.parametrize("form", forms(["lists, a million deep"], ["a pipe", "an empty file"]))
def test_a_manifest(form: str, task: str, folder: Path) -> None:
    workspace = folder / "work" / ("runs/20260101T000000-01234567" if task == "runs" else "")
    workspace.mkdir(parents=True)
    FORMS[form](workspace / "manifest.json")
    (folder / "inventory.yaml").write_text(f"workspace: {folder}/work\nnpu: [{{name: npu-a}}]\n")
    assert str(workspace) in refused([FAB, task], folder, INVENTORY=str(folder / "inventory.yaml"))


def test_a_home_of_nobody(folder: Path) -> None:
    assert "no such user" in refused([FAB, "status"], folder, INVENTORY="~nobody-of-this-name/inventory.yaml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prune", "--keep", "x"], "--keep x: not a whole number"),
        pytest.param(["prune", "--keep", "9" * 5000], "not a whole number", marks=pytest.mark.full),
        pytest.param(
            ["npu-precision", "--samples", "\x1b[2J1"], "--samples 1: not a whole number", marks=pytest.mark.full
        ),
        (["trust"], "cannot be reached"),
    ],
)
def test_arguments(arguments: list[str], sentence: str, folder: Path) -> None:
    npu = f"{{name: npu-a, connection: ssh, host: {'x' * 70}, port: 1}}"  # no name in DNS has 70 letters in a row
    (folder / "inventory.yaml").write_text(f"workspace: {folder}\nknown_hosts: {folder}/none\nnpu: [{npu}]\n")
    status = 3 if "trust" in arguments else 1  # a host that is not reached is unfit
    assert sentence in refused([FAB, *arguments], folder, status, INVENTORY=str(folder / "inventory.yaml"))
